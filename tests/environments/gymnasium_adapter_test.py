"""The adapter: scaling, ends of episodes, seeds, and faults that name environment and task."""

import time

import gymnasium
import numpy as np
from absl.testing import absltest, parameterized
from tf_agents.trajectories import time_step as ts

from pearl_tf.data import types
from pearl_tf.environments import gymnasium_adapter, meta_env, point_robot, tolerance
from pearl_tf.testing import test_case

_TASK = types.Task(4, np.array([0.25], np.float32))


class _Fake(meta_env.MetaEnv):
  """Counts its steps; returns what a test tells it to."""

  parameter_names = ('goal',)
  default_parameters = (0.0,)

  def __init__(self, low=(-1.0, -1.0), high=(1.0, 1.0), result=None, sparse=False):
    self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    self.action_space = gymnasium.spaces.Box(np.float32(low), np.float32(high), dtype=np.float32)
    self.has_sparse_reward = sparse
    self.result = result or {}
    self.actions, self.seeds, self.num_steps = [], [], 0
    self.buffer = np.zeros(3)

  def sample_parameters(self, num_tasks, random_state):
    return random_state.uniform(size=(num_tasks, 1))

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.seeds.append(seed)
    self.num_steps = 0
    self.buffer[:] = self.np_random.uniform(size=3)
    if 'reset' in self.result:
      return self.result['reset']()
    return self.buffer, {'start': True}

  def step(self, action):
    self.num_steps += 1
    self.actions.append(action)
    self.buffer += 1.0
    if 'step' in self.result:
      return self.result['step']()
    return (
      self.result.get('observation', self.buffer),
      self.result.get('reward', 0.5),
      self.result.get('terminated', False),
      self.result.get('truncated', False),
      self.result.get('info', {'n': self.num_steps}),
    )


def _raise(error):
  raise error


def _adapter(*args, max_episode_steps=None, seed=0, **kwargs):
  return gymnasium_adapter.GymnasiumAdapter(
    _Fake(*args, **kwargs), max_episode_steps=max_episode_steps, seed=seed
  )


class SpecsTest(test_case.TestCase):
  def test_specs_are_float32_and_actions_normalized(self):
    adapter = _adapter(low=(-0.4, 2.0), high=(0.4, 6.0))
    self.assertEqual(adapter.observation_spec().shape, (3,))
    self.assertEqual(adapter.observation_spec().dtype, np.float32)
    self.assertEqual(adapter.action_spec().shape, (2,))
    self.assertEqual(adapter.action_spec().dtype, np.float32)
    self.assertAllEqual(adapter.action_spec().minimum, -1.0)
    self.assertAllEqual(adapter.action_spec().maximum, 1.0)
    self.assertEqual(adapter.time_step_spec().observation, adapter.observation_spec())
    self.assertEqual(adapter.time_step_spec().reward.dtype, np.float32)

  def test_time_steps_have_the_types_of_the_specs(self):
    adapter = _adapter()
    for step in (adapter.reset(), adapter.step(np.zeros(2, np.float32))):
      self.assertEqual(step.observation.dtype, np.float32)
      for field, dtype in (('reward', np.float32), ('discount', np.float32)):
        self.assertEqual(getattr(step, field).dtype, dtype)
        self.assertEqual(getattr(step, field).shape, ())
      self.assertEqual(step.step_type.dtype, np.int32)

  def test_refuses_spaces_it_cannot_serve(self):
    env = _Fake()
    env.action_space = gymnasium.spaces.Discrete(3)
    with self.assertRaisesRegex(TypeError, 'action space of _Fake must be a Box, got Discrete'):
      gymnasium_adapter.GymnasiumAdapter(env)
    env.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    with self.assertRaisesRegex(ValueError, 'must be bounded'):
      gymnasium_adapter.GymnasiumAdapter(env)
    for bound in (np.finfo(np.float32).max, 2e38, 1e300):
      env.action_space = gymnasium.spaces.Box(-bound, bound, (2,), np.float64)
      with self.assertRaisesRegex(ValueError, 'action space of _Fake must be bounded'):
        gymnasium_adapter.GymnasiumAdapter(env)
    env.action_space = gymnasium.spaces.Box(1.0, 1.0, (2,))
    with self.assertRaisesRegex(ValueError, 'empty or a point'):
      gymnasium_adapter.GymnasiumAdapter(env)
    env.observation_space = gymnasium.spaces.Box(-1, 1, (4, 4))
    with self.assertRaisesRegex(ValueError, r'must be vectors, got shape \(4, 4\)'):
      gymnasium_adapter.GymnasiumAdapter(env)

  def test_refuses_an_environment_without_tasks(self):
    with self.assertRaisesRegex(TypeError, 'CartPole-v1 has no sample_tasks'):
      gymnasium_adapter.GymnasiumAdapter(gymnasium.make('CartPole-v1'))

  @parameterized.parameters(0, -5)
  def test_refuses_an_impossible_limit(self, limit):
    with self.assertRaisesRegex(ValueError, f'got {limit}'):
      _adapter(max_episode_steps=limit)


