"""setup.py and constraints.txt: ranges and pins agree, and every data file is packaged."""

import pathlib
import runpy
import tomllib
from unittest import mock

import setuptools
from absl.testing import absltest
from packaging import requirements, version

import pearl_tf.version
from pearl_tf.testing import test_case

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Files beside the code that a program reads at run time; all others are for developers.
DATA_SUFFIXES = frozenset({'.csv', '.gin', '.config', '.yaml', '.md', '.xml'})
# One variant of TensorFlow; its CUDA libraries are pinned by TensorFlow itself.
UNPINNED_EXTRAS = frozenset({'gpu'})


def setup_arguments() -> dict:
  """Runs setup.py from the root without setting anything up; returns what it would pass."""
  with (
    mock.patch.object(setuptools, 'setup') as setup,
    mock.patch.object(setuptools, 'find_packages', lambda **kwargs: sorted(kwargs['include'])),
  ):
    runpy.run_path(str(ROOT / 'setup.py'))
  return setup.call_args.kwargs


def pins() -> dict[str, str]:
  """Returns the pinned version of each distribution in constraints.txt."""
  lines = (ROOT / 'constraints.txt').read_text().split()
  return {
    name.lower().replace('_', '-'): pin for name, _, pin in (x.partition('==') for x in lines)
  }


def disagreements(lines: list[str], pinned: dict[str, str]) -> list[str]:
  """Finds requirements without a pin, or whose pin is outside their range."""
  problems = []
  for line in lines:
    requirement = requirements.Requirement(line)
    pin = pinned.get(requirement.name.lower().replace('_', '-'))
    if pin is None:
      problems.append(f'{line} has no pin')
    elif version.Version(pin) not in requirement.specifier:
      problems.append(f'{line} excludes its pin {pin}')
  return problems


class PackagingTest(test_case.TestCase):
  def test_pins_satisfy_the_ranges(self):
    arguments = setup_arguments()
    lines = [*arguments['install_requires']]
    for extra, more in arguments['extras_require'].items():
      if extra not in UNPINNED_EXTRAS:
        lines += more
    # setuptools comes with the interpreter's venv; any release within the range will do.
    lines = [line for line in lines if not line.startswith('setuptools')]
    self.assertEmpty(disagreements(lines, pins()))

  def test_disagreement_is_found(self):
    self.assertLen(disagreements(['numpy<2', 'rich'], {'numpy': '2.1.0'}), 2)
    self.assertEmpty(disagreements(['numpy<2'], {'numpy': '1.26.4'}))

  def test_pins_are_exact_and_sorted(self):
    lines = (ROOT / 'constraints.txt').read_text().split()
    self.assertEmpty([line for line in lines if line.count('==') != 1])
    self.assertSequenceEqual(lines, sorted(lines, key=str.lower))

  def test_version_is_the_package_version(self):
    self.assertEqual(setup_arguments()['version'], pearl_tf.version.__version__)

  def test_metadata_have_one_source(self):
    settings = tomllib.loads((ROOT / 'pyproject.toml').read_text())
    self.assertNotIn('project', settings)

  def test_every_data_file_is_packaged(self):
    packaged = set()
    for package, patterns in setup_arguments()['package_data'].items():
      folder = ROOT.joinpath(*package.split('.'))
      packaged |= {path for pattern in patterns for path in folder.glob(pattern)}
    shipped = {
      path
      for folder in ('pearl_tf', 'trainers', 'serving')
      for path in (ROOT / folder).rglob('*')
      if path.suffix in DATA_SUFFIXES
    }
    self.assertEmpty(sorted(str(path) for path in shipped - packaged))


if __name__ == '__main__':
  absltest.main()
