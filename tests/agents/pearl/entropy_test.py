"""The weight of the entropy bonus: constant, or driven towards a target entropy."""

import gin
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.agents.pearl import entropy
from pearl_tf.testing import test_case


class FixedEntropyWeightTest(test_case.TestCase):
  def test_never_moves(self):
    weight = entropy.FixedEntropyWeight(6)
    weight.update(tf.fill([2, 3], 100.0))
    self.assertAllEqual(weight.value(), 1.0)
    self.assertEmpty(weight.variables)

  def test_gin(self):
    gin.parse_config('FixedEntropyWeight.weight = 0.25')
    self.assertAllEqual(entropy.FixedEntropyWeight(6).value(), 0.25)

  @parameterized.parameters(-0.5, float('nan'))
  def test_refuses_impossible_weights(self, value):
    with self.assertRaisesRegex(ValueError, f'weight.*got {value}'):
      entropy.FixedEntropyWeight(6, weight=value)


class AutomaticEntropyWeightTest(test_case.TestCase):
  @parameterized.parameters((-2.5, 1), (-1.5, -1))
  def test_moves_towards_the_target(self, policy_entropy, direction):
    # The target is minus the action size: below it the bonus has to grow.
    weight = entropy.AutomaticEntropyWeight(2, learning_rate=0.01)
    weight.update(tf.fill([2, 3], -policy_entropy))
    self.assertAllClose(weight.value(), np.exp(direction * 0.01), rtol=1e-4)

  def test_rests_at_the_target(self):
    weight = entropy.AutomaticEntropyWeight(2, target_entropy=0.75)
    weight.update(tf.fill([2, 3], -0.75))
    self.assertAllClose(weight.value(), 1.0)

  def test_value_has_no_gradient(self):
    weight = entropy.AutomaticEntropyWeight(2)
    with tf.GradientTape() as tape:
      value = 3 * weight.value()
    self.assertIsNone(tape.gradient(value, weight.trainable_variables[0]))

  def test_gin(self):
    gin.parse_config("""
      AutomaticEntropyWeight.initial_weight = 0.2
      AutomaticEntropyWeight.target_entropy = 5.0
      AutomaticEntropyWeight.learning_rate = 0.5
    """)
    weight = entropy.AutomaticEntropyWeight(2)
    self.assertAllClose(weight.value(), 0.2)
    weight.update(tf.zeros([2, 3]))
    self.assertAllClose(weight.value(), 0.2 * np.exp(0.5), rtol=1e-4)

  @parameterized.parameters(0.0, -1.0, float('nan'))
  def test_refuses_impossible_weights(self, value):
    with self.assertRaisesRegex(ValueError, f'initial_weight.*got {value}'):
      entropy.AutomaticEntropyWeight(2, initial_weight=value)


if __name__ == '__main__':
  absltest.main()
