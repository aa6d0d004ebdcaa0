"""Targets: slow networks start equal, move by tau, and are never trained."""

import gin
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.agents.pearl import targets
from pearl_tf.data import specs
from pearl_tf.networks import actor, critic
from pearl_tf.testing import test_case

DOMAIN = specs.DomainSpec(observation_size=3, action_size=2)
LATENT = tf.TensorSpec([4], tf.float32)
BOTH = (targets.ValueTarget, targets.CriticTarget)


def owner_of(cls, target_update_rate: float = 0.25, **arguments):
  """Returns an owner of targets, its actor and its critics."""
  spec = (DOMAIN.observation, DOMAIN.action, LATENT)
  critics = tuple(critic.LatentCritic(spec, hidden_units=(5,), seed=seed) for seed in (1, 2))
  policy = actor.LatentActor((DOMAIN.observation, LATENT), action_size=2, hidden_units=(5,))
  for network in (*critics, policy):
    network.create_variables()
  owner = cls(
    DOMAIN,
    latent_size=4,
    actor_network=policy,
    critics=critics,
    target_update_rate=target_update_rate,
    seed=3,
    **arguments,
  )
  return owner, policy, critics


def random(*shape: int) -> tf.Tensor:
  return tf.constant(np.random.default_rng(0).normal(size=shape), tf.float32)


def value_and_target(owner: targets.ValueTarget) -> tuple[critic.LatentValue, critic.LatentValue]:
  networks = [part for part in owner.submodules if isinstance(part, critic.LatentValue)]
  return tuple(sorted(networks, key=lambda network: network.name == 'TargetValue'))


class ValueTargetTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    gin.parse_config('LatentValue.hidden_units = (5,)')

  def next_value(self, owner):
    return owner.next_value(
      random(2, 6, 3), random(2, 6, 4), entropy_weight=tf.constant(1.0), seed=tf.constant([1, 2])
    )

  def test_target_starts_equal(self):
    owner, *_ = owner_of(targets.ValueTarget)
    value, target = value_and_target(owner)
    for array, slow in zip(value.get_weights(), target.get_weights(), strict=True):
      self.assertAllEqual(array, slow)
      self.assertIsNot(array, slow)
    self.assertAllEqual(self.next_value(owner), value((random(2, 6, 3), random(2, 6, 4)))[0])

  def test_next_value_is_that_of_the_target(self):
    owner, *_ = owner_of(targets.ValueTarget)
    value, target = value_and_target(owner)
    before = self.next_value(owner)
    value.set_weights([array + 1 for array in value.get_weights()])
    self.assertAllEqual(self.next_value(owner), before)
    target.set_weights([array + 1 for array in target.get_weights()])
    self.assertNotAllClose(self.next_value(owner), before)

  def test_target_moves_by_tau_after_the_step(self):
    owner, *_ = owner_of(targets.ValueTarget, learning_rate=0.1)
    value, target = value_and_target(owner)
    before = value.get_weights()
    owner.update(random(2, 6, 3), random(2, 6, 4), random(2, 6))
    for old, new, slow in zip(before, value.get_weights(), target.get_weights(), strict=True):
      self.assertGreater(np.abs(new - old).max(), 0.05)
      self.assertAllClose(slow, 0.75 * old + 0.25 * new, atol=1e-6)

  def test_rate_of_one_copies(self):
    owner, *_ = owner_of(targets.ValueTarget, target_update_rate=1.0)
    value, target = value_and_target(owner)
    owner.update(random(2, 6, 3), random(2, 6, 4), random(2, 6))
    for array, slow in zip(value.get_weights(), target.get_weights(), strict=True):
      self.assertAllEqual(array, slow)

  def test_learns_the_soft_value(self):
    owner, *_ = owner_of(targets.ValueTarget, learning_rate=0.02)
    update = tf.function(owner.update)
    observation, latent = random(2, 6, 3), random(2, 6, 4)
    soft_value = 3 + observation[..., 0]
    first = update(observation, latent, soft_value)
    for _ in range(150):
      last = update(observation, latent, soft_value)
    self.assertGreater(first['loss/value'], 9.0)
    self.assertLess(last['loss/value'], 0.2)
    self.assertAllClose(last['value/mean'], tf.reduce_mean(soft_value), atol=0.3)

  def test_gin_reaches_value_and_target(self):
    gin.parse_config("""
      LatentValue.hidden_units = (4, 3)
      ValueTarget.learning_rate = 0.5
    """)
    owner, *_ = owner_of(targets.ValueTarget)
    for network in value_and_target(owner):
      self.assertEqual([w.shape for w in network.get_weights()[::2]], [(7, 4), (4, 3), (3, 1)])

  def test_refuses_an_impossible_rate(self):
    with self.assertRaisesRegex(ValueError, 'learning_rate.*got -1'):
      owner_of(targets.ValueTarget, learning_rate=-1)


class CriticTargetTest(test_case.TestCase):
  def networks(self, owner) -> list[critic.LatentCritic]:
    parts = [part for part in owner.submodules if part.name.startswith('TargetCritic')]
    return sorted(parts, key=lambda part: part.name)

  def test_targets_start_equal_each_to_its_own(self):
    owner, _, critics = owner_of(targets.CriticTarget)
    networks = self.networks(owner)
    self.assertLen(networks, 2)
    for network, target in zip(critics, networks, strict=True):
      for array, slow in zip(network.get_weights(), target.get_weights(), strict=True):
        self.assertAllEqual(array, slow)
    self.assertNotAllClose(networks[0].get_weights()[0], networks[1].get_weights()[0])

  def test_next_value(self):
    owner, policy, critics = owner_of(targets.CriticTarget)
    inputs = random(2, 6, 3), random(2, 6, 4)
    value = owner.next_value(*inputs, entropy_weight=tf.constant(0.5), seed=tf.constant([1, 2]))
    parameters, _ = policy(inputs)
    action, log_prob = actor.distribution(parameters).experimental_sample_and_log_prob(seed=[1, 2])
    values = [network((inputs[0], action, inputs[1]))[0] for network in critics]
    self.assertAllClose(value, np.minimum(*values) - 0.5 * log_prob, rtol=1e-5)
    other = owner.next_value(*inputs, entropy_weight=tf.constant(0.5), seed=tf.constant([1, 3]))
    self.assertNotAllClose(value, other)

  def test_targets_move_by_tau(self):
    owner, _, critics = owner_of(targets.CriticTarget)
    before = [network.get_weights() for network in self.networks(owner)]
    for network in critics:
      network.set_weights([array + 1 for array in network.get_weights()])
    scalars = owner.update(random(2, 6, 3), random(2, 6, 4), random(2, 6))
    for old, network in zip(before, self.networks(owner), strict=True):
      for array, slow in zip(old, network.get_weights(), strict=True):
        self.assertAllClose(slow, array + 0.25, atol=1e-6)
    self.assertAllClose(scalars['value/mean'], np.mean(random(2, 6)))


class BothTest(test_case.TestCase):
  @parameterized.parameters(*BOTH)
  def test_slow_networks_are_not_trainable(self, cls):
    owner, *_ = owner_of(cls)
    slow = [
      part
      for part in owner.submodules
      if part.name.startswith('Target')
      and isinstance(part, critic.LatentCritic | critic.LatentValue)
    ]
    self.assertNotEmpty(slow)
    for network in slow:
      self.assertEmpty(network.trainable_variables)
      self.assertNotEmpty(network.variables)


if __name__ == '__main__':
  absltest.main()
