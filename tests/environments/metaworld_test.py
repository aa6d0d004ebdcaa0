"""Meta-World as task families; needs the extra `metaworld`."""

import pickle
import subprocess
import sys
import warnings
from unittest import mock

import metaworld as benchmark
import numpy as np
from absl.testing import absltest, parameterized
from gymnasium.utils import env_checker
from metaworld import env_dict, policies, sawyer_xyz_env
from tf_agents.environments import utils

from pearl_tf.data import types
from pearl_tf.environments import gymnasium_adapter, registry
from pearl_tf.environments import metaworld as families
from pearl_tf.testing import test_case

_IDS = ('pearl/MetaWorldML1-v0', 'pearl/MetaWorldML10-v0', 'pearl/MetaWorldML45-v0')


def _adapter(env_id=_IDS[0], max_episode_steps=20, **kwargs):
  return gymnasium_adapter.GymnasiumAdapter(
    registry.make(env_id, **kwargs), max_episode_steps=max_episode_steps
  )


def _episode(adapter, num_steps=20, seed=0):
  """Observations and rewards of an episode of random actions as one array."""
  step = adapter.reset()
  rows = [np.append(step.observation, step.reward)]
  for action in np.random.RandomState(seed).uniform(-1, 1, (num_steps, 4)).astype(np.float32):
    step = adapter.step(action)
    rows.append(np.append(step.observation, step.reward))
    if step.is_last():
      break
  return np.stack(rows)


def _drawn(task):
  return pickle.loads(task.data)['rand_vec']


def _parameters(some):
  return np.stack([task.parameters for task in some])


