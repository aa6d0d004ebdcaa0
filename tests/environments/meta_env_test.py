"""The contract of a family: task lists, setting a task, refusals."""

import gymnasium
import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.data import types
from pearl_tf.environments import gymnasium_adapter, meta_env
from pearl_tf.testing import test_case


class _Family(meta_env.MetaEnv):
  observation_space = action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
  parameter_names = ('low', 'high')
  default_parameters = (0.25, 0.75)

  def __init__(self):
    self.applied = []

  def sample_parameters(self, num_tasks, random_state):
    return random_state.uniform(size=(num_tasks, 2))

  def apply_task(self, parameters):
    self.applied.append(parameters)


class _Fixed(_Family):
  fixed_task_count = 2


class _WrongShape(_Family):
  def sample_parameters(self, num_tasks, random_state):
    return random_state.uniform(size=num_tasks)


class MetaEnvTest(test_case.TestCase):
  def test_a_list_depends_on_number_and_seed_only(self):
    env = _Family()
    first = env.sample_tasks(5, 3)
    np.random.seed(99)
    env.set_task(first[4])
    second = _Family().sample_tasks(5, seed=3)
    self.assertEqual([task.index for task in first], [0, 1, 2, 3, 4])
    for one, other in zip(first, second, strict=True):
      self.assertEqual(one.parameters.dtype, np.float32)
      np.testing.assert_array_equal(one.parameters, other.parameters)
    other_seed = env.sample_tasks(5, 4)
    self.assertNotAllClose(first[0].parameters, other_seed[0].parameters)

  def test_sampling_leaves_the_global_stream_and_the_task_alone(self):
    env = _Family()
    env.set_task(types.Task(7, np.array([0.1, 0.2], np.float32)))
    before = np.random.get_state()[1].copy()
    env.sample_tasks(10, 0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    self.assertEqual(env.task.index, 7)

  def test_without_a_task_the_default_is_in_force(self):
    env = _Family()
    self.assertEqual(env.task.index, meta_env.DEFAULT_TASK_INDEX)
    np.testing.assert_array_equal(env.task.parameters, np.array([0.25, 0.75], np.float32))
    self.assertEmpty(env.applied)

  def test_set_task_keeps_a_copy(self):
    env = _Family()
    parameters = np.array([0.1, 0.2], np.float32)
    env.set_task(types.Task(3, parameters))
    parameters[:] = 9.0
    np.testing.assert_array_equal(env.task.parameters, np.array([0.1, 0.2], np.float32))
    np.testing.assert_array_equal(env.applied[0], np.array([0.1, 0.2], np.float32))

  @parameterized.parameters(0, -3)
  def test_refuses_to_sample_no_tasks(self, num_tasks):
    with self.assertRaisesRegex(ValueError, f'at least 1, got {num_tasks}'):
      _Family().sample_tasks(num_tasks, 0)

  @parameterized.parameters(-1, 2**32)
  def test_refuses_a_seed_out_of_range(self, seed):
    with self.assertRaisesRegex(ValueError, f'got {seed}'):
      _Family().sample_tasks(1, seed)

  def test_a_fixed_list_has_an_end(self):
    self.assertLen(_Fixed().sample_tasks(2, 0), 2)
    with self.assertRaisesRegex(ValueError, 'fixed list of 2 tasks.*num_tasks is 3'):
      _Fixed().sample_tasks(3, 0)

  def test_parameters_of_a_wrong_shape_are_named(self):
    with self.assertRaisesRegex(ValueError, r'shape \(4,\); expected .*\(4, 2\)'):
      _WrongShape().sample_tasks(4, 0)

  def test_refuses_what_is_no_task(self):
    with self.assertRaisesRegex(TypeError, 'got int'):
      _Family().set_task(3)

  def test_refuses_a_task_of_another_family(self):
    env = _Family()
    with self.assertRaisesRegex(ValueError, r'2 task parameters \(low, high\), got shape \(3,\)'):
      env.set_task(types.Task(0, np.zeros(3, np.float32)))
    self.assertEqual(env.task.index, meta_env.DEFAULT_TASK_INDEX)

  def test_refuses_a_task_that_is_not_finite(self):
    with self.assertRaisesRegex(ValueError, 'not finite'):
      _Family().set_task(types.Task(0, np.array([0.0, np.nan], np.float32)))

  def test_a_family_must_draw_its_tasks(self):
    with self.assertRaisesRegex(NotImplementedError, 'sample_parameters or override'):
      meta_env.MetaEnv().sample_tasks(1, 0)


def _tasks(*parameters):
  return [types.Task(index, row) for index, row in enumerate(parameters)]


class ListTest(test_case.TestCase):
  def _sample(self, returned):
    env = _Family()
    env.sample_tasks = lambda num_tasks, seed: returned
    env.sample_tasks.__qualname__ = 'Other.sample_tasks'
    return meta_env.sample_tasks(env, 2, 0)

  @parameterized.parameters(
    (_tasks([1, 2], (3, 4)),), (tuple(_tasks(np.array([1.0, 2.0]), np.array([3, 4]))),)
  )
  def test_parameters_become_float32(self, returned):
    tasks = self._sample(returned)
    self.assertAllEqual([task.parameters for task in tasks], [[1, 2], [3, 4]])
    self.assertEqual({task.parameters.dtype for task in tasks}, {np.dtype(np.float32)})

  @parameterized.parameters(
    ([{'goal': 0.5}, {'goal': 1.0}], "returned {'goal': 0.5} at position 0, expected a list of 2"),
    ([0.5, 1.0], 'returned 0.5 at position 0, expected a list of 2 pearl_tf.data.types.Task'),
    (iter(_tasks([1], [2])), 'returned <list_iterator .*, expected a list of 2'),
    ({'goal': 0.5}, "returned {'goal': 0.5}, expected a list of 2"),
    (None, 'returned None, expected a list of 2'),
    (_tasks([1]), 'returned 1 tasks, expected a list of 2'),
    (_tasks([1])[:1] * 2, 'index 0 at position 1; number them'),
    (_tasks([1], 'left'), "the parameters of Task.index=1, parameters='left'. are no numbers"),
    (_tasks([1], [1, 2]), 'must be a vector of finite numbers, as long in all tasks'),
    (_tasks([[1]], [[1]]), 'must be a vector of finite numbers'),
    (_tasks([1], [np.nan]), 'must be a vector of finite numbers'),
  )
  def test_refuses_what_is_no_list_of_tasks(self, returned, message):
    with self.assertRaisesRegex((TypeError, ValueError), f'^Other.sample_tasks.*{message}'):
      self._sample(returned)


class _Plain(gymnasium.Env):
  """Knows no tasks."""

  observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
  action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
  goal = 0.0

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    return np.zeros(1, np.float32), {}

  def step(self, action):
    return np.zeros(1, np.float32), self.goal, False, False, {'sparse_reward': 7.0}


class _Tasks(gymnasium.Wrapper):
  """Adds them."""

  has_sparse_reward = True

  def sample_tasks(self, num_tasks, seed):
    return [types.Task(index, [float(index)]) for index in range(num_tasks)]

  def set_task(self, task):
    self.env.unwrapped.goal = float(task.parameters[0])

  def describe_task(self, task):
    return f'goal {task.parameters[0]:.0f}'


class WrapperTest(test_case.TestCase):
  def test_may_know_the_tasks(self):
    env = gymnasium.wrappers.TimeLimit(_Tasks(_Plain()), 9)
    adapter = gymnasium_adapter.GymnasiumAdapter(env, max_episode_steps=2, seed=0)
    task = adapter.sample_tasks(4, 0)[3]
    adapter.set_task(task)
    adapter.reset()
    self.assertEqual(float(adapter.step(np.zeros(1, np.float32)).reward), 3.0)
    self.assertEqual(adapter.last_step.context_reward, 7.0)
    self.assertEqual((adapter.describe_task(task), adapter.name), ('goal 3', '_Plain'))

  def test_the_outermost_one_that_has_a_method_is_asked(self):
    class Renumbered(gymnasium.Wrapper):
      def sample_tasks(self, num_tasks, seed):
        return self.env.sample_tasks(num_tasks + 1, seed)[:num_tasks]

    adapter = gymnasium_adapter.GymnasiumAdapter(Renumbered(_Family()))
    self.assertLen(adapter.sample_tasks(2, 0), 2)
    adapter.set_task(types.Task(4, np.zeros(2, np.float32)))
    self.assertEqual(adapter.gymnasium_env.unwrapped.task.index, 4)


if __name__ == '__main__':
  absltest.main()