class ActionsTest(test_case.TestCase):
  @parameterized.parameters(
    ((-1.0, -1.0), (-0.4, 2.0)),
    ((0.0, 0.0), (0.0, 4.0)),
    ((0.5, -0.5), (0.2, 3.0)),
    ((7.0, -7.0), (0.4, 2.0)),
    ((np.inf, 1.0), (0.4, 6.0)),
  )
  def test_are_clipped_and_mapped_to_the_bounds(self, action, expected):
    adapter = _adapter(low=(-0.4, 2.0), high=(0.4, 6.0))
    adapter.reset()
    given = np.array(action, np.float32)
    adapter.step(given)
    self.assertAllClose(adapter.gymnasium_env.actions[0], expected)
    self.assertEqual(adapter.gymnasium_env.actions[0].dtype, np.float32)
    np.testing.assert_array_equal(given, np.array(action, np.float32))

  @parameterized.parameters((-1e38, 1e38), (3.2e38, 3.4e38), (-3e38, -2.9e38))
  def test_are_finite_whatever_the_bounds(self, low, high):
    adapter = _adapter(low=(low, low), high=(high, high))
    adapter.reset()
    adapter.step(np.float32([-1.0, 1.0]))
    self.assertAllClose(adapter.gymnasium_env.actions[0], np.float32([low, high]))

  def test_the_point_robot_moves_a_tenth_at_most(self):
    adapter = gymnasium_adapter.GymnasiumAdapter(point_robot.SparsePointRobot(), seed=0)
    adapter.reset()
    self.assertAllClose(adapter.step(np.float32([1.0, -3.0])).observation, [0.1, -0.1])

  def test_wrong_actions_are_not_the_environment_s_fault(self):
    adapter = _adapter()
    adapter.reset()
    with self.assertRaisesRegex(ValueError, r'_Fake takes actions of shape \(2,\), got \(3,\)'):
      adapter.step(np.zeros(3, np.float32))
    with self.assertRaisesRegex(
      gymnasium_adapter.PolicyFault, 'gave _Fake, .*not a number in step'
    ):
      adapter.step(np.array([0.0, np.nan], np.float32))


