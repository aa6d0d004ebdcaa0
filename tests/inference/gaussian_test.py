"""The product of Gaussians against independent formulas, and what padding may hold."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from absl.testing import absltest, parameterized
from scipy import integrate, stats

from pearl_tf.data import types
from pearl_tf.inference import gaussian, posterior
from pearl_tf.testing import test_case


def random_factors(*shape: int, seed: int = 0) -> types.GaussianFactors:
  """Returns factors of `[..., N, Z]` whose variances spread over six decades."""
  generator = np.random.default_rng(seed)
  return types.GaussianFactors(
    mean=generator.normal(size=shape).astype(np.float32),
    variance=np.exp(generator.uniform(-9, 5, size=shape)).astype(np.float32),
  )


def multiplied_pairwise(mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the product of factors `[N, Z]` by the Kalman update, one factor after the other."""
  mean, variance = np.float64(mean), np.maximum(np.float64(variance), 1e-7)
  product_mean, product_variance = mean[0], variance[0]
  for next_mean, next_variance in zip(mean[1:], variance[1:], strict=True):
    gain = product_variance / (product_variance + next_variance)
    product_mean = product_mean + gain * (next_mean - product_mean)
    product_variance = (1 - gain) * product_variance
  return product_mean, product_variance


class ProductOfGaussiansTest(test_case.TestCase):
  def test_two_factors_by_hand(self):
    factors = types.GaussianFactors(mean=[[[0.0], [3.0]]], variance=[[[1.0], [2.0]]])
    factors = tf.nest.map_structure(tf.constant, types.GaussianFactors(*factors))
    belief = gaussian.product_of_gaussians(factors, tf.ones([1, 2]))
    self.assertAllClose(belief.variance, [[2 / 3]])
    self.assertAllClose(belief.mean, [[1.0]])

  @parameterized.parameters(1, 2, 64, 1024)
  def test_equals_factor_by_factor_update(self, num_factors):
    factors = random_factors(3, num_factors, 5)
    belief = gaussian.product_of_gaussians(factors, tf.ones([3, num_factors]))
    for task in range(3):
      mean, variance = multiplied_pairwise(factors.mean[task], factors.variance[task])
      self.assertAllClose(belief.mean[task], mean, rtol=1e-4, atol=1e-5)
      self.assertAllClose(belief.variance[task], variance, rtol=1e-4, atol=0)

  def test_equals_the_normalised_product_of_densities(self):
    means, variances = [0.3, -1.0, 0.8], [0.5, 1.5, 0.9]
    belief = gaussian.product_of_gaussians(
      types.GaussianFactors(
        tf.constant(means)[:, tf.newaxis], tf.constant(variances)[:, tf.newaxis]
      ),
      tf.ones([3]),
    )

    def density(x):
      return np.prod([stats.norm.pdf(x, m, v**0.5) for m, v in zip(means, variances, strict=True)])

    mass = integrate.quad(density, -9, 9)[0]
    mean = integrate.quad(lambda x: x * density(x), -9, 9)[0] / mass
    second = integrate.quad(lambda x: x * x * density(x), -9, 9)[0] / mass
    self.assertAllClose(belief.mean, [mean], atol=1e-6)
    self.assertAllClose(belief.variance, [second - mean**2], atol=1e-6)

  def test_equals_conjugate_update_of_tfp(self):
    # Observations of known noise on a normal prior: the prior is one more factor of the product.
    observations = np.float32([0.5, 1.5, -0.2, 0.9])
    conjugate = tfp.distributions.normal_conjugates_known_scale_posterior(
      prior=tfp.distributions.Normal(loc=0.25, scale=2.0),
      scale=0.7,
      s=observations.sum(),
      n=len(observations),
    )
    belief = gaussian.product_of_gaussians(
      types.GaussianFactors(
        mean=np.float32([[0.25], *observations[:, np.newaxis]]),
        variance=np.float32([[4.0]] + [[0.49]] * 4),
      ),
      tf.ones([5]),
    )
    self.assertAllClose(belief.mean, [conjugate.mean()])
    self.assertAllClose(belief.variance, [conjugate.variance()])

  def test_order_does_not_matter(self):
    factors = random_factors(2, 50, 3)
    order = np.random.default_rng(1).permutation(50)
    shuffled = types.GaussianFactors(factors.mean[:, order], factors.variance[:, order])
    mask = tf.ones([2, 50])
    first = gaussian.product_of_gaussians(factors, mask)
    second = gaussian.product_of_gaussians(shuffled, mask)
    self.assertAllClose(first.mean, second.mean, rtol=1e-5, atol=1e-6)
    self.assertAllClose(first.variance, second.variance, rtol=1e-5, atol=0)

  def test_variance_is_floored(self):
    for tiny in (0.0, 1e-12, 1e-7):
      factors = types.GaussianFactors(
        mean=tf.constant([[2.0], [4.0]]), variance=tf.constant([[tiny], [tiny]])
      )
      belief = gaussian.product_of_gaussians(factors, tf.ones([2]))
      self.assertAllClose(belief.variance, [0.5e-7], rtol=1e-6, atol=0)
      self.assertAllClose(belief.mean, [3.0])

  def test_floor_stays_exact_for_a_large_context(self):
    factors = types.GaussianFactors(tf.ones([1024, 1]), tf.zeros([1024, 1]))
    belief = gaussian.product_of_gaussians(factors, tf.ones([1024]))
    self.assertAllClose(belief.variance, [1e-7 / 1024], rtol=1e-5, atol=0)
    self.assertAllClose(belief.mean, [1.0], rtol=1e-5)

  def test_no_evidence_is_exactly_the_prior(self):
    factors = random_factors(2, 4, 3)
    belief = gaussian.product_of_gaussians(factors, tf.zeros([2, 4]))
    self.assertAllEqual(belief.mean, np.zeros([2, 3]))
    self.assertAllEqual(belief.variance, np.ones([2, 3]))
    nothing = types.GaussianFactors(tf.zeros([2, 0, 3]), tf.zeros([2, 0, 3]))
    belief = gaussian.product_of_gaussians(nothing, tf.zeros([2, 0]))
    self.assertAllEqual(belief.mean, np.zeros([2, 3]))
    self.assertAllEqual(belief.variance, np.ones([2, 3]))

  def test_prior_is_no_factor_of_a_context_that_exists(self):
    factors = types.GaussianFactors(tf.constant([[2.0]]), tf.constant([[3.0]]))
    belief = gaussian.product_of_gaussians(factors, tf.ones([1]))
    self.assertAllClose(belief.mean, [2.0])
    self.assertAllClose(belief.variance, [3.0])

  @parameterized.parameters(np.nan, np.inf, -np.inf, 0.0, 1e30)
  def test_padding_may_hold_anything(self, padding):
    factors = random_factors(2, 6, 3)
    mask = np.float32([[1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]])
    expected = gaussian.product_of_gaussians(
      types.GaussianFactors(factors.mean[:1, [0, 1, 3]], factors.variance[:1, [0, 1, 3]]),
      tf.ones([1, 3]),
    )
    for part in factors:
      part[mask == 0] = padding
    belief = gaussian.product_of_gaussians(factors, mask)
    self.assertAllClose(belief.mean[:1], expected.mean, rtol=1e-6)
    self.assertAllClose(belief.variance[:1], expected.variance, rtol=1e-6, atol=0)
    self.assertAllEqual(belief.mean[1], np.zeros([3]))
    self.assertAllEqual(belief.variance[1], np.ones([3]))

  @parameterized.parameters(np.nan, np.inf, 0.0)
  def test_gradients_never_see_padding(self, padding):
    factors = random_factors(2, 4, 3)
    mask = np.float32([[1, 1, 0, 0], [0, 0, 0, 0]])
    for part in factors:
      part[mask == 0] = padding
    mean, variance = tf.Variable(factors.mean), tf.Variable(factors.variance)
    with tf.GradientTape() as tape:
      belief = gaussian.product_of_gaussians(types.GaussianFactors(mean, variance), mask)
      total = tf.reduce_sum(belief.mean) + tf.reduce_sum(belief.variance)
    for gradient in tape.gradient(total, [mean, variance]):
      self.assertAllEqual(gradient[mask == 0], np.zeros([6, 3]))
      self.assertAllGreater(tf.abs(gradient[0, :2]), 0.0)

  def test_gradients_equal_finite_differences(self):
    factors = types.GaussianFactors(*(tf.constant(part) for part in random_factors(1, 3, 2)))
    factors = factors._replace(variance=factors.variance**0.2)
    mask = tf.constant([[1.0, 0.0, 1.0]])

    def total(mean, variance):
      belief = gaussian.product_of_gaussians(types.GaussianFactors(mean, variance), mask)
      return belief.mean * [1.0, 2.0] + belief.variance * [3.0, 4.0]

    theoretical, numerical = tf.test.compute_gradient(total, list(factors), delta=1e-2)
    for ours, difference in zip(theoretical, numerical, strict=True):
      self.assertAllClose(ours, difference, atol=2e-2, rtol=1e-2)

  def test_unknown_shapes(self):
    @tf.function(
      input_signature=[
        types.GaussianFactors(*[tf.TensorSpec([None, None, 3], tf.float32)] * 2),
        tf.TensorSpec([None, None], tf.float32),
      ]
    )
    def product(factors, mask):
      return gaussian.product_of_gaussians(factors, mask)

    for num_tasks, num_factors in [(1, 1), (4, 7), (2, 0)]:
      factors = random_factors(num_tasks, num_factors, 3)
      mask = np.ones([num_tasks, num_factors], np.float32)
      expected = gaussian.product_of_gaussians(factors, mask)
      belief = product(factors, mask)
      self.assertAllClose(belief.mean, expected.mean)
      self.assertAllClose(belief.variance, expected.variance)

  def test_any_leading_dimensions(self):
    factors = random_factors(2, 3, 4, 5)
    belief = gaussian.product_of_gaussians(factors, tf.ones([2, 3, 4]))
    one = gaussian.product_of_gaussians(
      types.GaussianFactors(factors.mean[1, 2], factors.variance[1, 2]), tf.ones([4])
    )
    self.assertEqual(belief.mean.shape, [2, 3, 5])
    self.assertAllClose(belief.mean[1, 2], one.mean)
    self.assertAllClose(belief.variance[1, 2], one.variance)

  @parameterized.parameters((64, 8.84), (100, 9.95), (256, 12.29), (1024, 15.75))
  def test_kl_of_an_untrained_encoder(self, num_context, nats):
    # Its factors are N(0, ln 2): softplus(0) is the variance.
    factors = types.GaussianFactors(
      tf.zeros([1, num_context, 5]), tf.math.softplus(tf.zeros([1, num_context, 5]))
    )
    belief = gaussian.product_of_gaussians(factors, tf.ones([1, num_context]))
    self.assertAllClose(posterior.kl_to_prior(belief), [nats], atol=5e-3)


