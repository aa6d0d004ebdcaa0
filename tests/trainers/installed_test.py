"""The built wheel, installed into an empty folder, used from another one."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

from absl.testing import absltest

from pearl_tf.testing import small_run, test_case

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ('pearl_tf', 'trainers', 'serving', 'setup.py', 'pyproject.toml', 'README.md')


def run(*command: str, **options) -> str:
  process = subprocess.run(command, capture_output=True, text=True, check=False, **options)
  assert process.returncode == 0, f'{command}: {process.stdout}{process.stderr}'
  return process.stdout


class InstalledTest(test_case.TestCase):
  def test_programs_and_shipped_configurations_work_from_any_folder(self):
    folder = self.temp_dir()
    source, target, elsewhere = (folder / name for name in ('source', 'target', 'elsewhere'))
    source.mkdir()
    elsewhere.mkdir()
    for name in SOURCES:
      path = ROOT / name
      (shutil.copytree if path.is_dir() else shutil.copy)(path, source / name)
    pip = (sys.executable, '-m', 'pip', '--disable-pip-version-check')
    build = ('wheel', '--quiet', '--no-deps', '--no-build-isolation', f'--wheel-dir={folder}')
    run(*pip, *build, str(source))
    (wheel,) = folder.glob('pearl_tf-*.whl')
    run(*pip, 'install', '--quiet', '--no-deps', f'--target={target}', str(wheel))

    environment = dict(os.environ, PYTHONPATH=str(target))
    scripts = sorted(path.name for path in (target / 'bin').iterdir())
    self.assertContainsSubset({'pearl-train', 'pearl-evaluate', 'pearl-serve'}, scripts)
    for script in scripts:
      shown = run(str(target / 'bin' / script), '--help', cwd=elsewhere, env=environment)
      self.assertRegex(
        shown, r'(?ms)\A[A-Z].*python -m .*^  --[\w\[\]]+: ', script
      )  # What, how, flags.
    for package in ('pearl_tf', 'trainers', 'serving'):
      self.assertTrue((target / package / 'py.typed').is_file())
    bindings = [f'--gin_bindings={binding}' for binding in small_run.SMALL]
    run(
      str(target / 'bin' / 'pearl-train'),
      '--root_dir=run',
      '--gin_file=point_robot.gin',
      *bindings,
      '--gin_bindings=Training.num_iterations = 1',
      cwd=elsewhere,
      env=environment,
    )
    lines = (elsewhere / 'run' / 'metrics.jsonl').read_text().splitlines()
    self.assertEqual(json.loads(lines[-1])['iteration'], 1)


if __name__ == '__main__':
  absltest.main()