class EpisodesTest(test_case.TestCase):
  def test_the_limit_truncates_with_discount_one(self):
    adapter = _adapter(max_episode_steps=3)
    step = adapter.reset()
    self.assertEqual((int(step.step_type), float(step.reward), float(step.discount)), (0, 0, 1))
    kinds = []
    for _ in range(8):
      step = adapter.step(np.zeros(2, np.float32))
      kinds.append((int(step.step_type), float(step.discount)))
    episode = [(1, 1.0), (1, 1.0), (2, 1.0)]
    self.assertEqual(kinds, episode + [(0, 1.0)] + episode + [(0, 1.0)])

  @parameterized.parameters(True, np.True_, 1, np.array([True]), np.array([[1]]), [True])
  def test_other_types_of_truth(self, flag):
    for name, discount in (('terminated', 0.0), ('truncated', 1.0)):
      adapter = _adapter(result={name: flag})
      adapter.reset()
      step = adapter.step(np.zeros(2, np.float32))
      self.assertEqual((step.is_last(), float(step.discount)), (True, discount))

  def test_a_termination_has_discount_zero_even_at_the_limit(self):
    adapter = _adapter(max_episode_steps=1, result={'terminated': True})
    adapter.reset()
    step = adapter.step(np.zeros(2, np.float32))
    self.assertTrue(step.is_last())
    self.assertEqual(float(step.discount), 0.0)

  def test_a_truncation_by_the_environment_has_discount_one(self):
    adapter = _adapter(result={'truncated': True})
    adapter.reset()
    step = adapter.step(np.zeros(2, np.float32))
    self.assertTrue(step.is_last())
    self.assertEqual(float(step.discount), 1.0)

  def test_seeds_once(self):
    adapter = _adapter(seed=11)
    for _ in range(3):
      adapter.reset()
    self.assertEqual(adapter.gymnasium_env.seeds, [11, None, None])

  def test_setting_a_task_abandons_the_episode(self):
    adapter = _adapter()
    adapter.reset()
    adapter.step(np.zeros(2, np.float32))
    adapter.set_task(_TASK)
    self.assertEqual(adapter.task, _TASK)
    self.assertEqual(adapter.gymnasium_env.task.index, 4)
    self.assertTrue(adapter.step(np.zeros(2, np.float32)).is_first())

  def test_an_episode_succeeds_once_any_of_its_steps_does(self):
    result = {'info': {'success': 0.0}}
    adapter = _adapter(result=result)
    adapter.reset()
    self.assertIsNone(adapter.last_step.success)
    for value, expected in ((0.0, 0.0), (np.True_, 1.0), (0, 1.0)):
      result['info'] = {'success': value}
      adapter.step(np.zeros(2, np.float32))
      self.assertEqual(adapter.last_step.success, expected)
    adapter.reset()
    self.assertIsNone(adapter.last_step.success)
    result['info'] = {'success': 'soon'}
    with self.assertRaisesRegex(gymnasium_adapter.EnvironmentFault, "the success is 'soon'"):
      adapter.step(np.zeros(2, np.float32))

  def test_without_a_word_of_success_there_is_none(self):
    adapter = _adapter()
    adapter.reset()
    adapter.step(np.zeros(2, np.float32))
    self.assertIsNone(adapter.last_step.success)

  def test_rewards(self):
    adapter = _adapter(result={'reward': np.float64(1.5), 'info': {'sparse_reward': 9.0}})
    adapter.reset()
    self.assertEqual(adapter.last_step.context_reward, 0.0)
    self.assertEqual(float(adapter.step(np.zeros(2, np.float32)).reward), 1.5)
    self.assertEqual(adapter.last_step.context_reward, 1.5)
    sparse = _adapter(sparse=True, result={'reward': 1.5, 'info': {'sparse_reward': 0.25}})
    sparse.reset()
    self.assertEqual(float(sparse.step(np.zeros(2, np.float32)).reward), 1.5)
    self.assertEqual(sparse.last_step.context_reward, 0.25)
    sparse.reset()
    self.assertEqual(sparse.last_step.context_reward, 0.0)

  def test_a_step_tells_all_that_a_time_step_has_no_place_for(self):
    result = {'reward': 1.5, 'info': {'sparse_reward': 0.25, 'success': True}}
    adapter = _adapter(sparse=True, result=result, max_episode_steps=2)
    first = adapter.begin_episode()
    self.assertEqual(first[1:], (0.0, 0.0, 1.0, False, None))
    second = adapter.take_step(np.zeros(2, np.float32))
    self.assertEqual(second[1:], (1.5, 0.25, 1.0, False, 1.0))
    self.assertAllClose(second.observation, first.observation + 1)
    result |= {'terminated': True, 'info': {'sparse_reward': 0.5}}
    last = adapter.take_step(np.zeros(2, np.float32))
    self.assertEqual(last[1:], (1.5, 0.5, 0.0, True, 1.0))
    self.assertIs(adapter.last_step, last)
    with self.assertRaisesRegex(RuntimeError, 'call begin_episode first'):
      adapter.take_step(np.zeros(2, np.float32))
    self.assertTrue(adapter.step(np.zeros(2, np.float32)).is_first())

  def test_observations_are_copies(self):
    adapter = _adapter()
    first = adapter.reset().observation
    kept = first.copy()
    adapter.step(np.zeros(2, np.float32))
    np.testing.assert_array_equal(first, kept)

  def test_large_but_finite_observations_pass(self):
    adapter = gymnasium_adapter.GymnasiumAdapter(
      _Fake(result={'observation': np.full(3, 1e30)}),
      tolerance=tolerance.Tolerance(largest_number=1e31),
    )
    adapter.reset()
    self.assertAllClose(adapter.step(np.zeros(2, np.float32)).observation, np.full(3, 1e30))

  def test_renders_in_the_mode_it_was_made_with(self):
    env = point_robot.PointRobot(render_mode='rgb_array')
    adapter = gymnasium_adapter.GymnasiumAdapter(env, seed=0)
    adapter.reset()
    self.assertEqual(adapter.render().shape, (240, 240, 3))
    bare = gymnasium_adapter.GymnasiumAdapter(point_robot.PointRobot())
    with self.assertRaisesRegex(ValueError, "make it with render_mode='rgb_array'"):
      bare.render()

  def test_overhead_is_small(self):
    env = point_robot.PointRobot()
    adapter = gymnasium_adapter.GymnasiumAdapter(env, seed=0)
    adapter.reset()
    action = np.zeros(2, np.float32)

    def seconds(step, repeats=2000):
      started = time.process_time()
      for _ in range(repeats):
        step(action)
      return (time.process_time() - started) / repeats

    bare = min(seconds(env.step) for _ in range(5))
    adapted = min(seconds(adapter.step) for _ in range(5))
    # A few microseconds of this process; the bound leaves room for a busy machine.
    self.assertLess(adapted - bare, 20e-6)


