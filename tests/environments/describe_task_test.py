"""Every family says in words what a task asks for."""

import math

import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf import environments
from pearl_tf.data import types
from pearl_tf.environments import meta_env, registry
from pearl_tf.testing import test_case


def describe(env, *parameters):
  return env.unwrapped.describe_task(types.Task(3, np.array(parameters, np.float32)))


class Line(meta_env.MetaEnv):
  """A family that says nothing of its tasks."""

  parameter_names = ('goal',)
  default_parameters = (0.5,)

  def sample_parameters(self, num_tasks, random_state):
    return random_state.uniform(-1.0, 1.0, size=(num_tasks, 1))


class DescribeTaskTest(test_case.TestCase):
  @parameterized.parameters(
    ('PointRobot', (0.31, -0.2), 'goal at (0.31, -0.20)'),
    ('SparsePointRobot', (0.0, 1.0), 'goal at (0.00, 1.00)'),
    ('HalfCheetahVel', (1.416,), 'target velocity 1.42 m/s'),
    ('HalfCheetahDir', (-1.0,), 'run backwards'),
    ('HalfCheetahDir', (1.0,), 'run forwards'),
    ('AntDir', (0.0,), 'run forwards'),
    ('AntDir', (math.pi,), 'run backwards'),
    ('AntRandDir', (math.pi / 2,), 'run at 90° to the x axis'),
    ('AntGoal', (1.5, -2.25), 'go to x = 1.50 m, y = -2.25 m'),
    ('HumanoidDir', (math.pi / 3,), 'run at 60° to the x axis'),
  )
  def test_in_the_words_of_the_family(self, family, parameters, expected):
    self.assertEqual(describe(registry.make(f'pearl/{family}-v0'), *parameters), expected)

  @parameterized.parameters('Walker2dRandParams', 'HopperRandParams')
  def test_dynamics_are_described_by_their_typical_multipliers(self, family):
    env = registry.make(f'pearl/{family}-v0').unwrapped
    parameters = np.ones(env.num_parameters)
    num_bodies = env.model.nbody
    parameters[:num_bodies] = np.resize([1.0, 4.0], num_bodies)
    mass = 4.0 ** ((num_bodies // 2) / num_bodies)
    self.assertEqual(
      describe(env, *parameters),
      f'dynamics, typically mass ×{mass:.2f}, inertia ×1.00, damping ×1.00, friction ×1.00',
    )
    self.assertEqual(env.task.index, -1)  # Describing a task does not set it.

  @parameterized.parameters(*sorted(environments.FAMILIES))
  def test_every_family_describes_its_own_tasks(self, name):
    env = registry.make(name).unwrapped
    tasks = env.sample_tasks(2, seed=0)
    words = [env.describe_task(task) for task in tasks]
    self.assertLen(set(words), 2, words)

  def test_names_and_values_where_a_family_says_nothing(self):
    self.assertEqual(describe(Line(), 0.256), 'goal 0.26')

  def test_the_index_where_parameters_have_no_names(self):
    env = Line()
    env.parameter_names = ()
    self.assertEqual(describe(env, 0.256), 'task 3')


if __name__ == '__main__':
  absltest.main()
