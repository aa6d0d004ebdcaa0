"""How RL2 acts: its hidden state goes through all episodes of a trial."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import time_step as ts

from pearl_tf.agents.rl2 import agent as rl2_agent
from pearl_tf.collect import compiled
from pearl_tf.networks import recurrent_actor_critic


class TrialState(NamedTuple):
  """What a trial carries; zero at its start.

  Attributes:
    hidden: `[B, H] float32`.
    action: `[B, A] float32`, the last one.
    has_begun: `[B] float32`, 1 after the first step.
  """

  hidden: np.ndarray
  action: np.ndarray
  has_begun: np.ndarray


class RL2Actor:
  """Acts with a recurrent policy; a `collect.actor.Actor`."""

  def __init__(self, agent: rl2_agent.RL2Agent, *, deterministic: bool):
    """Compiles lazily, at the first call.

    Args:
      agent: holds the network.
      deterministic: acts by the mean (meta-test) instead of sampling (collection).
    """
    self._network = agent.network
    self._deterministic = deterministic
    sizes = agent.network.observation_size, agent.network.action_size, agent.network.state_size
    observation, action, hidden = (tf.TensorSpec([None, size], tf.float32) for size in sizes)
    scalar = tf.TensorSpec([None], tf.float32)
    self._act = compiled.Compiled(
      self._act_on, [observation, action, scalar, scalar, hidden, tf.TensorSpec([2], tf.int32)]
    )

  def _act_on(self, observation, action, reward, done, hidden, seed):
    given = (observation, action, reward, done)
    inputs = recurrent_actor_critic.Inputs(*(part[:, tf.newaxis] for part in given))
    outputs = self._network(inputs, hidden)
    mean, log_std = (part[:, 0] for part in outputs.policy)
    if self._deterministic:
      return mean, outputs.state
    return mean + tf.exp(log_std) * tf.random.stateless_normal(tf.shape(mean), seed), outputs.state

  def initial_state(self, batch_size: int) -> TrialState:
    """Returns the start of a trial."""
    return TrialState(
      hidden=np.zeros([batch_size, self._network.state_size], np.float32),
      action=np.zeros([batch_size, self._network.action_size], np.float32),
      has_begun=np.zeros([batch_size], np.float32),
    )

  def act(self, observation, step_type, reward, state, seed):
    """Returns actions `[B, A]` and the state after them."""
    # The start of a later episode is shown as the end of the one before, and resets nothing.
    done = (step_type == ts.StepType.FIRST) * state.has_begun
    action, hidden = self._act(
      observation, state.action, reward * state.has_begun, done, state.hidden, seed
    )
    return action, TrialState(hidden, action, np.ones_like(state.has_begun))

  def adapt(self, state, episodes_by_trial, random):
    """Returns the state as it is: acting has adapted it."""
    del episodes_by_trial, random
    return state
