"""The product of Gaussian factors, in natural parameters.

This module owns the algebra that turns per-transition evidence into one belief. It knows nothing
of networks or replay; the encoder calls it. Natural parameters simply add, so a belief can absorb
new transitions without the old ones.
"""

import tensorflow as tf

from pearl_tf.data import types

# Factors narrower than this are clipped, as in the reference implementation.
MIN_VARIANCE = 1e-7


def to_natural_parameters(
  factors: types.GaussianFactors, mask: tf.Tensor
) -> types.NaturalParameters:
  """Sums the evidence of the unmasked factors.

  Masked entries may hold anything, NaN included: they are replaced before any arithmetic.

  Args:
    factors: mean and variance `[..., N, Z] float32`; variances are floored at `MIN_VARIANCE`.
    mask: `[..., N] float32`, 1 where the factor counts and 0 where it is padding.

  Returns:
    `types.NaturalParameters` with precision and precision_mean `[..., Z]` and count `[...]`.
  """
  with tf.name_scope('to_natural_parameters'):
    is_evidence = mask[..., tf.newaxis] > 0
    precision = tf.where(is_evidence, 1.0 / tf.maximum(factors.variance, MIN_VARIANCE), 0.0)
    mean = tf.where(is_evidence, factors.mean, 0.0)
    return types.NaturalParameters(
      precision=tf.reduce_sum(precision, axis=-2),
      precision_mean=tf.reduce_sum(precision * mean, axis=-2),
      count=tf.reduce_sum(mask, axis=-1),
    )


def combine(
  first: types.NaturalParameters, second: types.NaturalParameters
) -> types.NaturalParameters:
  """Returns the natural parameters of the product of two beliefs: their sum."""
  return types.NaturalParameters(*(a + b for a, b in zip(first, second, strict=True)))


def from_natural_parameters(parameters: types.NaturalParameters) -> types.Posterior:
  """Returns the Gaussian with these natural parameters; with no evidence, the prior N(0, I).

  *Mathematical Details*

  ```none
  variance = 1 / sum_n 1 / variance[n]
  mean     = variance * sum_n mean[n] / variance[n]
  ```

  The prior is not a factor of the product, so an empty context cannot follow from the formula and
  is a case of its own.

  Args:
    parameters: precision and precision_mean `[..., Z]`, count `[...]`.

  Returns:
    `types.Posterior` with leading dimensions `[...]`.

  #### References
  [1]: Rakelly et al. Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic Context
       Variables. ICML 2019, section 4.1. https://arxiv.org/abs/1903.08254
  """
  with tf.name_scope('from_natural_parameters'):
    has_evidence = parameters.count[..., tf.newaxis] > 0
    precision = tf.where(has_evidence, parameters.precision, 1.0)
    variance = 1.0 / precision
    mean = tf.where(has_evidence, parameters.precision_mean * variance, 0.0)
    return types.Posterior(mean=mean, variance=variance)


def product_of_gaussians(factors: types.GaussianFactors, mask: tf.Tensor) -> types.Posterior:
  """Returns the normalised product of the unmasked factors along the `N` axis.

  Args:
    factors: mean and variance `[..., N, Z] float32`.
    mask: `[..., N] float32`, 1 where the factor counts.

  Returns:
    `types.Posterior` with leading dimensions `[...]`; the prior where `mask` is all zero.
  """
  return from_natural_parameters(to_natural_parameters(factors, mask))
