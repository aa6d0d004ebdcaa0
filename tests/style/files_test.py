"""Rules for files as such: length, names, places, and how a test file ends."""

import ast
import pathlib
import re

from absl.testing import absltest, parameterized

from pearl_tf.testing import test_case

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ('pearl_tf', 'trainers', 'serving')
MAX_LINES = 450
# A name that says nothing about its content collects what belongs elsewhere.
BANNED_NAMES = frozenset({'common', 'helper', 'helpers', 'misc', 'util', 'utils'})
TEXT_SUFFIXES = frozenset({'.py', '.gin', '.toml', '.txt', '.md', '.yaml', '.bzl', ''})
# Folders of one developer's machine have no place in files for everybody.
MACHINE_PATH = re.compile(r'(?<![\w.}])/(?:work|root)/\w')


def python_files(*folders: str) -> list[pathlib.PurePath]:
  """Returns the Python files of some top-level folders, relative to the root."""
  files = (path for folder in folders for path in (ROOT / folder).rglob('*.py'))
  return sorted(path.relative_to(ROOT) for path in files)


def text_files() -> list[pathlib.Path]:
  """Returns every file of ours that people read, generated and hidden folders left out."""
  top = [path for path in ROOT.iterdir() if path.is_file()]
  folders = (*SOURCES, 'tests', 'docs', '.ci')
  nested = (path for folder in folders for path in (ROOT / folder).rglob('*') if path.is_file())
  return [path for path in (*top, *nested) if path.suffix in TEXT_SUFFIXES]


def is_main_guard(node: ast.stmt) -> bool:
  """Tells whether a statement is exactly `if __name__ == '__main__': absltest.main()`."""
  return ast.unparse(node) == "if __name__ == '__main__':\n    absltest.main()"


def classes_with_tests(tree: ast.Module) -> list[ast.ClassDef]:
  """Returns the classes of a test file that hold tests."""
  return [
    node
    for node in tree.body
    if isinstance(node, ast.ClassDef)
    and any(
      isinstance(item, ast.FunctionDef) and item.name.startswith('test') for item in node.body
    )
  ]


def problems_of_test_file(path: pathlib.PurePath, source: str) -> list[str]:
  """Finds what keeps a test file from running alike by python, pytest and bazel."""
  problems = []
  if len(path.parts) not in (3, 4):
    problems.append('tests live in tests/<layer>/<module>_test.py, or a package of the layer in it')
  tree = ast.parse(source)
  if not tree.body or not is_main_guard(tree.body[-1]):
    problems.append('must end in the absltest.main() guard, or bazel runs no test in it')
  if not classes_with_tests(tree):
    problems.append('holds no test')
  for node in classes_with_tests(tree):
    if any(
      ast.unparse(base).endswith(('absltest.TestCase', 'unittest.TestCase', 'tf.test.TestCase'))
      for base in node.bases
    ):
      problems.append(f'{node.name} must derive from pearl_tf.testing.test_case.TestCase')
  return problems


GOOD_TEST = """
class A(test_case.TestCase):
  def test_a(self):
    pass

if __name__ == '__main__':
  absltest.main()
"""


class FilesTest(test_case.TestCase):
  def test_modules_are_short(self):
    lengths = {
      path.as_posix(): len((ROOT / path).read_text().splitlines())
      for path in python_files(*SOURCES, 'tests')
    }
    self.assertEmpty({path: lines for path, lines in lengths.items() if lines > MAX_LINES})

  def test_names_say_something(self):
    names = python_files(*SOURCES, 'tests')
    banned = [
      path.as_posix()
      for path in names
      if BANNED_NAMES & {part.removesuffix('.py').removesuffix('_test') for part in path.parts}
    ]
    self.assertEmpty(banned)

  def test_every_source_folder_is_a_package(self):
    folders = {path.parent for path in python_files(*SOURCES)}
    missing = [f.as_posix() for f in folders if not (ROOT / f / '__init__.py').is_file()]
    self.assertEmpty(missing)

  def test_tests_are_no_packages(self):
    # A package, or a folder named like ours, would shadow the library when a test runs as a script.
    packages = [p.as_posix() for p in python_files('tests') if p.name == '__init__.py']
    conftests = [p.as_posix() for p in python_files('tests') if p.name == 'conftest.py']
    folders = [path.name for path in (ROOT / 'tests').iterdir() if path.name in SOURCES[:1]]
    self.assertEmpty(packages + conftests + folders)

  def test_test_files_run_everywhere(self):
    found = {
      path.as_posix(): problems
      for path in python_files('tests')
      if path.name.endswith('_test.py')
      and (problems := problems_of_test_file(path, (ROOT / path).read_text()))
    }
    self.assertEmpty(found)

  @parameterized.named_parameters(
    ('good', 'tests/data/a_test.py', GOOD_TEST, 0),
    ('misplaced', 'tests/a_test.py', GOOD_TEST, 1),
    ('no_main', 'tests/data/a_test.py', GOOD_TEST.partition('if __name__')[0], 1),
    ('other_base', 'tests/data/a_test.py', GOOD_TEST.replace('test_case.', 'absltest.'), 1),
    ('no_test', 'tests/data/a_test.py', GOOD_TEST.replace('test_a', 'check_a'), 1),
  )
  def test_problems_of_a_test_file_are_found(self, path, source, expected):
    self.assertLen(problems_of_test_file(pathlib.PurePath(path), source), expected)

  def test_the_readme_maps_every_folder(self):
    mapped = re.findall(r'^\| `([a-z_/]+)` \|', (ROOT / 'README.md').read_text(), re.MULTILINE)
    inner = [
      path.relative_to(ROOT).as_posix()
      for path in (ROOT / 'pearl_tf').iterdir()
      if path.is_dir() and path.name != '__pycache__'
    ]
    self.assertCountEqual(mapped, [*inner, *SOURCES[1:], 'tests'])

  def test_no_machine_paths(self):
    found = {}
    for path in text_files():
      if match := MACHINE_PATH.search(path.read_text(encoding='utf-8')):
        found[path.relative_to(ROOT).as_posix()] = match.group()
    self.assertEmpty(found)

  @parameterized.parameters(('open("/%s/main/x")', True), ('https://a.org/%s/x', False))
  def test_machine_path_is_found(self, template, expected):
    self.assertEqual(MACHINE_PATH.search(template % 'work') is not None, expected)

  def test_ci_script_is_executable(self):
    script = ROOT / '.ci' / 'run'
    self.assertTrue(script.stat().st_mode & 0o111, f'type: chmod +x {script}')
    self.assertIn('make test', script.read_text().splitlines()[-1])


if __name__ == '__main__':
  absltest.main()
