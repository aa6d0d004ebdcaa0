"""How ProMP and MAML act: parameters of its own for every session, moved by one step.

This module owns when actions are sampled. Before adaptation they always are: the mean has a score
of zero, so an agent that explored greedily would learn nothing from it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pearl_tf.agents import adapting_agent
from pearl_tf.data import types


class AdaptedState(NamedTuple):
  """What a session carries.

  Attributes:
    parameters: `[B, P] float32`.
    adapted: `[B] float32`, 1 where they have left the meta-parameters.
  """

  parameters: np.ndarray
  adapted: np.ndarray


class AdaptingActor:
  """Acts with adapted parameters; a `collect.actor.Actor`."""

  def __init__(self, agent: adapting_agent.AdaptingAgent, *, deterministic: bool):
    """Compiles lazily, at the first call.

    Args:
      agent: holds the meta-parameters.
      deterministic: acts by the mean once adapted (meta-test) instead of sampling (collection).
    """
    self._agent = agent
    self._deterministic = deterministic
    policy, size = agent.policy, agent.policy.num_parameters
    self._act = tf.function(
      self._act_on,
      input_signature=[
        tf.TensorSpec([None, policy.observation_size], tf.float32),
        tf.TensorSpec([None, size], tf.float32),
        tf.TensorSpec([None], tf.float32),
        tf.TensorSpec([2], tf.int32),
      ],
    )

  def _act_on(self, observation, parameters, adapted, seed):
    policy = self._agent.policy(parameters, observation[:, tf.newaxis])
    mean, std = policy.mean[:, 0], tf.exp(policy.log_std[:, 0])
    sampled = mean + std * tf.random.stateless_normal(tf.shape(mean), seed)
    is_greedy = self._deterministic & (adapted > 0)
    return tf.where(is_greedy[:, tf.newaxis], mean, sampled)

  def initial_state(self, batch_size: int) -> AdaptedState:
    """Returns the meta-parameters as they are now, once a session."""
    parameters = np.tile(self._agent.parameters.numpy(), [batch_size, 1])
    return AdaptedState(parameters, np.zeros([batch_size], np.float32))

  def act(self, observation, step_type, reward, state, seed):
    """Returns actions `[B, A]` and the state, which acting does not change."""
    del step_type, reward
    return self._act(observation, state.parameters, state.adapted, seed).numpy(), state

  def adapt(
    self,
    state: AdaptedState,
    episodes_by_session: Sequence[Sequence[types.Episode]],
    random: np.random.Generator,
  ) -> AdaptedState:
    """Takes the one inner step of those sessions that have not taken it.

    Later episodes, which are not of the meta-parameters, change nothing.
    """
    del random
    due = np.flatnonzero(state.adapted == 0)
    if not len(due):
      return state
    parameters = state.parameters.copy()
    parameters[due] = self._agent.adapt(
      parameters[due], [episodes_by_session[index] for index in due]
    )
    return AdaptedState(parameters, np.ones_like(state.adapted))
