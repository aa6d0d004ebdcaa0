import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from absl.testing import absltest

from pearl_tf.networks import flat_gaussian
from pearl_tf.testing import test_case


class FlatGaussianTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.random = np.random.default_rng(0)
    self.policy = flat_gaussian.FlatGaussian(3, 2, hidden_units=(5, 4), action_scale=0.1)

  def gaussian(self):
    return flat_gaussian.Gaussian(*(tf.constant(self.random.normal(size=(4, 2))) for _ in range(2)))

  def test_is_the_network_of_its_parameters(self):
    parameters = self.random.normal(size=[2, self.policy.num_parameters])
    self.assertLen(parameters[0], 3 * 5 + 5 + 5 * 4 + 4 + 4 * 2 + 2 + 2)
    observation = self.random.normal(size=[2, 7, 3])
    found = self.policy(tf.constant(parameters), tf.constant(observation))
    for task in range(2):
      parts = np.split(parameters[task], np.cumsum([15, 5, 20, 4, 8, 2]))
      hidden = np.tanh(observation[task] @ parts[0].reshape(3, 5) + parts[1])
      hidden = np.tanh(hidden @ parts[2].reshape(5, 4) + parts[3])
      mean = hidden @ parts[4].reshape(4, 2) + parts[5]
      self.assertAllClose(found.mean[task], 0.1 * mean)
      self.assertAllClose(found.log_std[task], np.tile(parts[6] + np.log(0.1), [7, 1]))
      alone = self.policy(tf.constant(parameters[task]), tf.constant(observation[task]))
      self.assertAllClose(alone.mean, found.mean[task])
    for part, same in zip(found, self.policy.on_arrays(parameters, observation), strict=True):
      self.assertAllClose(part, same)

  def test_begins_by_glorot(self):
    parameters = self.policy.initial_parameters(seed=3)
    bound = np.sqrt(6 / 8)
    self.assertBetween(np.abs(parameters[:15]).max(), 0.7 * bound, bound)
    self.assertAllEqual(parameters[15:20], np.zeros(5))
    self.assertAllEqual(parameters[-4:], np.zeros(4))
    self.assertAllEqual(parameters, self.policy.initial_parameters(seed=3))

  def test_density_and_divergence_are_those_of_tfp(self):
    old, new = self.gaussian(), self.gaussian()
    action = tf.constant(self.random.normal(size=(4, 2)))
    mvn = tfp.distributions.MultivariateNormalDiag
    first, second = (mvn(one.mean, tf.exp(one.log_std)) for one in (old, new))
    self.assertAllClose(flat_gaussian.log_prob(old, action), first.log_prob(action))
    self.assertAllClose(flat_gaussian.kl_divergence(old, new), first.kl_divergence(second))

  def test_impossible_sizes_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'hidden_units.*got \\(0,\\)'):
      flat_gaussian.FlatGaussian(3, 2, hidden_units=(0,))


if __name__ == '__main__':
  absltest.main()
