"""Value networks: sizes of the reference, inputs and outputs."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest

from pearl_tf.data import specs
from pearl_tf.networks import critic
from pearl_tf.testing import test_case

CHEETAH = specs.DomainSpec(observation_size=20, action_size=6)
LATENT = tf.TensorSpec([5], tf.float32)


def critic_of(domain: specs.DomainSpec, **arguments) -> critic.LatentCritic:
  network = critic.LatentCritic((domain.observation, domain.action, LATENT), **arguments)
  network.create_variables()
  return network


def value_of(domain: specs.DomainSpec, **arguments) -> critic.LatentValue:
  network = critic.LatentValue((domain.observation, LATENT), **arguments)
  network.create_variables()
  return network


def random_inputs(*leading: int) -> list[np.ndarray]:
  """Returns observation, action and latent."""
  generator = np.random.default_rng(0)
  return [generator.normal(size=[*leading, size]).astype(np.float32) for size in (20, 6, 5)]


def count(network) -> int:
  return sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)


class CriticTest(test_case.TestCase):
  def test_parameter_counts_of_half_cheetah(self):
    self.assertEqual(count(critic_of(CHEETAH)), 190_501)
    self.assertEqual(count(value_of(CHEETAH)), 188_701)

  def test_starts_near_zero(self):
    inputs = random_inputs(2, 4)
    for network, arguments in [
      (critic_of(CHEETAH), tuple(inputs)),
      (value_of(CHEETAH), (inputs[0], inputs[2])),
    ]:
      outputs, state = network(arguments)
      self.assertEqual((outputs.shape, state), ([2, 4], ()))
      self.assertAllLess(tf.abs(outputs), 0.2)
      *_, kernel, bias = network.get_weights()
      for array in (kernel, bias):
        self.assertAllLessEqual(np.abs(array), 3e-3)
        self.assertGreater(np.abs(array).max(), 0.0)

  def test_every_input_matters(self):
    inputs = [tf.Variable(array) for array in random_inputs(3)]
    with tf.GradientTape(persistent=True) as tape:
      quality, _ = critic_of(CHEETAH)(tuple(inputs))
      value, _ = value_of(CHEETAH)((inputs[0], inputs[2]))
    for gradient in tape.gradient(quality, inputs):
      self.assertAllGreater(tf.reduce_max(tf.abs(gradient), axis=-1), 0.0)
    by_observation, by_action, by_latent = tape.gradient(value, inputs)
    self.assertAllGreater(tf.reduce_max(tf.abs(by_observation), axis=-1), 0.0)
    self.assertIsNone(by_action)
    self.assertAllGreater(tf.reduce_max(tf.abs(by_latent), axis=-1), 0.0)

  def test_rank_does_not_matter(self):
    network = critic_of(CHEETAH, hidden_units=(4,))
    inputs = random_inputs(2, 3)
    outputs, _ = network(tuple(inputs))
    flat, _ = network(tuple(array.reshape(6, -1) for array in inputs))
    self.assertAllClose(tf.reshape(outputs, [6]), flat)

  def test_different_seeds_different_weights(self):
    first, same, other = (critic_of(CHEETAH, hidden_units=(4,), seed=seed) for seed in (1, 1, 2))
    for ours, theirs, different in zip(
      first.get_weights()[::2], same.get_weights()[::2], other.get_weights()[::2], strict=True
    ):
      self.assertAllEqual(ours, theirs)
      self.assertNotAllClose(ours, different)


if __name__ == '__main__':
  absltest.main()
