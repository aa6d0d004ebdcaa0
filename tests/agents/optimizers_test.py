"""Adam with the reference's constants, slots from the start."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.agents import optimizers
from pearl_tf.testing import test_case


class OptimizersTest(test_case.TestCase):
  def test_first_step_has_the_length_of_the_learning_rate(self):
    variable = tf.Variable([1.0, 1.0, 1.0])
    optimizer = optimizers.adam(0.01, [variable])
    with tf.GradientTape() as tape:
      loss = tf.reduce_sum(variable * [5.0, -0.002, 0.0])
    optimizers.apply(optimizer, tape, loss, [variable])
    self.assertAllClose(variable, [0.99, 1.01, 1.0], atol=2e-6)

  def test_constants(self):
    optimizer = optimizers.adam(3e-4, [tf.Variable(0.0)])
    config = optimizer.get_config()
    for name, value in {'learning_rate': 3e-4, 'beta_1': 0.9, 'beta_2': 0.999}.items():
      self.assertAllClose(config[name], value)
    self.assertEqual(config['epsilon'], 1e-8)
    self.assertFalse(config['amsgrad'])

  def test_epsilon_is_visible_in_small_gradients(self):
    variable = tf.Variable(0.0)
    optimizer = optimizers.adam(1.0, [variable])
    gradient = 1e-7
    optimizer.apply_gradients([(tf.constant(gradient), variable)])
    # The uncorrected form: the step divides by sqrt(v) + epsilon, v = 0.001 g^2.
    expected = -np.sqrt(0.001) / 0.1 * 0.1 * gradient / (np.sqrt(0.001) * gradient + 1e-8)
    self.assertAllClose(variable, expected, rtol=1e-3)

  def test_slots_exist_before_the_first_step(self):
    variables = [tf.Variable(tf.ones([2, 3])), tf.Variable(tf.ones([3]))]
    optimizer = optimizers.adam(3e-4, variables)
    # Two moments per variable and the number of steps.
    self.assertLen(optimizer.variables(), 5)

  @parameterized.parameters(0.0, -1e-3, float('nan'))
  def test_refuses_impossible_rates(self, rate):
    with self.assertRaisesRegex(ValueError, f'got {rate}'):
      optimizers.adam(rate, [])


if __name__ == '__main__':
  absltest.main()
