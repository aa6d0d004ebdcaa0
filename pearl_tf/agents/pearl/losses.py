"""The losses of PEARL on soft actor-critic, as pure functions of tensors.

This module owns the formulas. Which variables a loss may change, and where gradients stop, is
decided by `PearlAgent`; every function here takes what it needs as an argument and asserts shapes.
Letters: `T` tasks, `B` transitions per task, `A` action size, `Z` latent size.
"""

import tensorflow as tf

from pearl_tf.data import types
from pearl_tf.inference import posterior as posterior_lib
from pearl_tf.networks import actor


def _assert_same_shape(**tensors: tf.Tensor) -> None:
  tf.debugging.assert_shapes([(tensor, ('T', 'B')) for tensor in tensors.values()])


def td_target(
  reward: tf.Tensor,
  discount: tf.Tensor,
  next_value: tf.Tensor,
  *,
  reward_scale: float,
  gamma: float,
) -> tf.Tensor:
  """Returns the bootstrapped target of both critics, with its gradient stopped.

  *Mathematical Details*

  ```none
  target = reward_scale * reward + gamma * discount * next_value
  ```

  Args:
    reward: `[T, B] float32`, dense and unscaled.
    discount: `[T, B] float32`, 0 only on true termination.
    next_value: `[T, B] float32`, soft value of the next state.
    reward_scale: inverse temperature: the entropy weight is fixed to 1 in the reference.
    gamma: discount factor in [0, 1].
  """
  _assert_same_shape(reward=reward, discount=discount, next_value=next_value)
  return tf.stop_gradient(reward_scale * reward + gamma * discount * next_value)


def critic_loss(q1: tf.Tensor, q2: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
  """Returns `mean((q1 - target)**2) + mean((q2 - target)**2)`, a scalar (no factor 1/2).

  This is the loss whose gradient also trains the encoder (paper, algorithm 1).

  Args:
    q1: `[T, B] float32`, first critic.
    q2: `[T, B] float32`, second critic.
    target: `[T, B] float32`, see `td_target`.
  """
  _assert_same_shape(q1=q1, q2=q2, target=target)
  return tf.reduce_mean((q1 - target) ** 2) + tf.reduce_mean((q2 - target) ** 2)


def kl_loss(posterior: types.Posterior, weight: float) -> tf.Tensor:
  """Returns `weight * sum_T KL(posterior || N(0, I))`, a scalar.

  Summed over tasks where the critic loss is a mean, as in the reference: the effective weight per
  task therefore grows with the meta-batch size.

  Args:
    posterior: `[T, Z]` beliefs.
    weight: the bottleneck's beta (paper, equation 1).
  """
  tf.debugging.assert_shapes([(posterior.mean, ('T', 'Z')), (posterior.variance, ('T', 'Z'))])
  return weight * tf.reduce_sum(posterior_lib.kl_to_prior(posterior))


def soft_value(min_q: tf.Tensor, log_prob: tf.Tensor, entropy_weight: tf.Tensor) -> tf.Tensor:
  """Returns `min_q - entropy_weight * log_prob`, `[T, B]`: the soft value of sampled actions."""
  _assert_same_shape(min_q=min_q, log_prob=log_prob)
  return min_q - entropy_weight * log_prob


def value_loss(value: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
  """Returns `mean((value - stop_gradient(target))**2)`, a scalar.

  Args:
    value: `[T, B] float32`, V(s, z).
    target: `[T, B] float32`, see `soft_value`.
  """
  _assert_same_shape(value=value, target=target)
  return tf.reduce_mean((value - tf.stop_gradient(target)) ** 2)


def actor_loss(min_q: tf.Tensor, log_prob: tf.Tensor, entropy_weight: tf.Tensor) -> tf.Tensor:
  """Returns `mean(entropy_weight * log_prob - min_q)`, a scalar.

  Args:
    min_q: `[T, B] float32`, the smaller critic at actions sampled from the policy.
    log_prob: `[T, B] float32`, their log density.
    entropy_weight: scalar; 1 in the reference.
  """
  return -tf.reduce_mean(soft_value(min_q, log_prob, entropy_weight))


def actor_regularization(
  parameters: actor.ActionParameters, *, mean_weight: float, log_std_weight: float
) -> tf.Tensor:
  """Returns `mean_weight * mean(mean**2) + log_std_weight * mean(log_std**2)`, a scalar.

  Args:
    parameters: pre-squashing mean and log standard deviation `[T, B, A] float32`.
    mean_weight: 1e-3 in the reference.
    log_std_weight: 1e-3 in the reference.
  """
  tf.debugging.assert_shapes(
    [(parameters.mean, ('T', 'B', 'A')), (parameters.log_std, ('T', 'B', 'A'))]
  )
  return mean_weight * tf.reduce_mean(parameters.mean**2) + log_std_weight * tf.reduce_mean(
    parameters.log_std**2
  )


def entropy_weight_loss(
  log_entropy_weight: tf.Tensor, log_prob: tf.Tensor, target_entropy: float
) -> tf.Tensor:
  """Returns `-log_entropy_weight * stop_gradient(mean(log_prob) + target_entropy)`, a scalar.

  Its gradient raises the weight while the policy's entropy is below `target_entropy`.

  Args:
    log_entropy_weight: scalar variable.
    log_prob: `[T, B] float32`, log density of sampled actions.
    target_entropy: nats; minus the action size by convention.

  #### References
  [1]: Haarnoja et al. Soft Actor-Critic Algorithms and Applications. 2018, section 5.
       https://arxiv.org/abs/1812.05905
  """
  tf.debugging.assert_shapes([(log_prob, ('T', 'B'))])
  return -log_entropy_weight * tf.stop_gradient(tf.reduce_mean(log_prob) + target_entropy)