class ML1Test(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.env = registry.make(_IDS[0], env_name='push-v3')
    cls.train, cls.test = cls.env.sample_task_split(50, 50, seed=3)
    cls.benchmark = benchmark.ML1('push-v3', seed=3)

  def test_tasks_are_those_of_the_benchmark(self):
    for ours, theirs, start in (
      (self.train, self.benchmark.train_tasks, 0),
      (self.test, self.benchmark.test_tasks, 50),
    ):
      self.assertEqual([task.index for task in ours], list(range(start, start + 50)))
      self.assertAllClose(_parameters(ours)[:, 1:], np.stack(list(map(_drawn, theirs))), atol=1e-7)
    names = {families.ENVIRONMENT_NAMES[int(n)] for n in _parameters(self.train)[:, 0]}
    self.assertEqual(names, {'push-v3'})

  def test_no_goal_is_both_trained_and_tested_on(self):
    together = np.concatenate([_parameters(self.train), _parameters(self.test)])
    self.assertLen(np.unique(together, axis=0), 100)

  def test_the_benchmarks_own_set_task_sets_the_task(self):
    set_task = sawyer_xyz_env.SawyerXYZEnv.set_task
    with mock.patch.object(sawyer_xyz_env.SawyerXYZEnv, 'set_task', autospec=True) as spy:
      spy.side_effect = set_task
      self.env.set_task(self.test[7])
    (simulation, task), _ = spy.call_args
    self.assertIs(simulation, self.env.simulation)
    self.assertEqual(task.env_name, 'push-v3')
    data = pickle.loads(task.data)
    theirs = pickle.loads(self.benchmark.test_tasks[7].data)
    self.assertAllClose(data.pop('rand_vec'), theirs.pop('rand_vec'), rtol=0, atol=1e-7)
    self.assertEqual(data, theirs)

  def test_an_episode_is_that_of_the_benchmark(self):
    adapter = gymnasium_adapter.GymnasiumAdapter(self.env, max_episode_steps=20)
    adapter.set_task(self.train[1])
    ours = _episode(adapter)
    theirs = self.benchmark.train_classes['push-v3']()
    theirs.set_task(self.benchmark.train_tasks[1])
    observation, _ = theirs.reset()
    rows = [np.append(observation, 0.0)]
    for action in np.random.RandomState(0).uniform(-1, 1, (20, 4)).astype(np.float32):
      observation, reward, *_ = theirs.step(action)
      rows.append(np.append(observation, reward))
    # Goals are rounded to float32, and contacts amplify that a little.
    self.assertAllClose(ours, np.stack(rows), rtol=0, atol=1e-4)

  def test_the_goal_is_hidden_and_the_rest_is_not(self):
    adapter = gymnasium_adapter.GymnasiumAdapter(self.env, max_episode_steps=20)
    adapter.set_task(self.train[0])
    rows = _episode(adapter)
    self.assertTrue(np.isfinite(rows).all())
    self.assertAllEqual(rows[:, 36:39], np.zeros((21, 3)))
    goal = self.train[0].parameters[4:6]
    self.assertAllClose(self.env.simulation._target_pos[:2], goal)
    for coordinate in goal:
      self.assertGreater(np.abs(rows[0, :36] - coordinate).min(), 1e-4)
    self.assertAllEqual(rows[1:, 18:36], rows[:-1, :18])  # The previous step's.
    self.assertGreater(np.ptp(rows[1:, 39]), 0)

  def test_two_environments_never_share_a_task(self):
    one, other = (_adapter(env_name='push-v3') for _ in range(2))
    one.set_task(self.train[0])
    alone = _episode(one)
    other.set_task(self.train[1])
    self.assertAllEqual(_episode(one), alone)
    self.assertNotAllClose(_episode(other), alone)
    one.set_task(self.train[1])
    self.assertAllEqual(_episode(one), _episode(other))  # Nothing is left of the first task.

  @parameterized.named_parameters(
    ('another_environment', lambda row: row + np.eye(7)[0], 'number of an environment, one of'),
    ('no_environment', lambda row: row + 0.5 * np.eye(7)[0], 'number of an environment, one of'),
    ('out_of_reach', lambda row: row + np.eye(7)[1], 'push-v3 draws 6 numbers between'),
  )
  def test_refuses_a_task_that_the_benchmark_would_not_set(self, change, message):
    parameters = change(self.train[0].parameters).astype(np.float32)
    with self.assertRaisesRegex(ValueError, message):
      registry.make(_IDS[0], env_name='push-v3').set_task(types.Task(0, parameters))

  def test_refuses_what_the_benchmark_lacks(self):
    with self.assertRaisesRegex(ValueError, r"no environment 'push'. Did you mean \['push-v3'"):
      registry.make(_IDS[0], env_name='push')
    with self.assertRaisesRegex(ValueError, '50 training tasks, .* but 51 are'):
      self.env.sample_tasks(51, seed=0)
    with self.assertRaisesRegex(ValueError, '50 test tasks, .* but 0 are'):
      self.env.sample_task_split(1, 0, seed=0)
    with self.assertRaisesRegex(ValueError, 'seed of tasks .* got -1'):
      self.env.sample_tasks(1, seed=-1)

  def test_a_task_is_described_in_words(self):
    self.assertRegex(self.env.describe_task(self.train[0]), r'^push-v3 \((-?\d\.\d\d ?){6}\)$')


class ML10Test(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.adapter = _adapter(_IDS[1])
    cls.train, cls.test = cls.adapter.gymnasium_env.sample_task_split(20, 10, seed=0)

  def test_environments_take_turns_and_those_of_the_test_are_others(self):
    names = [
      [families.ENVIRONMENT_NAMES[int(task.parameters[0])] for task in some]
      for some in (self.train, self.test)
    ]
    self.assertEqual(names[0], 2 * list(env_dict.ML10_V3['train']))
    self.assertEqual(names[1], 2 * list(env_dict.ML10_V3['test']))
    self.assertNoCommonElements(*names)
    self.assertLen(np.unique(_parameters(self.train + self.test), axis=0), 30)
    self.assertEqual([task.index for task in self.train + self.test], list(range(30)))

  def test_every_environment_is_of_the_same_kind_and_only_one_is_kept(self):
    self.adapter.set_task(self.test[4])  # Whatever another test has left.
    for task in self.train[:10] + self.test[:5]:
      before = self.adapter.gymnasium_env.simulation
      self.adapter.set_task(task)
      simulation = self.adapter.gymnasium_env.simulation
      self.assertIsNot(simulation, before)
      name = families.ENVIRONMENT_NAMES[int(task.parameters[0])]
      self.assertIs(type(simulation), env_dict.ALL_V3_ENVIRONMENTS[name])
      rows = _episode(self.adapter, num_steps=5)
      self.assertEqual(rows.shape, (6, 40))
      self.assertTrue(np.isfinite(rows).all())
      self.assertAllEqual(rows[:, 36:39], np.zeros((6, 3)))
      self.assertEqual(self.adapter.last_step.success, 0.0)

  def test_another_goal_of_the_same_environment_takes_no_new_one(self):
    self.adapter.set_task(self.train[0])
    simulation = self.adapter.gymnasium_env.simulation
    self.adapter.set_task(self.train[10])
    self.assertIs(self.adapter.gymnasium_env.simulation, simulation)

  @parameterized.parameters('pick-place-v3', 'drawer-close-v3', 'lever-pull-v3')
  def test_the_benchmarks_scripted_policy_succeeds(self, name):
    number = families.ENVIRONMENT_NAMES.index(name)
    task = next(task for task in self.train + self.test if task.parameters[0] == number)
    adapter = _adapter(_IDS[1], max_episode_steps=500)
    adapter.set_task(task)
    step = adapter.reset()
    self.assertIsNone(adapter.last_step.success)
    simulation = adapter.gymnasium_env.simulation
    policy = policies.ENV_POLICY_MAP[name]()
    successes = []
    while not step.is_last() and len(successes) < 250:
      # The script is for the variant in which the goal is seen.
      seen = np.concatenate([step.observation[:36], simulation._target_pos]).astype(np.float64)
      step = adapter.step(np.clip(policy.get_action(seen), -1, 1).astype(np.float32))
      successes.append(adapter.last_step.success)
    self.assertEqual(successes[0], 0.0)
    self.assertEqual(successes[-1], 1.0)
    self.assertEqual(successes, sorted(successes))  # Once succeeded, the episode has.


class FamiliesTest(test_case.TestCase):
  @parameterized.parameters(*_IDS)
  def test_gymnasium_and_tf_agents_find_no_fault(self, env_id):
    adapter = _adapter(env_id, max_episode_steps=10)
    self.assertEqual(adapter.observation_spec().shape, (39,))
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always')
      env_checker.check_env(adapter.gymnasium_env, skip_render_check=True)
    texts = {str(warning.message) for warning in caught}
    self.assertEmpty({text for text in texts if 'Box observation space m' not in text})
    utils.validate_py_environment(adapter, episodes=2)

  def test_ml45_trains_on_45_and_tests_on_5(self):
    family = registry.make(_IDS[2])
    train, test = family._train_names(), family._test_names()
    self.assertEqual((len(set(train)), len(set(test)), len({*train, *test})), (45, 5, 50))

  def test_the_benchmark_ends_an_episode_at_500_steps(self):
    adapter = _adapter(max_episode_steps=1000)
    step, num_steps = adapter.reset(), 0
    while not step.is_last():
      step = adapter.step(np.zeros(4, np.float32))
      num_steps += 1
    self.assertEqual(num_steps, 500)
    self.assertEqual(step.discount, 1.0)
    self.assertEqual(adapter.last_step.success, 0.0)

  def test_the_hand_is_welded_as_the_benchmark_says(self):
    env = registry.make(_IDS[0])
    env.reset()
    (row,) = env.simulation.model.eq_data
    self.assertAllEqual(row[:11], [0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 5])
    self.assertAllEqual(row[11:], np.zeros(row.size - 11))

  def test_a_step_needs_a_reset_and_closing_twice_is_no_error(self):
    env = families.MetaWorldML1()
    with self.assertRaisesRegex(Exception, 'reset before step'):
      env.step(np.zeros(4, np.float32))
    env.reset()
    env.close()
    env.close()
    self.assertIsNone(env.simulation)

  def test_without_the_extra_a_message_says_what_to_install(self):
    program = '\n'.join(
      [
        'import sys',
        'from pearl_tf.environments import registry',
        'assert "metaworld" not in sys.modules',
        'sys.modules["metaworld"] = None',
        'try:',
        '  registry.make("pearl/MetaWorldML10-v0")',
        'except ValueError as error:',
        '  print(error)',
      ]
    )
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    self.assertEqual(result.returncode, 0, result.stderr)
    self.assertIn("'pearl/MetaWorldML10-v0'", result.stdout)
    self.assertIn('pip install .[metaworld]', result.stdout)


if __name__ == '__main__':
  absltest.main()
