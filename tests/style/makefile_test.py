"""The front door: what `make` says when something is missing, and when it installs."""

import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile

from absl.testing import absltest, parameterized

from pearl_tf.testing import test_case

ROOT = pathlib.Path(__file__).resolve().parents[2]
INSTALL = 'apt-get install -y python3.11 python3.11-venv'
TARGETS = ('demo', 'test', 'lint', 'benchmark', 'clean', 'help')


class MakefileTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.tree = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    for name in ('Makefile', 'setup.py', 'constraints.txt'):
      shutil.copy(ROOT / name, self.tree)

  def make(self, *arguments: str) -> subprocess.CompletedProcess:
    """Runs make in the copied tree, untouched by the make that may be running this test."""
    inherited = ('MAKE', 'MFLAGS', 'PYTHON', 'EXTRAS', 'ARGS', 'WORKERS')
    environment = {k: v for k, v in os.environ.items() if not k.startswith(inherited)}
    return subprocess.run(
      ['make', *arguments],
      cwd=self.tree,
      env=environment,
      capture_output=True,
      text=True,
      timeout=60,
      check=False,
    )

  def install_marker(self, age_seconds: float) -> None:
    """Leaves the trace of an installation that finished some time before now."""
    marker = self.tree / '.venv' / '.installed'
    marker.parent.mkdir(exist_ok=True)
    marker.touch()
    now = marker.stat().st_mtime
    for name in ('setup.py', 'constraints.txt'):
      os.utime(self.tree / name, (now - 100, now - 100))
    os.utime(marker, (now - age_seconds, now - age_seconds))

  def test_plain_make_lists_the_targets(self):
    result = self.make()
    self.assertEqual(result.returncode, 0)
    for target in TARGETS:
      self.assertIn(f'make {target} ', result.stdout)

  @parameterized.parameters('tets', 'tests', 'trainers')
  def test_unknown_target_lists_the_targets(self, target):
    (self.tree / 'tests').mkdir()
    result = self.make(target)
    self.assertNotEqual(result.returncode, 0)
    self.assertIn(f"There is no target '{target}'.", result.stderr)
    for known in TARGETS:
      self.assertIn(f'make {known} ', result.stderr)

  @parameterized.parameters('demo', 'test', 'lint', 'benchmark')
  def test_missing_interpreter_says_what_to_type(self, target):
    result = self.make('PYTHON=nope', target)
    self.assertNotEqual(result.returncode, 0)
    self.assertIn('nope was not found', result.stderr)
    self.assertIn(INSTALL, result.stderr)
    self.assertIn(f'make {target} PYTHON=', result.stderr)
    self.assertFalse((self.tree / '.venv').exists())

  def test_wrong_version_says_what_to_type(self):
    python = self.fake_python('sys.version_info')
    result = self.make(f'PYTHON={python}', 'demo')
    self.assertNotEqual(result.returncode, 0)
    self.assertIn('is not 3.11', result.stderr)
    self.assertIn(INSTALL, result.stderr)

  def test_missing_venv_module_says_what_to_type(self):
    python = self.fake_python('ensurepip')
    result = self.make(f'PYTHON={python}', 'demo')
    self.assertNotEqual(result.returncode, 0)
    self.assertIn('its venv or ensurepip module is missing', result.stderr)
    self.assertIn(INSTALL, result.stderr)
    self.assertFalse((self.tree / '.venv').exists())

  def fake_python(self, failing: str) -> pathlib.Path:
    """Writes an interpreter that fails whenever its command mentions a word."""
    script = self.tree / 'fake-python'
    script.write_text(
      f'#!/bin/sh\ncase "$*" in *{failing}*) exit 1;; esac\nexec {sys.executable} "$@"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script

  def test_finished_installation_is_kept(self):
    self.install_marker(age_seconds=0)
    result = self.make('--dry-run', 'demo')
    self.assertNotIn('pip install', result.stdout)
    self.assertIn('-m serving.demo --root_dir=runs/demo', result.stdout)

  @parameterized.parameters('setup.py', 'constraints.txt')
  def test_change_installs_again(self, name):
    self.install_marker(age_seconds=10)
    (self.tree / name).touch()
    result = self.make('--dry-run', 'demo')
    self.assertIn('pip install', result.stdout)
    self.assertIn('--constraint constraints.txt', result.stdout)

  def test_failed_installation_is_tried_again(self):
    for _ in range(2):
      result = self.make(f'PYTHON={self.fake_venv(pip_status=1)}', 'demo')
      self.assertNotEqual(result.returncode, 0)
      self.assertIn('pip says no', result.stderr)
      self.assertIn('The installation did not finish.', result.stderr)
      self.assertFalse((self.tree / '.venv' / '.installed').exists())

  def test_installation_happens_once(self):
    python = self.fake_venv(pip_status=0)
    first = self.make(f'PYTHON={python}', 'demo')
    second = self.make(f'PYTHON={python}', 'demo')
    self.assertEqual((first.returncode, second.returncode), (0, 0), first.stderr + second.stderr)
    self.assertIn('  Downloading big.whl (475.3 MB)', first.stdout)
    self.assertNotIn('Collecting', first.stdout)
    self.assertIn('ran -m serving.demo --root_dir=runs/demo', first.stdout)
    self.assertEqual(second.stdout, 'ran -m serving.demo --root_dir=runs/demo\n')

  def fake_venv(self, pip_status: int) -> pathlib.Path:
    """Writes an interpreter whose virtual environments hold a pip that ends in a given status."""
    inner = self.tree / 'fake-inner'
    inner.write_text(
      '#!/bin/sh\ncase "$*" in\n'
      '  *"pip install"*) echo "Collecting big"; echo "  Downloading big.whl (475.3 MB)"\n'
      f'    [ {pip_status} = 0 ] || echo "pip says no" >&2; exit {pip_status};;\n'
      '  *) echo "ran $*";;\nesac\n'
    )
    script = self.tree / 'fake-python'
    script.write_text(
      '#!/bin/sh\ncase "$*" in\n'
      f'  *"-m venv"*) mkdir -p .venv/bin; cp {inner} .venv/bin/python;;\n'
      f'  *) exec {sys.executable} "$@";;\nesac\n'
    )
    for path in (inner, script):
      path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return script

  def test_arguments_reach_the_program(self):
    self.install_marker(age_seconds=0)
    result = self.make('--dry-run', 'demo', 'ARGS=--seed=1')
    self.assertIn('--root_dir=runs/demo --seed=1', result.stdout)

  def test_test_target_runs_every_gate(self):
    self.install_marker(age_seconds=0)
    commands = self.make('--dry-run', 'test').stdout
    for gate in ('ruff check', 'ruff format --check', 'lint-imports', '-m pytest'):
      self.assertIn(gate, commands)

  def test_clean_keeps_runs(self):
    for folder in ('runs/demo', '.venv/bin', 'pearl_tf/__pycache__'):
      (self.tree / folder).mkdir(parents=True)
    self.assertEqual(self.make('clean').returncode, 0)
    self.assertTrue((self.tree / 'runs' / 'demo').is_dir())
    self.assertFalse((self.tree / '.venv').exists())
    self.assertFalse((self.tree / 'pearl_tf' / '__pycache__').exists())


if __name__ == '__main__':
  absltest.main()
