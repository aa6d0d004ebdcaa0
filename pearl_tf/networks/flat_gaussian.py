"""A Gaussian policy as a function of one flat vector of parameters.

Methods that adapt by gradient steps give every task parameters of its own and differentiate through
the steps, so the parameters are an argument `[..., P]` and not variables. This module owns their
layout, the density and the divergence; who moves them is in `pearl_tf.agents`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gin
import numpy as np
import tensorflow as tf

_MIN_LOG_STD = math.log(1e-6)


class Gaussian(NamedTuple):
  """Independent Gaussians over actions.

  Attributes:
    mean: `[..., N, A]`.
    log_std: `[..., N, A]`, logarithm of the standard deviation.
  """

  mean: tf.Tensor
  log_std: tf.Tensor


@gin.configurable(denylist=['observation_size', 'action_size'])
class FlatGaussian:
  """An MLP with tanh, a linear mean, and a standard deviation that no observation changes.

  Attributes:
    num_parameters: `P`.
  """

  def __init__(
    self,
    observation_size: int,
    action_size: int,
    *,
    hidden_units: Sequence[int] = (64, 64),
    action_scale: float = 0.1,
  ):
    """Lays out the parameters.

    Args:
      observation_size: `O`.
      action_size: `A`.
      hidden_units: width of each hidden layer.
      action_scale: actions are this multiple of what the network says, for mean and standard
        deviation alike. The published agents act in +-10 where ours act in +-1.

    Raises:
      ValueError: if a size is not positive.
    """
    if min(*hidden_units, 1) < 1 or not action_scale > 0:
      raise ValueError(
        'FlatGaussian.hidden_units and .action_scale must be positive, got '
        f'{tuple(hidden_units)} and {action_scale}'
      )
    self.observation_size, self.action_size = observation_size, action_size
    self._log_scale = math.log(action_scale)
    widths = [observation_size, *hidden_units, action_size]
    self._shapes = []
    for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True):
      self._shapes += [(fan_in, fan_out), (1, fan_out)]
    self._shapes.append((1, action_size))
    self._sizes = [int(np.prod(shape)) for shape in self._shapes]
    self.num_parameters = sum(self._sizes)

  def initial_parameters(self, seed: int) -> np.ndarray:
    """Returns `[P] float32`: Glorot-uniform weights; biases and logarithms of deviations zero."""
    random = np.random.default_rng(seed)
    parts = [np.zeros(size) for size in self._sizes]
    for index in range(0, len(parts) - 1, 2):
      bound = math.sqrt(6 / sum(self._shapes[index]))
      parts[index] = random.uniform(-bound, bound, size=self._sizes[index])
    return np.concatenate(parts).astype(np.float32)

  def __call__(self, parameters: tf.Tensor, observation: tf.Tensor) -> Gaussian:
    """Returns the distribution of actions.

    Args:
      parameters: `[P]` or `[T, P]`, float.
      observation: `[N, O]` or `[T, N, O]`, of the same type.
    """
    *layers, log_std = (
      tf.reshape(part, tf.concat([tf.shape(part)[:-1], shape], 0))
      for part, shape in zip(tf.split(parameters, self._sizes, axis=-1), self._shapes, strict=True)
    )
    mean = self._mean(layers, observation, tf.tanh)
    log_std = tf.maximum(log_std, tf.cast(_MIN_LOG_STD, log_std.dtype)) + self._log_scale
    return Gaussian(mean, tf.broadcast_to(log_std, tf.shape(mean)))

  def on_arrays(self, parameters: np.ndarray, observation: np.ndarray) -> Gaussian:
    """Returns the same on arrays; for acting, where starting TensorFlow costs 20 times as much.

    Args:
      parameters: `[T, P]`, float.
      observation: `[T, N, O]`, of the same type.
    """
    *layers, log_std = (
      part.reshape(-1, *shape)
      for part, shape in zip(
        np.split(parameters, np.cumsum(self._sizes)[:-1], axis=-1), self._shapes, strict=True
      )
    )
    mean = self._mean(layers, observation, np.tanh)
    log_std = np.maximum(log_std, _MIN_LOG_STD) + self._log_scale
    return Gaussian(mean, np.broadcast_to(log_std, mean.shape))

  def _mean(self, layers: Sequence[Any], observation: Any, tanh: Callable[[Any], Any]) -> Any:
    hidden = observation
    for index in range(0, len(layers), 2):
      hidden = hidden @ layers[index] + layers[index + 1]
      if index < len(layers) - 2:
        hidden = tanh(hidden)
    return hidden * math.exp(self._log_scale)


def log_prob(policy: Gaussian, action: tf.Tensor) -> tf.Tensor:
  """Returns the log density `[..., N]` of actions `[..., N, A]` that nobody clipped."""
  standardized = (action - policy.mean) * tf.exp(-policy.log_std)
  constant = 0.5 * math.log(2 * math.pi)
  return -tf.reduce_sum(0.5 * standardized**2 + policy.log_std + constant, axis=-1)


def kl_divergence(old: Gaussian, new: Gaussian) -> tf.Tensor:
  """Returns KL(old || new) `[..., N]`, summed over the components of an action."""
  squared = (old.mean - new.mean) ** 2 + tf.exp(2 * old.log_std)
  terms = 0.5 * squared * tf.exp(-2 * new.log_std) - 0.5 + new.log_std - old.log_std
  return tf.reduce_sum(terms, axis=-1)
