"""Every gin binding that documentation, docstrings and messages mention can be bound."""

import io
import pathlib
import re
import tokenize

import gin
from absl.testing import absltest

from pearl_tf.experiment import config
from pearl_tf.testing import small_run, test_case

_BINDING = re.compile(
  r"""(?<![\w./'])((?:[a-z_]\w*[./])*(?:[A-Z]\w+|make|make_tables|sample_task_split|set_\w+))"""
  r"""\.([a-z_]\w*)(?:\ =\ (@[\w./]+|'[^'\n]*'|\([^()\n]*\)|-?\d[\w.]*|None|True|False))?"""
)


def words(path: pathlib.Path) -> str:
  """Returns the text of a document, or the strings and comments of a source file."""
  if path.suffix == '.md':
    return path.read_text()
  tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
  return '\n'.join(t.string for t in tokens if t.type in (tokenize.STRING, tokenize.COMMENT))


def mentioned() -> dict[tuple[str, str, str | None], pathlib.Path]:
  """Returns name, argument and value, None for a mention without one, and where it stands."""
  found = {}
  for folder, pattern in (
    ('.', '*.md'),
    ('docs', '*.md'),
    ('pearl_tf', '**/*.py'),
    ('trainers', '**/*.py'),
    ('serving', '**/*.py'),
  ):
    for path in (small_run.ROOT / folder).glob(pattern):
      # They bring classes of their own, and have tests of their own.
      if path.name in ('extending.md', 'adding_a_method.md'):
        continue
      found |= {match.groups(): path for match in _BINDING.finditer(words(path))}
  return found


class DocumentedBindingsTest(test_case.TestCase):
  def test_each_can_be_bound(self):
    config.load([])
    checked = []
    for (name, argument, value), path in mentioned().items():
      if value is None:
        # Perhaps an attribute of a class, or no configurable at all.
        try:
          target = gin.get_configurable(name)
        except ValueError:
          continue
        if hasattr(target, argument) and not hasattr(target, '__dataclass_fields__'):
          continue
      checked.append(f'{name}.{argument}')
      with self.subTest(binding=checked[-1], path=path.name):
        config.load([], [f'{name}.{argument} = {value}'])
    self.assertContainsSubset(
      ['MujocoMetaEnv.legacy_masses', 'RandParams.log_scale_limit', 'ValueTarget.value_class'],
      checked,
    )
    self.assertGreater(len(checked), 40)


if __name__ == '__main__':
  absltest.main()
