"""A value that cannot be used is named with its parameter's full name, whichever it is."""

import inspect
import pathlib
import re
import typing

import gin
from absl.testing import absltest, parameterized

from pearl_tf.experiment import bound, config, local_loop, values
from pearl_tf.testing import small_run, test_case

_CONFIGURABLE = re.compile(r'^@gin\..*\n(?:@.*\n)*(?:class|def) (\w+)', re.MULTILINE)
WRONG = ("'0.99'", '1e999', 'True', '(1, 2)', 'None')


def numbers() -> list[tuple[str, str, str, bool]]:
  """Returns every number that gin may bind: configurable, parameter, its type, may it be None."""
  found = []
  for path in sorted((small_run.ROOT / 'pearl_tf').rglob('*.py')):
    for name in _CONFIGURABLE.findall(path.read_text()):
      known = gin.config.ConfigurableReference(name, False).configurable
      target = known.wrapped.__init__ if inspect.isclass(known.wrapped) else known.wrapped
      hints = typing.get_type_hints(inspect.unwrap(target))
      for parameter, hint in hints.items():
        may_bind = (not known.allowlist or parameter in known.allowlist) and (
          parameter not in (known.denylist or ())
        )
        kinds = [hint, *typing.get_args(hint)]
        if may_bind and (int in kinds or float in kinds):
          found.append((name, parameter, hint, type(None) in kinds))
  return found


class ValuesTest(test_case.TestCase):
  def test_every_number_of_every_configurable(self):
    config.load([])
    checked = numbers()
    self.assertGreater(len(checked), 50)
    for name, parameter, hint, may_be_none in checked:
      for value in WRONG:
        if (value == 'None' and may_be_none) or (value == '(1, 2)' and 'Sequence' in str(hint)):
          continue
        with self.subTest(parameter=f'{name}.{parameter}', value=value):
          config.load([], [f'{name}.{parameter} = {value}'])
          target = gin.config.ConfigurableReference(name, False).configurable.wrapped
          with self.assertRaises(config.ConfigError) as caught:
            bound.Resolver().bind(target)
          (line,) = str(caught.exception).splitlines()
          self.assertStartsWith(line, f'{name}.{parameter} must be ')
          self.assertEndsWith(line, f', got {value.replace("1e999", "inf")}')

  @parameterized.parameters(
    ("PearlAgent.encoder_class = 'GaussianEncoder'", 'a class or function of gin, @Name'),
    ('GaussianEncoder.hidden_units = (8, 8.5)', 'a tuple, each entry an integer'),
    ('GaussianEncoder.use_next_observation = 1', 'True or False, got 1'),
    ('MetaTest.context_size = 1.5', 'an integer or None, got 1.5'),
    ('PearlAgent.actor_learning_rate = 0.0', 'PearlAgent.actor_learning_rate must be positive'),
    ('LatentActor.hidden_units = (8, 0)', r'LatentActor.hidden_units must be positive.*\(8, 0\)'),
    ('sample_task_split.seed = -1', r'sample_task_split.seed must be None or in \[0, \d+\], got'),
    ('make.colour = 3', 'remove registry.make.colour'),
  )
  def test_other_values(self, binding, message):
    with self.assertRaisesRegex(config.ConfigError, message) as caught:
      local_loop.train(
        self.temp_dir() / 'run', gin_files=[small_run.GIN_FILE], gin_bindings=[binding]
      )
    self.assertLen(str(caught.exception).splitlines(), 1)

  def test_what_is_not_annotated_may_be_anything(self):
    def target(first, second: pathlib.Path = None):
      del first, second

    values.check('target', target, {'first': 'x', 'second': 3})


if __name__ == '__main__':
  absltest.main()
