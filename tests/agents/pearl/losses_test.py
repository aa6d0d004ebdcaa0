"""Every loss against numbers computed by hand and against NumPy, and where gradients stop."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.agents.pearl import losses
from pearl_tf.data import types
from pearl_tf.networks import actor
from pearl_tf.testing import test_case


def random(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class TdTargetTest(test_case.TestCase):
  def target(self, reward, discount, next_value):
    return losses.td_target(reward, discount, next_value, reward_scale=5.0, gamma=0.9)

  def test_by_hand(self):
    target = self.target(
      tf.constant([[1.0, -1.0]]), tf.constant([[1.0, 0.0]]), tf.constant([[2.0, 100.0]])
    )
    self.assertAllClose(target, [[5.0 + 0.9 * 2.0, -5.0]])

  def test_termination_hides_the_next_value_completely(self):
    reward, discount = random(3, 4), np.zeros([3, 4], np.float32)
    self.assertAllClose(self.target(reward, discount, random(3, 4, seed=1)), 5 * reward)

  def test_is_a_constant(self):
    parts = [tf.Variable(random(3, 4, seed=i)) for i in range(3)]
    with tf.GradientTape() as tape:
      total = tf.reduce_sum(self.target(*parts))
    self.assertEqual(tape.gradient(total, parts), [None] * 3)

  def test_shapes(self):
    for shapes in [
      ((3, 4), (3, 4), (3,)),
      ((3, 4), (3, 4, 1), (3, 4)),
      ((4,), (4,), (4,)),
      ((3, 4), (3, 4), (1, 4)),
      ((3, 1), (3, 4), (3, 4)),
    ]:
      with self.assertRaises(ValueError):
        self.target(*(tf.zeros(shape) for shape in shapes))


class CriticLossTest(test_case.TestCase):
  def test_by_hand(self):
    first, second = tf.constant([[1.0, 2.0]]), tf.constant([[0.0, 4.0]])
    target = tf.constant([[1.0, 1.0]])
    # (0 + 1) / 2 + (1 + 9) / 2: a mean over transitions, a sum over critics, no factor 1/2.
    self.assertAllClose(losses.critic_loss(first, second, target), 5.5)

  def test_numpy(self):
    q1, q2, target = (random(3, 4, seed=i) for i in range(3))
    expected = np.mean((q1 - target) ** 2) + np.mean((q2 - target) ** 2)
    self.assertAllClose(losses.critic_loss(q1, q2, target), expected)

  def test_trailing_dimension_does_not_broadcast(self):
    with self.assertRaises(ValueError):
      losses.critic_loss(tf.zeros([3, 4]), tf.zeros([3, 4]), tf.zeros([3, 1]))
    with self.assertRaises(ValueError):
      losses.critic_loss(tf.zeros([3, 4]), tf.zeros([3, 4, 1]), tf.zeros([3, 4]))

  def test_shapes_known_only_when_running(self):
    @tf.function(input_signature=[tf.TensorSpec([None, None])] * 3)
    def loss(q1, q2, target):
      return losses.critic_loss(q1, q2, target)

    with self.assertRaises(tf.errors.InvalidArgumentError):
      loss(tf.zeros([3, 4]), tf.zeros([3, 4]), tf.zeros([3, 1]))
    self.assertAllClose(loss(tf.zeros([2, 2]), tf.zeros([2, 2]), tf.ones([2, 2])), 2.0)


class KlLossTest(test_case.TestCase):
  def test_by_hand(self):
    # Dimension by dimension 0.5 (v + m^2 - 1 - ln v); two tasks are summed.
    belief = types.Posterior(
      tf.constant([[1.0, 0.0], [0.0, 2.0]]), tf.constant([[1.0, 1.0], [np.e, 1.0]])
    )
    expected = 0.5 * (1 + (np.e - 2) + 4)
    self.assertAllClose(losses.kl_loss(belief, 1.0), expected)
    self.assertAllClose(losses.kl_loss(belief, 0.1), 0.1 * expected)

  def test_grows_with_the_number_of_tasks(self):
    belief = types.Posterior(random(4, 5), np.exp(random(4, 5, seed=1)))
    twice = types.Posterior(*(np.concatenate([part, part]) for part in belief))
    self.assertAllClose(losses.kl_loss(twice, 0.1), 2 * losses.kl_loss(belief, 0.1))

  def test_shapes(self):
    with self.assertRaises(ValueError):
      losses.kl_loss(types.Posterior(tf.zeros([3, 5]), tf.ones([3, 4])), 1.0)
    with self.assertRaises(ValueError):
      losses.kl_loss(types.Posterior(tf.zeros([2, 3, 5]), tf.ones([2, 3, 5])), 1.0)


class ValueLossTest(test_case.TestCase):
  def test_soft_value_by_hand(self):
    value = losses.soft_value(tf.constant([[1.0]]), tf.constant([[-3.0]]), tf.constant(0.5))
    self.assertAllClose(value, [[2.5]])

  def test_value_loss_by_hand(self):
    loss = losses.value_loss(tf.constant([[1.0, 3.0]]), tf.constant([[0.0, 1.0]]))
    self.assertAllClose(loss, (1 + 4) / 2)

  def test_target_is_a_constant(self):
    value, target = tf.Variable(random(3, 4)), tf.Variable(random(3, 4, seed=1))
    with tf.GradientTape() as tape:
      loss = losses.value_loss(value, target)
    by_value, by_target = tape.gradient(loss, [value, target])
    self.assertAllClose(by_value, 2 * (value - target) / 12)
    self.assertIsNone(by_target)

  def test_shapes(self):
    with self.assertRaises(ValueError):
      losses.value_loss(tf.zeros([3, 4]), tf.zeros([3]))
    with self.assertRaises(ValueError):
      losses.soft_value(tf.zeros([3, 4]), tf.zeros([3, 4, 2]), tf.constant(1.0))


class ActorLossTest(test_case.TestCase):
  def test_by_hand(self):
    loss = losses.actor_loss(
      tf.constant([[1.0, 2.0]]), tf.constant([[-1.0, 4.0]]), tf.constant(0.5)
    )
    self.assertAllClose(loss, ((-0.5 - 1) + (2 - 2)) / 2)

  def test_gradients(self):
    min_q, log_prob = tf.Variable(random(3, 4)), tf.Variable(random(3, 4, seed=1))
    with tf.GradientTape() as tape:
      loss = losses.actor_loss(min_q, log_prob, tf.constant(0.5))
    by_value, by_log_prob = tape.gradient(loss, [min_q, log_prob])
    self.assertAllClose(by_value, np.full([3, 4], -1 / 12))
    self.assertAllClose(by_log_prob, np.full([3, 4], 0.5 / 12))

  def test_regularization_by_hand(self):
    parameters = actor.ActionParameters(tf.constant([[[1.0, 3.0]]]), tf.constant([[[-2.0, 0.0]]]))
    loss = losses.actor_regularization(parameters, mean_weight=0.1, log_std_weight=0.01)
    self.assertAllClose(loss, 0.1 * 5 + 0.01 * 2)

  def test_regularization_has_a_gradient(self):
    mean, log_std = tf.Variable(random(3, 4, 2)), tf.Variable(random(3, 4, 2, seed=1))
    with tf.GradientTape() as tape:
      loss = losses.actor_regularization(
        actor.ActionParameters(mean, log_std), mean_weight=0.1, log_std_weight=0.01
      )
    by_mean, by_log_std = tape.gradient(loss, [mean, log_std])
    self.assertAllClose(by_mean, 0.2 * mean / 24)
    self.assertAllClose(by_log_std, 0.02 * log_std / 24)

  def test_shapes(self):
    with self.assertRaises(ValueError):
      losses.actor_loss(tf.zeros([3, 4]), tf.zeros([3]), tf.constant(1.0))
    with self.assertRaises(ValueError):
      losses.actor_regularization(
        actor.ActionParameters(tf.zeros([3, 4, 2]), tf.zeros([3, 4, 1])),
        mean_weight=1.0,
        log_std_weight=1.0,
      )


class EntropyWeightLossTest(test_case.TestCase):
  @parameterized.parameters((-1.0, 1), (-6.0, -1))
  def test_weight_rises_when_entropy_is_too_low(self, entropy, sign_of_gradient):
    log_weight = tf.Variable(0.0)
    with tf.GradientTape() as tape:
      loss = losses.entropy_weight_loss(log_weight, tf.fill([2, 3], -entropy), -2.0)
    # Descent moves against the gradient.
    gradient = tape.gradient(loss, log_weight)
    self.assertAllClose(gradient, -(-entropy - 2.0))
    self.assertEqual(np.sign(gradient), sign_of_gradient)

  def test_density_is_a_constant(self):
    log_prob = tf.Variable(random(2, 3))
    with tf.GradientTape() as tape:
      loss = losses.entropy_weight_loss(tf.constant(0.3), log_prob, -2.0)
    self.assertAllClose(loss, -0.3 * (np.mean(random(2, 3)) - 2.0))
    self.assertIsNone(tape.gradient(loss, log_prob))


if __name__ == '__main__':
  absltest.main()
