"""Beliefs: priors, samples and the divergence that the bottleneck penalises."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from absl.testing import absltest

from pearl_tf.data import types
from pearl_tf.inference import posterior
from pearl_tf.testing import test_case

tfd = tfp.distributions


def random_posterior(num_tasks: int = 4, latent_size: int = 3) -> types.Posterior:
  generator = np.random.default_rng(0)
  return types.Posterior(
    mean=tf.constant(generator.normal(size=[num_tasks, latent_size]), tf.float32),
    variance=tf.constant(np.exp(generator.normal(size=[num_tasks, latent_size])), tf.float32),
  )


class SampleTest(test_case.TestCase):
  def test_moments(self):
    belief = types.Posterior(tf.constant([1.0, -2.0]), tf.constant([0.25, 9.0]))
    belief = types.Posterior(*(tf.tile(part[tf.newaxis], [20_000, 1]) for part in belief))
    draws = posterior.sample(belief, seed=[1, 2]).numpy()
    self.assertAllClose(draws.mean(axis=0), [1.0, -2.0], atol=0.08)
    # The second parameter is a variance: standard deviations are 0.5 and 3.
    self.assertAllClose(draws.std(axis=0), [0.5, 3.0], rtol=0.03)
    self.assertLess(abs(np.corrcoef(draws.T)[0, 1]), 0.03)

  def test_one_draw_per_belief(self):
    belief = types.Posterior(tf.zeros([5, 3]), tf.ones([5, 3]))
    draws = posterior.sample(belief, seed=[0, 0]).numpy()
    self.assertEqual(draws.shape, (5, 3))
    self.assertLen(np.unique(draws), 15)

  def test_seed(self):
    belief = random_posterior()
    first = posterior.sample(belief, seed=[1, 2])
    self.assertAllEqual(first, posterior.sample(belief, seed=[1, 2]))
    self.assertNotAllClose(first, posterior.sample(belief, seed=[1, 3]))
    self.assertNotAllClose(posterior.sample(belief, seed=None), posterior.sample(belief, seed=None))

  def test_is_reparameterised(self):
    belief = types.Posterior(*(tf.Variable(part) for part in random_posterior()))
    with tf.GradientTape() as tape:
      draws = posterior.sample(belief, seed=[1, 2])
      total = tf.reduce_sum(draws * draws)
    mean_gradient, variance_gradient = tape.gradient(total, list(belief))
    noise = (draws - belief.mean) / tf.sqrt(belief.variance)
    self.assertAllClose(mean_gradient, 2 * draws)
    self.assertAllClose(variance_gradient, 2 * draws * noise / (2 * tf.sqrt(belief.variance)))

  def test_point_belief_yields_its_mean_and_a_finite_gradient(self):
    mean = tf.Variable([[0.5, -0.5]])
    with tf.GradientTape() as tape:
      drawn = posterior.sample(types.Posterior(mean, tf.zeros_like(mean)), seed=[1, 2])
    self.assertAllEqual(drawn, mean)
    self.assertAllEqual(tape.gradient(drawn, mean), [[1.0, 1.0]])


class DivergenceTest(test_case.TestCase):
  def test_closed_form(self):
    belief = random_posterior()
    mean, variance = (np.float64(part) for part in belief)
    expected = 0.5 * np.sum(variance + mean**2 - 1 - np.log(variance), axis=-1)
    self.assertAllClose(posterior.kl_to_prior(belief), expected, rtol=1e-5)

  def test_monte_carlo(self):
    belief = random_posterior(num_tasks=2)
    ours = tfd.MultivariateNormalDiag(belief.mean, tf.sqrt(belief.variance))
    prior = tfd.MultivariateNormalDiag(tf.zeros([3]), tf.ones([3]))
    draws = ours.sample(50_000, seed=[3, 4])
    estimate = tf.reduce_mean(ours.log_prob(draws) - prior.log_prob(draws), axis=0)
    self.assertAllClose(posterior.kl_to_prior(belief), estimate, atol=0.05)

  def test_prior_costs_nothing_and_anything_else_does(self):
    self.assertAllClose(
      posterior.kl_to_prior(types.Posterior(tf.zeros([2, 5]), tf.ones([2, 5]))), [0.0, 0.0]
    )
    for mean, variance in [(0.1, 1.0), (0.0, 0.9), (0.0, 1.1)]:
      belief = types.Posterior(tf.fill([1, 5], mean), tf.fill([1, 5], variance))
      self.assertAllGreater(posterior.kl_to_prior(belief), 1e-3)

  def test_gradient(self):
    belief = types.Posterior(*(tf.Variable(part) for part in random_posterior()))
    with tf.GradientTape() as tape:
      total = tf.reduce_sum(posterior.kl_to_prior(belief))
    mean_gradient, variance_gradient = tape.gradient(total, list(belief))
    self.assertAllClose(mean_gradient, belief.mean)
    self.assertAllClose(variance_gradient, 0.5 * (1 - 1 / belief.variance), rtol=1e-5, atol=1e-6)


if __name__ == '__main__':
  absltest.main()
