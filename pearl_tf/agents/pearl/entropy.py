"""The weight of the entropy bonus: fixed as in the reference, or tuned as in later SAC."""

import math

import gin
import tensorflow as tf

from pearl_tf.agents import optimizers, replicas
from pearl_tf.agents.pearl import losses


@gin.configurable(denylist=['action_size'])
class FixedEntropyWeight(tf.Module):
  """A constant weight; the reference keeps it at 1 and tunes the reward scale instead."""

  def __init__(self, action_size: int, *, weight: float = 1.0):
    """Builds the constant.

    Args:
      action_size: `A`; unused, every entropy weight is built from it.
      weight: the constant, not negative.

    Raises:
      ValueError: if `weight` is negative.
    """
    super().__init__()
    del action_size
    if not 0 <= weight < math.inf:  # Refuses NaN too.
      raise ValueError(f'FixedEntropyWeight.weight must not be negative, got {weight}')
    self._weight = weight

  def value(self) -> tf.Tensor:
    """Returns the weight, a scalar."""
    return tf.constant(self._weight, tf.float32)

  def update(self, log_prob: tf.Tensor) -> None:
    """Does nothing."""
    del log_prob


@gin.configurable(denylist=['action_size'])
class AutomaticEntropyWeight(tf.Module):
  """A weight that keeps the policy's entropy near a target (Haarnoja et al. 2018b, section 5)."""

  def __init__(
    self,
    action_size: int,
    *,
    initial_weight: float = 1.0,
    target_entropy: float | None = None,
    learning_rate: float = 3e-4,
  ):
    """Builds variable and optimizer.

    Args:
      action_size: `A`.
      initial_weight: positive starting value.
      target_entropy: nats; minus the action size when None.
      learning_rate: of Adam on the weight's logarithm.

    Raises:
      ValueError: if `initial_weight` is not positive.
    """
    super().__init__()
    if not 0 < initial_weight < math.inf:  # Refuses NaN too.
      raise ValueError(
        f'AutomaticEntropyWeight.initial_weight must be positive, got {initial_weight}'
      )
    self._target_entropy = -float(action_size) if target_entropy is None else target_entropy
    self._log_weight = tf.Variable(tf.math.log(initial_weight), name='log_entropy_weight')
    self._optimizer = optimizers.adam(
      learning_rate, [self._log_weight], name='AutomaticEntropyWeight.learning_rate'
    )

  def value(self) -> tf.Tensor:
    """Returns the current weight, a scalar without gradient."""
    return tf.stop_gradient(tf.exp(self._log_weight))

  def update(self, log_prob: tf.Tensor) -> None:
    """Takes one step from the log densities `[T, B]` of freshly sampled actions."""
    with tf.GradientTape() as tape:
      loss = losses.entropy_weight_loss(self._log_weight, log_prob, self._target_entropy)
      loss = replicas.share_of_mean(loss)
    optimizers.apply(self._optimizer, tape, loss, [self._log_weight])
