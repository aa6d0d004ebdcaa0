"""Backups: slow networks start equal, move by tau, and are never trained."""

import gin
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.agents import backups
from pearl_tf.data import specs
from pearl_tf.networks import actor, critic
from pearl_tf.testing import test_case

DOMAIN = specs.DomainSpec(observation_size=3, action_size=2)
LATENT = tf.TensorSpec([4], tf.float32)
BOTH = (backups.ValueBackup, backups.TargetCriticBackup)


def backup_of(cls, target_update_rate: float = 0.25, **arguments):
  """Returns a backup, its actor and its critics."""
  spec = (DOMAIN.observation, DOMAIN.action, LATENT)
  critics = tuple(critic.LatentCritic(spec, hidden_units=(5,), seed=seed) for seed in (1, 2))
  policy = actor.LatentActor((DOMAIN.observation, LATENT), action_size=2, hidden_units=(5,))
  for network in (*critics, policy):
    network.create_variables()
  backup = cls(
    DOMAIN,
    latent_size=4,
    actor_network=policy,
    critics=critics,
    target_update_rate=target_update_rate,
    seed=3,
    **arguments,
  )
  return backup, policy, critics


def random(*shape: int) -> tf.Tensor:
  return tf.constant(np.random.default_rng(0).normal(size=shape), tf.float32)


def value_and_target(backup: backups.ValueBackup) -> tuple[critic.LatentValue, critic.LatentValue]:
  networks = [part for part in backup.submodules if isinstance(part, critic.LatentValue)]
  return tuple(sorted(networks, key=lambda network: network.name == 'TargetValue'))


class ValueBackupTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    gin.parse_config('LatentValue.hidden_units = (5,)')

  def next_value(self, backup):
    return backup.next_value(
      random(2, 6, 3), random(2, 6, 4), entropy_weight=tf.constant(1.0), seed=tf.constant([1, 2])
    )

  def test_target_starts_equal(self):
    backup, *_ = backup_of(backups.ValueBackup)
    value, target = value_and_target(backup)
    for array, slow in zip(value.get_weights(), target.get_weights(), strict=True):
      self.assertAllEqual(array, slow)
      self.assertIsNot(array, slow)
    self.assertAllEqual(self.next_value(backup), value((random(2, 6, 3), random(2, 6, 4)))[0])

  def test_next_value_is_that_of_the_target(self):
    backup, *_ = backup_of(backups.ValueBackup)
    value, target = value_and_target(backup)
    before = self.next_value(backup)
    value.set_weights([array + 1 for array in value.get_weights()])
    self.assertAllEqual(self.next_value(backup), before)
    target.set_weights([array + 1 for array in target.get_weights()])
    self.assertNotAllClose(self.next_value(backup), before)

  def test_target_moves_by_tau_after_the_step(self):
    backup, *_ = backup_of(backups.ValueBackup, learning_rate=0.1)
    value, target = value_and_target(backup)
    before = value.get_weights()
    backup.update(random(2, 6, 3), random(2, 6, 4), random(2, 6))
    for old, new, slow in zip(before, value.get_weights(), target.get_weights(), strict=True):
      self.assertGreater(np.abs(new - old).max(), 0.05)
      self.assertAllClose(slow, 0.75 * old + 0.25 * new, atol=1e-6)

  def test_rate_of_one_copies(self):
    backup, *_ = backup_of(backups.ValueBackup, target_update_rate=1.0)
    value, target = value_and_target(backup)
    backup.update(random(2, 6, 3), random(2, 6, 4), random(2, 6))
    for array, slow in zip(value.get_weights(), target.get_weights(), strict=True):
      self.assertAllEqual(array, slow)

  def test_learns_the_soft_value(self):
    backup, *_ = backup_of(backups.ValueBackup, learning_rate=0.02)
    update = tf.function(backup.update)
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
      ValueBackup.learning_rate = 0.5
    """)
    backup, *_ = backup_of(backups.ValueBackup)
    for network in value_and_target(backup):
      self.assertEqual([w.shape for w in network.get_weights()[::2]], [(7, 4), (4, 3), (3, 1)])

  def test_refuses_an_impossible_rate(self):
    with self.assertRaisesRegex(ValueError, 'learning_rate.*got -1'):
      backup_of(backups.ValueBackup, learning_rate=-1)


class TargetCriticBackupTest(test_case.TestCase):
  def targets(self, backup) -> list[critic.LatentCritic]:
    parts = [part for part in backup.submodules if part.name.startswith('TargetCritic')]
    return sorted(parts, key=lambda part: part.name)

  def test_targets_start_equal_each_to_its_own(self):
    backup, _, critics = backup_of(backups.TargetCriticBackup)
    targets = self.targets(backup)
    self.assertLen(targets, 2)
    for network, target in zip(critics, targets, strict=True):
      for array, slow in zip(network.get_weights(), target.get_weights(), strict=True):
        self.assertAllEqual(array, slow)
    self.assertNotAllClose(targets[0].get_weights()[0], targets[1].get_weights()[0])

  def test_next_value(self):
    backup, policy, critics = backup_of(backups.TargetCriticBackup)
    inputs = random(2, 6, 3), random(2, 6, 4)
    value = backup.next_value(*inputs, entropy_weight=tf.constant(0.5), seed=tf.constant([1, 2]))
    parameters, _ = policy(inputs)
    action, log_prob = actor.distribution(parameters).experimental_sample_and_log_prob(seed=[1, 2])
    values = [network((inputs[0], action, inputs[1]))[0] for network in critics]
    self.assertAllClose(value, np.minimum(*values) - 0.5 * log_prob, rtol=1e-5)
    other = backup.next_value(*inputs, entropy_weight=tf.constant(0.5), seed=tf.constant([1, 3]))
    self.assertNotAllClose(value, other)

  def test_targets_move_by_tau(self):
    backup, _, critics = backup_of(backups.TargetCriticBackup)
    before = [network.get_weights() for network in self.targets(backup)]
    for network in critics:
      network.set_weights([array + 1 for array in network.get_weights()])
    scalars = backup.update(random(2, 6, 3), random(2, 6, 4), random(2, 6))
    for old, network in zip(before, self.targets(backup), strict=True):
      for array, slow in zip(old, network.get_weights(), strict=True):
        self.assertAllClose(slow, array + 0.25, atol=1e-6)
    self.assertAllClose(scalars['value/mean'], np.mean(random(2, 6)))


class BothTest(test_case.TestCase):
  @parameterized.parameters(*BOTH)
  def test_slow_networks_are_not_trainable(self, cls):
    backup, *_ = backup_of(cls)
    slow = [
      part
      for part in backup.submodules
      if part.name.startswith('Target')
      and isinstance(part, critic.LatentCritic | critic.LatentValue)
    ]
    self.assertNotEmpty(slow)
    for network in slow:
      self.assertEmpty(network.trainable_variables)
      self.assertNotEmpty(network.variables)


if __name__ == '__main__':
  absltest.main()
