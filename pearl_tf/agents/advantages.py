"""How much better an action was than what is usual: a linear baseline and GAE, per task.

The baseline is fitted to the very episodes that it is subtracted from, anew for every task and
stage of collection, as in the published code of ProMP.

References: Duan et al. 2016, arXiv:1604.06778 (the features); Schulman et al. 2016,
arXiv:1506.02438 (GAE).
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tf_agents.utils import value_ops

from pearl_tf.data import types

_REGULARIZATION = 1e-5
_MAX_OBSERVATION = 10.0
_TIME_UNIT = 100.0
_EPSILON = 1e-8


def features(observation: np.ndarray) -> np.ndarray:
  """Returns what values are linear in: `[S, 2 O + 4] float64`, of an episode's `[S, O]`."""
  clipped = np.clip(observation.astype(np.float64), -_MAX_OBSERVATION, _MAX_OBSERVATION)
  time = np.arange(len(observation))[:, np.newaxis] / _TIME_UNIT
  return np.concatenate([clipped, clipped**2, time, time**2, time**3, np.ones_like(time)], axis=1)


def fit(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
  """Returns the weights `[F]` of a ridge regression.

  Args:
    inputs: `[M, F]`.
    targets: `[M]`.
  """
  size = inputs.shape[1]
  # As ordinary least squares, which are better conditioned than the normal equations.
  damped = np.concatenate([inputs, np.sqrt(_REGULARIZATION) * np.eye(size)])
  return np.linalg.lstsq(damped, np.concatenate([targets, np.zeros(size)]), rcond=None)[0]


def standardized(values: np.ndarray) -> np.ndarray:
  """Returns `[M]` with mean 0 and, unless all are equal, standard deviation 1."""
  return (values - values.mean()) / (values.std() + _EPSILON)


def advantages(
  episodes_by_task: Sequence[Sequence[types.Episode]], *, gamma: float, gae_lambda: float
) -> list[np.ndarray]:
  """Returns the advantage of every transition, standardised within each task.

  An episode ends where it ends: neither a termination nor a time limit has a value beyond.

  Args:
    episodes_by_task: whole episodes, at least one a task.
    gamma: discount factor.
    gae_lambda: in [0, 1]; 1 for returns minus baseline.

  Returns:
    For each task `[M] float32`, its episodes one after the other.
  """
  episodes = [episode for task in episodes_by_task for episode in task]
  lengths = [len(episode.reward) for episode in episodes]
  rewards = padded([episode.reward for episode in episodes])
  discounts = padded([np.full(length, gamma) for length in lengths])
  nothing = tf.zeros([len(episodes)], tf.float64)
  returns = value_ops.discounted_return(
    tf.constant(rewards), tf.constant(discounts), final_value=nothing
  ).numpy()
  values, first = [], 0
  for task in episodes_by_task:
    inputs = [features(episode.observation) for episode in task]
    own = range(first, first + len(task))
    weights = fit(np.concatenate(inputs), np.concatenate([returns[: lengths[i], i] for i in own]))
    values += [rows @ weights for rows in inputs]
    first += len(task)
  found = value_ops.generalized_advantage_estimation(
    tf.constant(padded(values)), nothing, tf.constant(discounts), tf.constant(rewards), gae_lambda
  ).numpy()
  result, first = [], 0
  for task in episodes_by_task:
    own = range(first, first + len(task))
    result.append(standardized(np.concatenate([found[: lengths[i], i] for i in own])))
    first += len(task)
  return [values.astype(np.float32) for values in result]


def padded(columns: Sequence[np.ndarray]) -> np.ndarray:
  """Returns `[S_max, E, ...] float64`, zero after the end of each of the `E` columns `[S, ...]`."""
  longest = max(len(column) for column in columns)
  result = np.zeros([longest, len(columns), *columns[0].shape[1:]], np.float64)
  for index, column in enumerate(columns):
    result[: len(column), index] = column
  return result
