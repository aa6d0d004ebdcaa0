"""The import rules that the contracts in pyproject.toml cannot express.

The layers themselves are import-linter's; it sees modules, not the names or calls in them.
"""

import ast
import importlib.metadata
import pathlib
import runpy
import sys
import tomllib
from collections.abc import Iterator
from unittest import mock

import setuptools
from absl.testing import absltest, parameterized

from pearl_tf.testing import test_case

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ('pearl_tf', 'trainers', 'serving')
# What may run where the library is not installed.
BEHIND_THE_WIRE = (
  'serving/client/',
  'serving/judge.py',
  'serving/server/',
  'serving/tf_agents/remote_policy.py',
  'serving/verify_export.py',
)
GIN_PARSERS = ('pearl_tf/experiment/config.py', 'pearl_tf/experiment/bound.py')
GIN_PARSING = frozenset(
  {
    'get_bindings',
    'get_configurable',
    'operative_config_str',
    'query_parameter',
    'add_config_file_search_path',
    'bind_parameter',
    'parse_config',
    'parse_config_file',
    'parse_config_files_and_bindings',
    'parse_value',
  }
)
# Where each import name comes from that an installation without its extra does not have.
OPTIONAL = {
  'grpc_health': 'grpcio-health-checking',
  'grpc_reflection': 'grpcio-reflection',
  'imageio_ffmpeg': 'imageio-ffmpeg',
  'tensorflow_serving': 'tensorflow-serving-api',
}


