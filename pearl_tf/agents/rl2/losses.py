"""Proximal policy optimisation on whole trials.

References: Schulman et al. 2017, arXiv:1707.06347, equations 7 and 9.
"""

import math

import tensorflow as tf

from pearl_tf.networks import flat_gaussian


def ppo_loss(
  policy: flat_gaussian.Gaussian,
  value: tf.Tensor,
  *,
  action: tf.Tensor,
  old_log_prob: tf.Tensor,
  old_value: tf.Tensor,
  advantage: tf.Tensor,
  target: tf.Tensor,
  mask: tf.Tensor,
  clip: float,
  value_weight: float,
  entropy_weight: float,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
  """Returns the loss, a scalar, and scalars for the log.

  Args:
    policy: `[B, S, A]`, as it is now.
    value: `[B, S]`, likewise.
    action: `[B, S, A]`, taken.
    old_log_prob: `[B, S]`, its log density under what took it.
    old_value: `[B, S]`, from before the first step on these data.
    advantage: `[B, S]`.
    target: `[B, S]`, what the value should have been.
    mask: `[B, S]`, 1 for a step and 0 for padding.
    clip: how far a ratio of densities, and a value, may move to be paid for.
    value_weight: of half the value loss.
    entropy_weight: of the entropy.
  """
  ratio = tf.exp(flat_gaussian.log_prob(policy, action) - old_log_prob)
  clipped = tf.clip_by_value(ratio, 1 - clip, 1 + clip)
  surrogate = tf.minimum(ratio * advantage, clipped * advantage)
  near_value = old_value + tf.clip_by_value(value - old_value, -clip, clip)
  value_loss = 0.5 * tf.maximum(_huber(value - target), _huber(near_value - target))
  entropy = tf.reduce_sum(policy.log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1)

  def mean(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values * mask) / tf.reduce_sum(mask)

  scalars = {
    'loss/surrogate': -mean(surrogate),
    'loss/value': mean(value_loss),
    'policy/entropy': mean(entropy),
    'policy/ratio_max': tf.reduce_max(tf.abs(ratio - 1) * mask),
    'kl/outer': mean(ratio - 1 - tf.math.log(ratio)),
  }
  loss = (
    scalars['loss/surrogate']
    + value_weight * scalars['loss/value']
    - entropy_weight * scalars['policy/entropy']
  )
  return loss, scalars


def _huber(error: tf.Tensor) -> tf.Tensor:
  size = tf.abs(error)
  return tf.where(size < 1, 0.5 * error**2, size - 0.5)
