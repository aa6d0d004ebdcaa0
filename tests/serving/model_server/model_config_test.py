import dataclasses
import pathlib

import grpc
from absl.testing import absltest, parameterized

from pearl_tf.testing import test_case
from serving import errors
from serving.model_server import model_config


def text(*models: str) -> str:
  return f'model_config_list {{ {" ".join(f"config {{ {model} }}" for model in models)} }}'


PEARL = 'name: "pearl" base_path: "/models/pearl" model_platform: "tensorflow"'


class ModelConfigTest(test_case.TestCase):
  def test_reads_name_and_path(self):
    (model,) = model_config.from_text(text(PEARL))
    expected = model_config.ModelConfig('pearl', pathlib.Path('/models/pearl'))
    self.assertEqual(model, expected)
    # A client that pins a version for an episode finds it after a hot reload.
    (single,) = model_config.single('pearl', '/models/pearl')
    self.assertEqual(single, dataclasses.replace(expected, policy=model_config.Latest(2)))

  def test_base_paths_of_a_file_may_be_relative_to_it(self):
    relative = text(PEARL.replace('/models/pearl', 'pearl'))
    (model,) = model_config.from_text(relative, pathlib.Path('/exports/demo'))
    self.assertEqual(model.base_path, pathlib.Path('/exports/demo/pearl'))
    (model,) = model_config.from_text(text(PEARL), pathlib.Path('/exports/demo'))
    self.assertEqual(model.base_path, pathlib.Path('/models/pearl'))

  @parameterized.parameters(
    ('', model_config.Latest(1)),
    ('model_version_policy { latest {} }', model_config.Latest(1)),
    ('model_version_policy { latest { num_versions: 2 } }', model_config.Latest(2)),
    ('model_version_policy { all {} }', model_config.All()),
    (
      'model_version_policy { specific { versions: 3 versions: 1 } }',
      model_config.Specific(frozenset({1, 3})),
    ),
  )
  def test_reads_policy(self, policy, expected):
    (model,) = model_config.from_text(text(f'{PEARL} {policy}'))
    self.assertEqual(model.policy, expected)

  def test_reads_labels(self):
    (model,) = model_config.from_text(text(f'{PEARL} version_labels {{ key: "stable" value: 3 }}'))
    self.assertEqual(model.labels, {'stable': 3})

  def test_takes_the_old_way_to_say_tensorflow(self):
    (model,) = model_config.from_text(
      text('name: "pearl" base_path: "/models/pearl" model_type: TENSORFLOW')
    )
    self.assertEqual(model.name, 'pearl')

  @parameterized.named_parameters(
    ('no_text_format', 'model_config_list {', 'ModelServerConfig'),
    ('empty', '', 'ServerModelConfig type not supported by HandleReloadConfigRequest'),
    ('no_model', 'model_config_list {}', 'name at least one model'),
    ('custom', 'custom_model_config {}', 'Only ModelConfigList is currently supported'),
    ('twice', text(PEARL, PEARL), 'Illegal to list model pearl multiple times in config list'),
    ('nameless', text('base_path: "/m" model_platform: "tensorflow"'), 'needs a name'),
    (
      'relative',
      text('name: "a" base_path: "m" model_platform: "tensorflow"'),
      r'Expected model a to have an absolute path or URI; got base_path\(\)=m',
    ),
    (
      'parent',
      text('name: "a" base_path: "/m/../etc" model_platform: "tensorflow"'),
      'must not hold ".."',
    ),
    ('other_platform', text('name: "a" base_path: "/m" model_platform: "torch"'), 'torch'),
    ('no_platform', text('name: "a" base_path: "/m"'), 'model_platform "tensorflow"'),
    (
      'specific_nothing',
      text(f'{PEARL} model_version_policy {{ specific {{}} }}'),
      'at least one version',
    ),
  )
  def test_refuses(self, config, message):
    with self.assertRaisesRegex(errors.ServingError, message) as caught:
      model_config.from_text(config)
    self.assertIs(caught.exception.code, grpc.StatusCode.INVALID_ARGUMENT)

  def test_confines_to_a_root(self):
    root = self.temp_dir()
    model_config.check_within(model_config.single('a', root / 'a'), root)
    (root / 'link').symlink_to('/')
    for path in (pathlib.Path('/etc'), root / 'link' / 'etc', root.parent):
      with self.assertRaisesRegex(errors.ServingError, 'must lie in') as caught:
        model_config.check_within(model_config.single('a', path), root)
      self.assertIs(caught.exception.code, grpc.StatusCode.PERMISSION_DENIED)


if __name__ == '__main__':
  absltest.main()
