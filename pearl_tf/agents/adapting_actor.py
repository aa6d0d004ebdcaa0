"""How ProMP and MAML act: parameters of its own for every trial, moved by one step.

This module owns when actions are sampled. Before adaptation they always are: the mean has a score
of zero, so an agent that explored greedily would learn nothing from it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pearl_tf.agents import adapting_agent
from pearl_tf.data import types


class AdaptedState(NamedTuple):
  """What a trial carries.

  Attributes:
    parameters: `[B, P] float32`.
    adapted: `[B] float32`, 1 where they have left the meta-parameters.
  """

  parameters: np.ndarray
  adapted: np.ndarray


class AdaptingActor:
  """Acts with adapted parameters; a `collect.actor.Actor`."""

  def __init__(self, agent: adapting_agent.AdaptingAgent, *, deterministic: bool):
    """Connects it with an agent.

    Args:
      agent: holds the meta-parameters.
      deterministic: acts by the mean once adapted (meta-test) instead of sampling (collection).
    """
    self._agent = agent
    self._deterministic = deterministic

  def initial_state(self, batch_size: int) -> AdaptedState:
    """Returns the meta-parameters as they are now, once a trial."""
    parameters = np.tile(self._agent.parameters.numpy(), [batch_size, 1])
    return AdaptedState(parameters, np.zeros([batch_size], np.float32))

  def act(self, observation, step_type, reward, state, seed):
    """Returns actions `[B, A]` and the state, which acting does not change."""
    del step_type, reward
    policy = self._agent.policy.on_arrays(state.parameters, observation[:, np.newaxis])
    mean, std = policy.mean[:, 0], np.exp(policy.log_std[:, 0])
    noise = np.random.default_rng(seed).standard_normal(mean.shape, np.float32)
    is_greedy = self._deterministic & (state.adapted > 0)
    return np.where(is_greedy[:, np.newaxis], mean, mean + std * noise), state

  def adapt(
    self,
    state: AdaptedState,
    episodes_by_trial: Sequence[Sequence[types.Episode]],
    random: np.random.Generator,
  ) -> AdaptedState:
    """Takes the one inner step of those trials that have not taken it.

    Later episodes, which are not of the meta-parameters, change nothing.
    """
    del random
    due = np.flatnonzero(state.adapted == 0)
    if not len(due):
      return state
    parameters = state.parameters.copy()
    parameters[due] = self._agent.adapt(
      parameters[due], [episodes_by_trial[index] for index in due]
    )
    return AdaptedState(parameters, np.ones_like(state.adapted))
