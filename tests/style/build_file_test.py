"""BUILD against the tree: every file has its target, every import its dependency."""

import ast
import functools
import pathlib
import re
import tomllib
from collections.abc import Callable
from typing import Any

from absl.testing import absltest

from pearl_tf.testing import test_case

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ('pearl_tf', 'serving', 'tests', 'trainers')


@functools.cache
def tree() -> list[str]:
  """Returns the files that BUILD may name, relative to the root; the environment is not ours."""
  nested = (path for folder in FOLDERS for path in (ROOT / folder).rglob('*'))
  files = [path for path in (*ROOT.iterdir(), *nested) if path.is_file()]
  return sorted(path.relative_to(ROOT).as_posix() for path in files)


def matches(pattern: str, path: str) -> bool:
  """Tells whether Bazel's glob pattern covers a path: `**` crosses folders and `*` does not."""
  tokens = {'**/': '(?:.*/)?', '**': '.*', '*': '[^/]*'}
  regex = re.sub(r'\*\*/|\*\*|\*|[^*]+', lambda m: tokens.get(m[0], re.escape(m[0])), pattern)
  return re.fullmatch(regex, path) is not None


def glob(include: list[str], exclude: tuple[str, ...] = (), **unused: Any) -> list[str]:
  """Bazel's glob over the files of the tree."""
  del unused
  chosen = [path for path in tree() if any(matches(pattern, path) for pattern in include)]
  return [path for path in chosen if not any(matches(pattern, path) for pattern in exclude)]


def evaluate_build_file() -> dict[str, dict]:
  """Runs BUILD, whose language is a subset of Python; returns its targets by name.

  Raises:
    ValueError: Two targets have one name.
  """
  targets = {}

  def rule(kind: str) -> Callable[..., None]:
    def declare(name: str, **attributes: Any) -> None:
      if name in targets:
        raise ValueError(f'BUILD declares {name} twice')
      targets[name] = {'kind': kind, **attributes}

    return declare

  names = {kind: rule(kind) for kind in ('py_library', 'py_binary', 'py_test', 'filegroup')}
  names |= {'glob': glob, 'load': lambda *args: None, 'package': lambda **kwargs: None}
  exec(compile((ROOT / 'BUILD').read_text(), 'BUILD', 'exec'), names)
  return targets


def closure(targets: dict[str, dict], name: str) -> set[str]:
  """Returns a target and everything it depends on."""
  reached = {name}
  for dependency in targets[name].get('deps', []):
    reached |= closure(targets, dependency.removeprefix(':'))
  return reached


def python_files(*folders: str) -> list[str]:
  """Returns the Python files of some top-level folders, relative to the root."""
  return [f for f in tree() if f.endswith('.py') and f.partition('/')[0] in folders]


def layer_of(dotted: str) -> str | None:
  """Returns the library a dotted import lands in, or None if it is not ours."""
  first, _, rest = dotted.partition('.')
  if first in ('trainers', 'serving'):
    return first
  if first != 'pearl_tf':
    return None
  second = rest.partition('.')[0]
  return second if second and (ROOT / 'pearl_tf' / second).is_dir() else 'package'


def imported_names(source: str) -> list[str]:
  """Returns the dotted names that a file imports."""
  names = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
      names += [f'{node.module}.{alias.name}' for alias in node.names]
  return names


def imported_layers(source: str) -> set[str]:
  """Returns the libraries that a file imports, those of the test helpers it imports included."""
  layers = set()
  for name in imported_names(source):
    layers |= {layer_of(name)} - {None}
    helper = ROOT.joinpath(*name.split('.')).with_suffix('.py')
    if layer_of(name) == 'testing' and helper.is_file():
      layers |= imported_layers(helper.read_text())
  return layers


class BuildFileTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.targets = evaluate_build_file()

  def targets_of_kind(self, kind: str) -> dict[str, dict]:
    """Returns the targets that one rule declares."""
    return {name: target for name, target in self.targets.items() if target['kind'] == kind}

  def test_glob_is_bazels(self):
    self.assertTrue(matches('pearl_tf/data/**/*.py', 'pearl_tf/data/types.py'))
    self.assertTrue(matches('tests/**', 'tests/style/build_file_test.py'))
    self.assertFalse(matches('trainers/*.py', 'trainers/configs/base.py'))

  def test_every_source_is_in_one_library(self):
    sources = [f for target in self.targets_of_kind('py_library').values() for f in target['srcs']]
    helpers = [f for f in python_files('tests') if not f.endswith('_test.py')]
    self.assertCountEqual(sources, python_files('pearl_tf', 'trainers', 'serving') + helpers)

  def test_every_test_file_is_a_test(self):
    tests = [target['main'] for target in self.targets_of_kind('py_test').values()]
    self.assertCountEqual(tests, [f for f in python_files('tests') if f.endswith('_test.py')])

  def test_every_program_is_a_binary(self):
    programs = [target['main'] for target in self.targets_of_kind('py_binary').values()]
    files = [f for f in python_files('trainers', 'serving') if not f.endswith('__init__.py')]
    self.assertContainsSubset([f for f in files if f.count('/') == 1], programs)

  def test_dependencies_exist(self):
    for name, target in self.targets.items():
      for dependency in target.get('deps', []):
        self.assertIn(dependency.removeprefix(':'), self.targets, name)

  def test_imports_are_dependencies(self):
    missing = {}
    for name, target in self.targets.items():
      if (
        target['kind'] == 'filegroup' or name == 'testing'
      ):  # A helper's layers come with its test.
        continue
      reached = closure(self.targets, name)
      for file in target['srcs']:
        if surplus := imported_layers((ROOT / file).read_text()) - reached:
          missing[file] = sorted(surplus)
    self.assertEmpty(missing)

  def test_import_of_a_higher_layer_would_be_found(self):
    layers = imported_layers('from pearl_tf.replay import cache\nimport numpy')
    self.assertEqual(layers, {'replay'})
    self.assertNotIn('replay', closure(self.targets, 'networks'))

  def test_layers_are_those_of_the_linter(self):
    settings = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['importlinter']
    contract = next(c for c in settings['contracts'] if c['id'] == 'layers')
    height = {}
    for level, line in enumerate(reversed(contract['layers'])):
      height |= {name.strip(' ()'): level for name in line.split('|')}
    libraries = {n for n in self.targets_of_kind('py_library') if n in height}
    self.assertEqual(libraries, set(height) - {'proxies', 'version'})
    for name in libraries:
      for dependency in closure(self.targets, name) - {name, 'package'}:
        self.assertLess(height[dependency], height[name], f'{name} -> {dependency}')


if __name__ == '__main__':
  absltest.main()
