"""The policy network and its squashed Gaussian against SciPy and the reference's formula."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from scipy import integrate, stats

from pearl_tf.data import specs
from pearl_tf.networks import actor
from pearl_tf.testing import test_case

CHEETAH = specs.DomainSpec(observation_size=20, action_size=6)
LATENT = tf.TensorSpec([5], tf.float32)


def actor_of(domain: specs.DomainSpec, **arguments) -> actor.LatentActor:
  network = actor.LatentActor(
    (domain.observation, LATENT), action_size=domain.action_size, **arguments
  )
  network.create_variables()
  return network


def random_inputs(*leading: int) -> tuple[np.ndarray, np.ndarray]:
  generator = np.random.default_rng(0)
  return tuple(generator.normal(size=[*leading, size]).astype(np.float32) for size in (20, 5))


def random_parameters(*shape: int) -> actor.ActionParameters:
  generator = np.random.default_rng(0)
  return actor.ActionParameters(
    mean=tf.constant(generator.normal(size=shape), tf.float32),
    log_std=tf.constant(generator.uniform(-2, 0, size=shape), tf.float32),
  )


class ActorTest(test_case.TestCase):
  def test_parameter_count_of_half_cheetah(self):
    network = actor_of(CHEETAH)
    self.assertEqual(sum(int(np.prod(v.shape)) for v in network.trainable_variables), 192_012)

  def test_both_heads_start_near_zero(self):
    network = actor_of(CHEETAH)
    *_, kernel, bias = network.get_weights()
    for array in (kernel, bias):
      self.assertAllLessEqual(np.abs(array), 1e-3)
      self.assertGreater(np.abs(array[..., :6]).max(), 5e-4)
      self.assertGreater(np.abs(array[..., 6:]).max(), 5e-4)
    parameters, state = network(random_inputs(2, 3))
    self.assertEqual(state, ())
    for part in parameters:
      self.assertEqual(part.shape, [2, 3, 6])
      self.assertAllLess(tf.abs(part), 0.1)

  def test_log_std_is_clipped_and_the_mean_is_not(self):
    network = actor_of(CHEETAH, hidden_units=(4,))
    *hidden, kernel, _ = network.get_weights()
    heads = np.float32([-50, 50, 0, 0, 0, 0] + [-50, 50, -20, 2, 1.5, -3])
    network.set_weights([*hidden, np.zeros_like(kernel), heads])
    parameters, _ = network(random_inputs(1))
    self.assertAllClose(parameters.mean, [[-50, 50, 0, 0, 0, 0]])
    self.assertAllClose(parameters.log_std, [[-20, 2, -20, 2, 1.5, -3]])

  def test_no_gradient_where_clipped(self):
    network = actor_of(CHEETAH, hidden_units=(4,))
    *hidden, kernel, _ = network.get_weights()
    heads = np.float32([0] * 6 + [-50, 50, -19, 1.9, 1.5, -3])
    network.set_weights([*hidden, np.zeros_like(kernel), heads])
    with tf.GradientTape() as tape:
      parameters, _ = network(random_inputs(1))
      total = tf.reduce_sum(parameters.log_std)
    gradient = tape.gradient(total, network.trainable_variables[-1])
    self.assertAllClose(gradient[6:], [0, 0, 1, 1, 1, 1])

  def test_mean_action(self):
    parameters = random_parameters(2, 3)
    self.assertAllClose(actor.mean_action(parameters), np.tanh(parameters.mean))


class DistributionTest(test_case.TestCase):
  def test_shapes(self):
    distribution = actor.distribution(random_parameters(2, 3, 4))
    self.assertEqual((distribution.batch_shape, distribution.event_shape), ([2, 3], [4]))

  def test_log_prob_equals_scipy_by_change_of_variables(self):
    parameters = random_parameters(50, 3)
    action, log_prob = actor.distribution(parameters).experimental_sample_and_log_prob(seed=[1, 2])
    draw = np.arctanh(np.float64(action))
    mean, std = np.float64(parameters.mean), np.exp(np.float64(parameters.log_std))
    expected = stats.norm.logpdf(draw, mean, std) - np.log(1 - np.tanh(draw) ** 2)
    self.assertAllClose(log_prob, expected.sum(axis=-1), atol=2e-3)
    self.assertAllClose(actor.distribution(parameters).log_prob(action), log_prob, atol=2e-3)

  def test_log_prob_equals_the_reference_where_that_is_well_conditioned(self):
    parameters = random_parameters(200, 3)
    action, log_prob = actor.distribution(parameters).experimental_sample_and_log_prob(seed=[1, 2])
    action = np.float64(action)
    draw, std = np.arctanh(action), np.exp(np.float64(parameters.log_std))
    gaussian = -(((draw - np.float64(parameters.mean)) / std) ** 2) / 2 - np.log(
      std * np.sqrt(2 * np.pi)
    )
    reference = (gaussian - np.log(1 - action**2 + 1e-6)).sum(axis=-1)
    well_conditioned = np.abs(action).max(axis=-1) < 0.99
    self.assertGreater(well_conditioned.sum(), 100)
    self.assertAllClose(log_prob[well_conditioned], reference[well_conditioned], atol=2e-3)

  def test_density_integrates_to_one(self):
    grid = np.linspace(-0.9999, 0.9999, 4001, dtype=np.float32)
    parameters = actor.ActionParameters(tf.fill([4001, 1], 0.4), tf.fill([4001, 1], -0.5))
    density = actor.distribution(parameters).prob(grid[:, np.newaxis])
    self.assertAllClose(integrate.trapezoid(density, grid), 1.0, atol=1e-3)

  @parameterized.parameters(-60.0, -15.0, 15.0, 60.0, 1e4)
  def test_saturated_actions_have_finite_density_and_gradient(self, mean):
    parameters = actor.ActionParameters(
      tf.Variable(tf.fill([4, 2], mean)), tf.Variable(tf.fill([4, 2], 1.5))
    )
    with tf.GradientTape() as tape:
      action, log_prob = actor.distribution(parameters).experimental_sample_and_log_prob(
        seed=[1, 2]
      )
    self.assertAllInRange(action, -1.0, 1.0)
    self.assertAllEqual(np.isfinite(log_prob), np.ones([4], bool))
    # ln(1 - tanh(u)^2) tends to 2 ln 2 - 2 |u|: an epsilon would have cut it off at -13.8.
    by_mean, by_log_std = tape.gradient(log_prob, list(parameters))
    self.assertAllClose(by_mean, np.full([4, 2], 2 * np.sign(mean)), atol=1e-3)
    self.assertAllEqual(np.isfinite(by_log_std), np.ones([4, 2], bool))

  @parameterized.parameters(-20.0, 2.0)
  def test_clipped_widths_are_usable(self, log_std):
    parameters = actor.ActionParameters(tf.fill([4, 2], 0.3), tf.fill([4, 2], log_std))
    action, log_prob = actor.distribution(parameters).experimental_sample_and_log_prob(seed=[1, 2])
    self.assertAllEqual(np.isfinite(action), np.ones([4, 2], bool))
    self.assertAllEqual(np.isfinite(log_prob), np.ones([4], bool))

  def test_sample_is_reparameterised(self):
    mean, log_std = (tf.Variable(part) for part in random_parameters(6, 2))
    with tf.GradientTape() as tape:
      action = actor.distribution(actor.ActionParameters(mean, log_std)).sample(seed=[1, 2])
    by_mean, by_log_std = tape.gradient(action, [mean, log_std])
    slope = 1 - np.float64(action) ** 2
    self.assertAllClose(by_mean, slope, atol=1e-4)
    draw = np.arctanh(np.float64(action))
    self.assertAllClose(by_log_std, slope * (draw - mean), atol=1e-3)

  def test_moments_before_squashing(self):
    parameters = actor.ActionParameters(tf.fill([20_000, 1], 0.5), tf.fill([20_000, 1], -1.0))
    draws = np.arctanh(np.float64(actor.distribution(parameters).sample(seed=[1, 2])))
    self.assertAllClose(draws.mean(), 0.5, atol=0.01)
    self.assertAllClose(draws.std(), np.exp(-1.0), rtol=0.02)


if __name__ == '__main__':
  absltest.main()
