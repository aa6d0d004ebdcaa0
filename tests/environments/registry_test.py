"""Names of families: ids, a user's own class, and what the messages say of anything else."""

import importlib
import pathlib
import sys
import tempfile
import textwrap

import gin
import gymnasium
from absl.testing import absltest, parameterized

from pearl_tf.environments import half_cheetah, point_robot, registry
from pearl_tf.testing import test_case

_OWN = textwrap.dedent("""
  import gymnasium
  import numpy as np
  from pearl_tf.environments import meta_env

  class Line(meta_env.MetaEnv):
    parameter_names = ('goal',)
    default_parameters = (0.5,)
    observation_space = gymnasium.spaces.Box(-9.0, 9.0, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, speed=1.0, render_mode=None):
      self.speed = speed

    def sample_parameters(self, num_tasks, random_state):
      return random_state.uniform(size=(num_tasks, 1))

  class Plain(gymnasium.Env):
    pass

  class Half(gymnasium.Env):
    def set_task(self, task):
      pass

  class Noisy(gymnasium.Wrapper):
    def __init__(self):
      super().__init__(Line())

  class Tasks(Half, gymnasium.Wrapper):
    def __init__(self):
      gymnasium.Wrapper.__init__(self, Plain())

    def sample_tasks(self, num_tasks, seed):
      return list(range(num_tasks))

  def make_line(**kwargs):
    return Line(**kwargs)

  def make_nonsense():
    return 7

  NUMBER = 3
  if 'own/Line-v0' not in gymnasium.registry:
    gymnasium.register(id='Line-v0', entry_point=Line)
    gymnasium.register(id='LimitedLine-v0', entry_point=Line, max_episode_steps=5)
    gymnasium.register(id='PlainLine-v0', entry_point=Plain)
""")


class RegistryTest(test_case.TestCase):
  def _write_own(self, text=_OWN):
    folder = self.enter_context(tempfile.TemporaryDirectory())
    (pathlib.Path(folder) / 'own_family.py').write_text(text)
    sys.path.insert(0, folder)
    self.addCleanup(sys.path.remove, folder)
    importlib.invalidate_caches()
    self.addCleanup(sys.modules.pop, 'own_family', None)
    for env_id in ('Line-v0', 'LimitedLine-v0', 'PlainLine-v0'):
      self.addCleanup(gymnasium.registry.pop, env_id, None)

  def test_an_id_of_ours_gives_the_bare_environment(self):
    env = registry.make('pearl/HalfCheetahVel-v0')
    self.assertIs(type(env), half_cheetah.HalfCheetahVel)
    self.assertEqual(env.spec.id, 'pearl/HalfCheetahVel-v0')

  def test_arguments_reach_the_constructor(self):
    env = registry.make('pearl/SparsePointRobot-v0', goal_radius=0.8, render_mode='rgb_array')
    self.assertIs(type(env), point_robot.SparsePointRobot)
    self.assertEqual(env.render_mode, 'rgb_array')

  def test_one_line_of_gin_names_the_family(self):
    gin.parse_config("registry.make.name = 'pearl/PointRobot-v0'")
    self.assertIs(type(registry.make()), point_robot.PointRobot)

  def test_without_a_name_gin_says_so(self):
    with self.assertRaisesRegex(RuntimeError, 'name'):
      registry.make()

  def test_a_class_of_the_user_needs_no_registration(self):
    self._write_own()
    gin.parse_config("""
      registry.make.name = 'own_family:Line'
      registry.make.speed = 2.0
    """)
    env = registry.make()
    self.assertEqual(env.speed, 2.0)
    self.assertLen(env.sample_tasks(3, 0), 3)

  @parameterized.parameters('own_family:make_line', 'own_family:Line-v0')
  def test_other_forms_of_the_user_s_name(self, name):
    self._write_own()
    env = registry.make(name, speed=3.0)
    self.assertEqual((type(env).__name__, env.speed), ('Line', 3.0))

  def test_wrappers_of_a_registration_are_kept(self):
    self._write_own()
    env = registry.make('own_family:LimitedLine-v0')
    self.assertIsInstance(env, gymnasium.wrappers.TimeLimit)
    self.assertLen(env.unwrapped.sample_tasks(3, 0), 3)

  def test_an_unknown_id_gets_help(self):
    with self.assertRaises(ValueError) as raised:
      registry.make('pearl/HalfCheetaVel-v0')
    message = str(raised.exception)
    self.assertIn("'pearl/HalfCheetaVel-v0'", message)
    self.assertIn("Did you mean 'pearl/HalfCheetahVel-v0'", message)
    self.assertIn('pearl/HopperRandParams-v0', message)
    self.assertIn("'module:Class'", message)

  def test_a_name_like_nothing_gets_the_list(self):
    with self.assertRaisesRegex(ValueError, "'xyzzy'. Known: pearl/AntDir-v0, "):
      registry.make('xyzzy')

  def test_a_wrapper_may_be_around_a_family_or_make_one(self):
    self._write_own()
    self.assertLen(registry.make('own_family:Noisy').get_wrapper_attr('sample_tasks')(3, 0), 3)
    self.assertEqual(registry.make('own_family:Tasks').sample_tasks(3, 0), [0, 1, 2])

  @parameterized.parameters('', '  ', None, 3)
  def test_a_name_must_be_a_text(self, name):
    with self.assertRaisesRegex(ValueError, 'must be a text'):
      registry.make(name)

  def test_a_module_that_does_not_exist(self):
    with self.assertRaisesRegex(ValueError, "no module 'no_such.module' to import.*PYTHONPATH"):
      registry.make('no_such.module:Family')

  def test_a_module_that_fails_to_import_says_why(self):
    self._write_own('import no_such_dependency\n')
    with self.assertRaisesRegex(ModuleNotFoundError, 'no_such_dependency'):
      registry.make('own_family:Line')

  def test_a_class_that_does_not_exist(self):
    self._write_own()
    with self.assertRaisesRegex(ValueError, "no class 'Lime'.*Did you mean 'Line'"):
      registry.make('own_family:Lime')

  @parameterized.parameters(
    ('own_family:Plain', 'lacks sample_tasks and set_task'),
    ('own_family:PlainLine-v0', 'lacks sample_tasks and set_task'),
    ('own_family:Half', 'lacks sample_tasks. Derive'),
    ('own_family:make_nonsense', 'made a int, which is no gymnasium.Env'),
    ('own_family:NUMBER', 'must name a class, it names 3'),
  )
  def test_what_is_no_family(self, name, message):
    self._write_own()
    with self.assertRaisesRegex(TypeError, message):
      registry.make(name)

  def test_an_environment_of_gymnasium_has_no_tasks(self):
    with self.assertRaisesRegex(TypeError, "'CartPole-v1' is not a family.*lacks sample_tasks"):
      registry.make('CartPole-v1')


if __name__ == '__main__':
  absltest.main()
