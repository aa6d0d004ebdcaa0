"""A run whose gradient steps two devices share, against the run of one device."""

import subprocess
import sys
import types

import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.experiment import builder, config, devices, experiment, local_loop, metrics
from pearl_tf.testing import small_run, test_case

FEW = (
  'Training.num_iterations = 1',
  'PearlTraining.gradient_steps_per_iteration = 10',
  'PearlTraining.meta_batch_size = 4',
)
CONTINUED = ('Training.num_iterations = 2',)
SMALL = tuple(b for b in small_run.SMALL if not b.startswith(('GaussianEnc', 'LatentValue')))
VALUE = ('LatentValue.hidden_units = (8, 8)',)
GAUSSIAN = ('GaussianEncoder.hidden_units = (8, 8)',)
VARIANTS = {
  'value_target': VALUE + GAUSSIAN,
  'critic_target': GAUSSIAN
  + (
    'PearlAgent.target_class = @CriticTarget',
    'PearlAgent.entropy_weight_class = @AutomaticEntropyWeight',
  ),
}
# TensorFlow must be told of a second device before it starts.
TWO_DEVICES = """
import sys
import tensorflow as tf
from pearl_tf.experiment import local_loop
from pearl_tf.testing import small_run
halves = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices('CPU')[0], halves)
root, *bindings = sys.argv[1:]
local_loop.train(
  root,
  gin_files=[small_run.GIN_FILE],
  gin_bindings=bindings,
  seed=5,
  strategy=tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1']),
)
"""


def train_on_one(root, bindings) -> None:
  local_loop.train(root, gin_files=[small_run.GIN_FILE], gin_bindings=bindings, seed=5)


def train_on_two(root, bindings) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, '-c', TWO_DEVICES, str(root), *bindings],
    cwd=small_run.ROOT,
    capture_output=True,
    text=True,
    check=False,
  )


class ReplicasTest(test_case.TestCase):
  @parameterized.named_parameters((name, bindings) for name, bindings in VARIANTS.items())
  def test_two_devices_take_the_steps_of_one(self, bindings):
    bindings = SMALL + FEW + bindings
    one, two = self.temp_dir() / 'one', self.temp_dir() / 'two'
    process = train_on_two(two, bindings)
    self.assertEqual(process.returncode, 0, process.stderr)
    # What two devices have begun, one goes on with.
    train_on_one(one, bindings + CONTINUED)
    train_on_one(two, bindings + CONTINUED)
    for expected, actual in zip(metrics.read(one), metrics.read(two), strict=True):
      self.assertEqual(actual['gradient_steps'], expected['gradient_steps'])
      names = [name for name in expected if not name.startswith('time/')]
      np.testing.assert_allclose(
        [actual[name] for name in names],
        [expected[name] for name in names],
        rtol=1e-4,
        err_msg=str(names),
      )

  def test_says_what_it_cannot_share(self):
    odd = (*small_run.SMALL, *FEW, 'PearlTraining.meta_batch_size = 3')
    process = train_on_two(self.temp_dir() / 'odd', odd)
    self.assertIn('meta_batch_size = 3 tasks cannot be shared equally by 2', process.stderr)

  def test_refuses_methods_and_devices_that_it_has_not(self):
    promp = experiment.load(['baselines/point_robot_promp.gin'])
    two = types.SimpleNamespace(num_replicas_in_sync=2)
    with self.assertRaisesRegex(ValueError, 'ProMP cannot train on 2 devices: its losses are'):
      builder.Builder(promp, strategy=two)
    with self.assertRaisesRegex(config.ConfigError, r'--num_gpus=99, but TensorFlow finds \d+'):
      devices.strategy(99)


if __name__ == '__main__':
  absltest.main()
