"""Beliefs over the latent: the distribution of a posterior, its samples and its KL.

This module owns the bridge between the plain `types.Posterior` that travels through the program and
TFP distributions. Losses, policies and the exported model call it.
"""

import tensorflow as tf
import tensorflow_probability as tfp

from pearl_tf.data import types

tfd = tfp.distributions


def distribution(posterior: types.Posterior) -> tfd.Distribution:
  """Returns `posterior` as a TFP distribution with batch shape `[...]` and event shape `[Z]`."""
  return tfd.MultivariateNormalDiag(
    loc=posterior.mean, scale_diag=tf.sqrt(posterior.variance), allow_nan_stats=False
  )


def sample(posterior: types.Posterior, seed: tf.Tensor | None) -> tf.Tensor:
  """Draws one reparameterised latent per belief.

  Args:
    posterior: belief with leading dimensions `[...]`; a variance of zero yields the mean.
    seed: `[2] int32` stateless seed, or None for TensorFlow's global generator.

  Returns:
    `[..., Z] float32`, differentiable with respect to mean and variance.
  """
  return distribution(posterior).sample(seed=seed)


def kl_to_prior(posterior: types.Posterior) -> tf.Tensor:
  """Returns KL(posterior || N(0, I)) in nats, `[...] float32`.

  The information bottleneck penalises this quantity (paper, equation 1), one term per task.
  """
  prior = tfd.MultivariateNormalDiag(
    loc=tf.zeros_like(posterior.mean), scale_diag=tf.ones_like(posterior.variance)
  )
  return tfd.kl_divergence(distribution(posterior), prior)