class FaultsTest(test_case.TestCase):
  @parameterized.parameters(
    ({'observation': np.array([0.0, np.nan, 0.0])}, r'observation\[1\] is nan, not a finite'),
    ({'observation': np.array([0.0, 0.0, -np.inf])}, r'observation\[2\] is -inf, not a finite'),
    ({'observation': np.array([1e300, 0.0, 0.0])}, r'observation\[0\] is 1e\+300, not a finite'),
    ({'observation': np.zeros(4)}, r'shape \(4,\), expected \(3,\)'),
    ({'observation': np.zeros((1, 3))}, r'shape \(1, 3\), expected \(3,\)'),
    ({'observation': np.array(['a', 'b', 'c'])}, 'dtype <U1, expected numbers'),
    ({'observation': np.array([None, 1, 2])}, 'dtype object, expected numbers'),
    ({'observation': np.zeros(3, complex)}, 'dtype complex128, expected numbers'),
    ({'observation': None}, 'dtype object, expected numbers'),
    ({'observation': [0.0, [1.0], 2.0]}, 'observation is no array'),
    ({'reward': np.nan}, 'the reward is nan, not a finite'),
    ({'reward': -np.inf}, 'the reward is -inf, not a finite'),
    ({'reward': 1e39}, r'the reward is 1e\+39, not a finite'),
    ({'reward': 1e7}, r'the reward is 1e\+07, beyond Tolerance.largest_number = 1e\+06'),
    ({'observation': np.array([1.0, -2e6, 0.0])}, r'observation\[1\] is -2e\+06, beyond Tol'),
    ({'reward': None}, 'the reward is None, expected a number'),
    ({'reward': np.zeros(2)}, 'the reward is array.*expected a number'),
    ({'terminated': np.zeros(2, bool)}, r'terminated is array\(.False, False.\), expected True or'),
    ({'terminated': None}, 'terminated is None, expected True or False'),
    ({'truncated': 'False'}, "truncated is 'False', expected True or False"),
    ({'truncated': 1.0}, 'truncated is 1.0, expected True or False'),
    ({'truncated': 2}, 'truncated is 2, expected True or False'),
    ({'terminated': []}, r'terminated is \[\], expected True or False'),
    ({'step': lambda: _raise(ZeroDivisionError('oops'))}, 'step raised ZeroDivisionError: oops'),
    ({'step': lambda: (np.zeros(3), 0.0, False, {})}, 'step must return .observation, reward'),
    ({'step': lambda: None}, 'step must return .observation, reward'),
  )
  def test_name_environment_task_step_and_value(self, result, message):
    adapter = _adapter(result=result)
    adapter.set_task(_TASK)
    adapter.reset()
    pattern = (
      rf'Environment _Fake, task 4 \(parameters \[0.25\]\), step 1 of the episode: .*{message}'
    )
    with (
      np.errstate(over='ignore'),
      self.assertRaisesRegex(gymnasium_adapter.EnvironmentFault, pattern),
    ):
      adapter.step(np.zeros(2, np.float32))

  @parameterized.parameters(
    (lambda: _raise(OSError('gone')), 'reset raised OSError: gone'),
    (lambda: np.zeros(3), 'reset must return .observation, info.'),
    (lambda: (np.zeros(2), {}), r'shape \(2,\), expected \(3,\)'),
    (lambda: (np.full(3, np.nan), {}), r'observation\[0\] is nan'),
  )
  def test_of_reset(self, reset, message):
    with self.assertRaisesRegex(
      gymnasium_adapter.EnvironmentFault, f'default task.*step 0 of the episode: .*{message}'
    ):
      _adapter(result={'reset': reset}).reset()

  def test_of_setting_a_task(self):
    adapter = _adapter()
    with self.assertRaisesRegex(
      gymnasium_adapter.EnvironmentFault, r'_Fake, task 0 .*set_task raised ValueError: .*parameter'
    ):
      adapter.set_task(types.Task(0, np.zeros(3, np.float32)))

  def test_chain_the_cause(self):
    cause = ZeroDivisionError('oops')
    adapter = _adapter(result={'step': lambda: _raise(cause)})
    adapter.reset()
    with self.assertRaises(gymnasium_adapter.EnvironmentFault) as raised:
      adapter.step(np.zeros(2, np.float32))
    self.assertIs(raised.exception.__cause__, cause)

  @parameterized.parameters(
    ({}, "info has no 'sparse_reward'"),
    ({'sparse_reward': np.nan}, 'the sparse reward is nan'),
    ({'sparse_reward': 'x'}, "the sparse reward is 'x', expected a number"),
  )
  def test_of_the_sparse_reward(self, info, message):
    adapter = _adapter(sparse=True, result={'info': info})
    adapter.reset()
    with self.assertRaisesRegex(gymnasium_adapter.EnvironmentFault, message):
      adapter.step(np.zeros(2, np.float32))

  def test_an_episode_does_not_go_on_after_a_fault(self):
    adapter = _adapter(result={'reward': np.nan})
    adapter.reset()
    with self.assertRaises(gymnasium_adapter.EnvironmentFault):
      adapter.step(np.zeros(2, np.float32))
    self.assertTrue(adapter.step(np.zeros(2, np.float32)).is_first())

  def test_long_parameter_lists_are_shortened(self):
    env = point_robot.PointRobot()
    adapter = gymnasium_adapter.GymnasiumAdapter(env, seed=0)
    task = types.Task(1, np.arange(65, dtype=np.float32))
    env.set_task = lambda task: None
    env.step = lambda action: None
    adapter.set_task(task)
    adapter.reset()
    with self.assertRaisesRegex(gymnasium_adapter.EnvironmentFault, r'\[ 0., +1., .*\.\.\..*64'):
      adapter.step(np.zeros(2, np.float32))

  def test_step_types_are_those_of_tf_agents(self):
    adapter = _adapter(max_episode_steps=2)
    self.assertEqual(adapter.reset().step_type, ts.StepType.FIRST)
    self.assertEqual(adapter.step(np.zeros(2, np.float32)).step_type, ts.StepType.MID)
    self.assertEqual(adapter.step(np.zeros(2, np.float32)).step_type, ts.StepType.LAST)


if __name__ == '__main__':
  absltest.main()
