import subprocess
import sys

from absl.testing import absltest

from pearl_tf.testing import small_run, test_case

# Determinism cannot be switched off again, so it is switched on in a process of its own.
DETERMINISTIC = """
import tensorflow as tf
from tensorflow.python.framework import config
from pearl_tf.data import specs
from pearl_tf.experiment import numerics
from pearl_tf.networks import critic
numerics.set_op_determinism(True)
assert config.is_op_determinism_enabled()
domain = specs.DomainSpec(3, 2)
network = critic.LatentValue((domain.observation, tf.TensorSpec([4])), hidden_units=(8,), seed=0)
network.create_variables()
print(len(network.variables), 'variables')
"""


class NumericsTest(test_case.TestCase):
  def test_networks_can_be_built_with_determinism_on(self):
    # TF-Agents draws an example input without a seed, which TensorFlow then refuses.
    process = subprocess.run(
      [sys.executable, '-c', DETERMINISTIC],
      cwd=small_run.ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual(process.stdout, '4 variables\n', process.stderr)


if __name__ == '__main__':
  absltest.main()