class NaturalParametersTest(test_case.TestCase):
  def test_combined_beliefs_are_the_belief_of_the_joined_context(self):
    factors = random_factors(2, 9, 3)
    mask = np.ones([2, 9], np.float32)
    mask[0, [1, 5]] = 0.0

    def part(start, stop):
      return gaussian.to_natural_parameters(
        types.GaussianFactors(factors.mean[:, start:stop], factors.variance[:, start:stop]),
        mask[:, start:stop],
      )

    combined = gaussian.combine(gaussian.combine(part(0, 2), part(2, 6)), part(6, 9))
    whole = part(0, 9)
    for ours, theirs in zip(combined, whole, strict=True):
      self.assertAllClose(ours, theirs, rtol=1e-5)
    self.assertAllEqual(combined.count, [7, 9])
    belief = gaussian.from_natural_parameters(combined)
    expected = gaussian.product_of_gaussians(factors, mask)
    self.assertAllClose(belief.mean, expected.mean, rtol=1e-5)
    self.assertAllClose(belief.variance, expected.variance, rtol=1e-5, atol=0)

  def test_nothing_is_neutral(self):
    factors = random_factors(2, 4, 3)
    evidence = gaussian.to_natural_parameters(factors, tf.ones([2, 4]))
    nothing = gaussian.to_natural_parameters(factors, tf.zeros([2, 4]))
    for ours, theirs in zip(gaussian.combine(nothing, evidence), evidence, strict=True):
      self.assertAllEqual(ours, theirs)
    still_nothing = gaussian.from_natural_parameters(gaussian.combine(nothing, nothing))
    self.assertAllEqual(still_nothing.mean, np.zeros([2, 3]))
    self.assertAllEqual(still_nothing.variance, np.ones([2, 3]))


if __name__ == '__main__':
  absltest.main()
