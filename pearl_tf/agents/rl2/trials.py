"""Trials as sequences: what the recurrent policy is shown, and how well its actions did.

This module owns what goes over from one episode of a trial to the next.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.utils import value_ops

from pearl_tf.agents import advantages
from pearl_tf.data import types
from pearl_tf.networks import recurrent_actor_critic


class Trials(NamedTuple):
  """`B` trials of up to `S` steps, float32.

  Attributes:
    inputs: what the network is shown.
    action: `[B, S, A]`, what it did.
    reward: `[B, S]`.
    discount: `[B, S]`, 0 where nothing after a step belongs to its return.
    mask: `[B, S]`, 1 for a step and 0 for padding.
  """

  inputs: recurrent_actor_critic.Inputs
  action: np.ndarray
  reward: np.ndarray
  discount: np.ndarray
  mask: np.ndarray


def make_trials(
  episodes_by_trial: Sequence[Sequence[types.Episode]], *, across_episodes: bool
) -> Trials:
  """Lays the episodes of each trial end to end.

  Args:
    episodes_by_trial: of each trial, at least one.
    across_episodes: whether a return goes on over the end of an episode, so that exploring in one
      is paid for in the next.
  """
  columns = [_columns(trial, across_episodes) for trial in episodes_by_trial]
  stacked = [
    np.swapaxes(advantages.padded(column), 0, 1).astype(np.float32)
    for column in zip(*columns, strict=True)
  ]
  return Trials(recurrent_actor_critic.Inputs(*stacked[:4]), *stacked[4:])


def _columns(trial: Sequence[types.Episode], across_episodes: bool) -> tuple[np.ndarray, ...]:
  action = np.concatenate([episode.action for episode in trial])
  shown = np.concatenate([episode.context_reward for episode in trial])
  lengths = [len(episode.reward) for episode in trial]
  is_first = np.zeros(len(shown))
  is_first[np.cumsum([0, *lengths[:-1]])] = 1
  discount = np.ones(len(shown))
  if not across_episodes:
    discount[np.cumsum(lengths) - 1] = 0
  done = is_first.copy()
  done[0] = 0
  return (
    np.concatenate([episode.observation for episode in trial]),
    np.concatenate([np.zeros_like(action[:1]), action[:-1]]),
    np.concatenate([[0.0], shown[:-1]]),
    done,
    action,
    np.concatenate([episode.reward for episode in trial]),
    discount,
    np.ones(len(shown)),
  )


def advantages_and_targets(
  reward: np.ndarray, trials: Trials, value: np.ndarray, *, gamma: float, gae_lambda: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns standardised advantages and targets of the value, `[B, S] float32` both.

  Args:
    reward: `[B, S]`, normalised.
    trials: the trials; a trial has nothing after its end.
    value: `[B, S]`, of the network.
    gamma: discount factor.
    gae_lambda: in [0, 1].
  """
  mask = trials.mask
  found = (
    value_ops.generalized_advantage_estimation(
      tf.constant((value * mask).T),
      tf.zeros([len(mask)]),
      tf.constant((gamma * trials.discount * mask).T.astype(np.float32)),
      tf.constant((reward * mask).T.astype(np.float32)),
      gae_lambda,
    )
    .numpy()
    .T
  )
  # Beyond the end there is padding without reward and value, so nothing of it comes back.
  own = found[mask > 0]
  return ((found - own.mean()) / (own.std() + 1e-5) * mask).astype(np.float32), found + value