def source_files(*folders: str) -> list[str]:
  """Returns the Python files of some top-level folders, relative to the root."""
  files = (path for folder in folders for path in (ROOT / folder).rglob('*.py'))
  return sorted(path.relative_to(ROOT).as_posix() for path in files)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
  """Yields line and dotted name of everything imported; `from a import b` counts as `a.b`."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
      yield from ((node.lineno, f'{node.module}.{alias.name}') for alias in node.names)


def within(name: str, *packages: str) -> bool:
  """Tells whether a dotted name is one of some packages, or in one."""
  return any(name == package or name.startswith(package + '.') for package in packages)


def is_module(dotted: str) -> bool:
  """Tells whether a dotted name is a module or a package of this tree."""
  path = ROOT.joinpath(*dotted.split('.'))
  return path.is_dir() or path.with_suffix('.py').is_file()


def names_instead_of_modules(path: str, source: str) -> list[str]:
  """Finds `from pearl_tf.data.types import Task` where the module should be imported."""
  del path
  problems = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.ImportFrom) and within(node.module or '', *PACKAGES):
      for alias in node.names:
        dotted = f'{node.module}.{alias.name}'
        if not is_module(dotted) and not alias.name.startswith('__'):
          problems.append(f'line {node.lineno}: {dotted} is no module; import its module')
  return problems


def flags_in_the_library(path: str, source: str) -> list[str]:
  """Finds absl flags outside the programs."""
  if not path.startswith('pearl_tf/') or path.startswith('pearl_tf/programs/'):
    return []
  return [
    f'line {line}: {name} belongs in trainers/ or serving/'
    for line, name in imports(ast.parse(source))
    if within(name, 'absl.flags', 'absl.app')
  ]


def helpers_of_tests_in_the_product(path: str, source: str) -> list[str]:
  """Finds imports of `pearl_tf.testing` outside the tests and their helpers."""
  if path.startswith('pearl_tf/testing/'):
    return []
  return [
    f'line {line}: {name} is for tests only'
    for line, name in imports(ast.parse(source))
    if within(name, 'pearl_tf.testing', 'tests')
  ]


def gin_parsing(path: str, source: str) -> list[str]:
  """Finds gin parsed, bound or asked anywhere but in the two modules that do."""
  if path in GIN_PARSERS:
    return []
  return [
    f'line {node.lineno}: gin.{node.attr} belongs in {GIN_PARSERS[0]}'
    for node in ast.walk(ast.parse(source))
    if isinstance(node, ast.Attribute)
    and isinstance(node.value, ast.Name)
    and node.value.id == 'gin'
    and node.attr in GIN_PARSING
  ]


def library_behind_the_wire(path: str, source: str) -> list[str]:
  """Finds `pearl_tf` in a serving client or server, directly or through modules of `serving`."""
  if not path.startswith(BEHIND_THE_WIRE):
    return []
  problems, seen, queue = [], {path}, [(path, source)]
  while queue:
    via, text = queue.pop()
    for line, name in imports(ast.parse(text)):
      if within(name, 'pearl_tf') and not within(name, 'pearl_tf.programs'):
        problems.append(f'{via} line {line}: {name}; a client knows manifest and signatures only')
      for module in (name, name.rpartition('.')[0]):
        file = ROOT.joinpath(*module.split('.')).with_suffix('.py')
        relative = module.replace('.', '/') + '.py'
        if within(module, 'serving') and file.is_file() and relative not in seen:
          seen.add(relative)
          queue.append((relative, file.read_text()))
  return problems


RULES = (
  names_instead_of_modules,
  flags_in_the_library,
  helpers_of_tests_in_the_product,
  gin_parsing,
  library_behind_the_wire,
)

VIOLATIONS = (
  (names_instead_of_modules, 'trainers/x.py', 'from pearl_tf.data.types import Task'),
  (flags_in_the_library, 'pearl_tf/data/x.py', 'from absl import flags'),
  (flags_in_the_library, 'pearl_tf/data/x.py', 'import absl.app'),
  (helpers_of_tests_in_the_product, 'trainers/x.py', 'from pearl_tf.testing import test_case'),
  (gin_parsing, 'trainers/x.py', 'import gin\ngin.parse_config("a.b = 1")'),
  (gin_parsing, 'pearl_tf/data/x.py', 'import gin\ndef f():\n  gin.bind_parameter("a.b", 1)'),
  (gin_parsing, 'pearl_tf/export/x.py', 'import gin\ngin.query_parameter("a.b")'),
  (library_behind_the_wire, 'serving/client/x.py', 'def f():\n  from pearl_tf.data import types'),
)


def declared_requirements() -> dict[str, list[str]]:
  """Runs setup.py without setting anything up; returns requirement names by extra, '' the base."""
  with mock.patch.object(setuptools, 'setup') as setup:
    runpy.run_path(str(ROOT / 'setup.py'))
  arguments = setup.call_args.kwargs
  extras = {'': arguments['install_requires'], **arguments['extras_require']}
  return {extra: [canonical(line) for line in lines] for extra, lines in extras.items()}


def canonical(requirement: str) -> str:
  """Returns the comparable name of a distribution from a requirement line."""
  name = requirement
  for separator in '[=<>~!; ':
    name = name.partition(separator)[0]
  return name.lower().replace('_', '-').replace('.', '-')


def undeclared(source: str, allowed: set[str], providers: dict[str, list[str]]) -> list[str]:
  """Finds imports that no allowed distribution provides."""
  problems = []
  for line, name in imports(ast.parse(source)):
    top = name.partition('.')[0]
    if top in sys.stdlib_module_names or top in (*PACKAGES, 'tests'):
      continue
    distributions = {canonical(item) for item in providers.get(top, [OPTIONAL.get(top, top)])}
    if not distributions & allowed:
      problems.append(f'line {line}: {top} is provided by nothing that setup.py requires')
  return problems


class ImportsTest(test_case.TestCase):
  @parameterized.named_parameters((rule.__name__, rule) for rule in RULES)
  def test_tree_obeys(self, rule):
    found = {
      path: problems
      for path in source_files(*PACKAGES)
      if (problems := rule(path, (ROOT / path).read_text()))
    }
    self.assertEmpty(found)

  def test_tests_import_modules(self):
    found = {
      path: problems
      for path in source_files('tests')
      if (problems := names_instead_of_modules(path, (ROOT / path).read_text()))
    }
    self.assertEmpty(found)

  @parameterized.parameters(*VIOLATIONS)
  def test_violation_is_found(self, rule, path, source):
    self.assertLen(rule(path, source), 1)

  def test_every_import_is_declared_by_setup_py(self):
    requirements = declared_requirements()
    providers = importlib.metadata.packages_distributions()
    product = set().union(*(names for extra, names in requirements.items() if extra != 'dev'))
    found = {}
    for path in source_files(*PACKAGES, 'tests'):
      is_for_tests = path.startswith('tests/') or '/testing/' in path
      allowed = product | (set(requirements['dev']) if is_for_tests else set())
      if problems := undeclared((ROOT / path).read_text(), allowed, providers):
        found[path] = problems
    self.assertEmpty(found)

  def test_undeclared_import_is_found(self):
    source = 'import os\nimport numpy.linalg\nimport scipy\nimport nowhere_to_be_found'
    problems = undeclared(source, {'numpy'}, {'numpy': ['numpy'], 'scipy': ['scipy']})
    self.assertLen(problems, 2)

  def test_linter_knows_every_package(self):
    settings = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['importlinter']
    present = [name for name in PACKAGES if (ROOT / name / '__init__.py').is_file()]
    self.assertCountEqual(present, settings['root_packages'])


if __name__ == '__main__':
  absltest.main()
