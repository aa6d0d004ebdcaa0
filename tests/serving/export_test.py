"""The program as its users start it, on the export that training itself has made."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest

from pearl_tf.experiment import checkpoints, local_loop, metrics
from pearl_tf.testing import fakes, small_run, test_case


def run(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'serving.export', *map(str, arguments)],
    cwd=small_run.ROOT,
    capture_output=True,
    text=True,
    timeout=300,
    env={**os.environ, 'PYTHONPATH': str(small_run.ROOT)},
  )


def train(root, *bindings):
  local_loop.train(root, gin_files=[small_run.GIN_FILE], gin_bindings=(*small_run.LINE, *bindings))


def manifest(export_dir, version):
  path = export_dir / 'pearl' / str(version) / 'assets.extra' / 'pearl_manifest.json'
  return json.loads(path.read_text())


class ExportTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory())) / 'run'
    train(cls.root, 'Training.export_interval = 2', 'Training.exports_to_keep = 1')

  def test_training_exported_at_its_interval_and_its_end(self):
    # After iterations 2 and 3, of which one is kept.
    versions = sorted(path.name for path in (self.root / 'export' / 'pearl').iterdir())
    self.assertEqual(versions, ['2'])
    last = metrics.read(self.root)[-1]
    values = manifest(self.root / 'export', 2)
    self.assertEqual(values['train_step'], last['gradient_steps'])
    self.assertEqual(values['env_steps'], last['env_steps'])
    self.assertEqual(values['env_name'], 'pearl_tf.testing.fakes:Line')
    space = fakes.Line().action_space
    bounds = {'low': space.low.tolist(), 'high': space.high.tolist()}
    self.assertEqual((values['env_action_bounds'], values['env_action_names']), (bounds, None))

  def test_training_without_exports_is_the_same(self):
    other = self.temp_dir() / 'run'
    train(other)
    self.assertFalse((other / 'export').exists())
    for with_exports, without in zip(metrics.read(self.root), metrics.read(other), strict=True):
      self.assertEqual(set(with_exports), set(without))
      for name, value in with_exports.items():
        if not name.startswith('time/'):
          self.assertAllClose(value, without[name], rtol=1e-4, msg=name)

  def test_checkpoints_by_kind_name_and_number(self):
    directory = self.temp_dir() / 'exports'
    latest = checkpoints.Checkpoints(self.root / 'checkpoints', prefix='latest').latest()
    result = run(f'--root_dir={self.root}', f'--export_dir={directory}', '--policy_saver')
    self.assertEqual(result.returncode, 0, result.stderr)
    best = checkpoints.Checkpoints(self.root / 'checkpoints', prefix='best').latest()
    self.assertEqual(
      result.stdout, f'exported {best.name} as version 1 to {directory}\n', result.stderr
    )
    self.assertTrue((directory / 'policy_saver' / '1' / 'policy_specs.pbtxt').is_file())

    number = int(latest.name.rpartition('-')[2])
    result = run(f'--root_dir={self.root}', f'--export_dir={directory}', f'--checkpoint={number}')
    self.assertEqual(result.returncode, 0, result.stderr)
    self.assertIn(f'exported {latest.name} as version 2', result.stdout)
    # The same weights of the same run, hence the same latent space.
    trained = manifest(self.root / 'export', 2)
    self.assertEqual(manifest(directory, 2), trained)

  def test_mistakes_are_explained_in_a_line(self):
    for arguments, code, message in (
      (['--root_dir=nowhere'], 1, 'error: nowhere is not a run folder'),
      ([f'--root_dir={self.root}', '--checkpoint=7777'], 1, "has no checkpoint '7777'; there are"),
      ([f'--root_dir={self.root}', '--keep=0'], 2, '0 is not a positive integer'),
    ):
      result = run(*arguments)
      self.assertEqual(result.returncode, code, result.stderr)
      self.assertIn(message, result.stderr)
      self.assertNotIn('Traceback', result.stderr)


if __name__ == '__main__':
  absltest.main()
