"""What holds for every family: gymnasium's checks, reproducible episodes, isolation, specs."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
from absl.testing import absltest, parameterized
from gymnasium.utils import env_checker
from tf_agents.environments import utils

from pearl_tf import environments
from pearl_tf.environments import gymnasium_adapter, registry
from pearl_tf.testing import test_case

_IDS = tuple(environments.FAMILIES)


def _adapter(env_id, seed=None, max_episode_steps=20):
  return gymnasium_adapter.GymnasiumAdapter(
    registry.make(env_id), max_episode_steps=max_episode_steps, seed=seed
  )


def _episode(adapter, actions):
  """Observations and rewards of an episode as one array."""
  step = adapter.reset()
  rows = [np.append(step.observation, step.reward)]
  for action in actions:
    step = adapter.step(action)
    rows.append(np.append(step.observation, step.reward))
    if step.is_last():
      break
  return np.stack(rows)


def _actions(adapter, num_steps=20, seed=0):
  size = adapter.action_spec().shape[0]
  return np.random.RandomState(seed).uniform(-1, 1, (num_steps, size)).astype(np.float32)


class FamiliesTest(test_case.TestCase):
  @parameterized.parameters(*_IDS)
  def test_gymnasium_makes_it_and_finds_no_fault(self, env_id):
    env = gymnasium.make(env_id)
    self.assertIsNone(env.spec.max_episode_steps)
    self.assertEqual(env.observation_space.dtype, np.float32)
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always')
      env_checker.check_env(env.unwrapped, skip_render_check=True)
    texts = {str(warning.message) for warning in caught}
    self.assertEmpty({text for text in texts if 'Box observation space m' not in text})

  @parameterized.parameters(*_IDS)
  def test_tf_agents_finds_no_fault(self, env_id):
    utils.validate_py_environment(_adapter(env_id, seed=0, max_episode_steps=10), episodes=2)

  @parameterized.parameters(*_IDS)
  def test_tasks_round_trip_and_keep_to_the_seed(self, env_id):
    env = registry.make(env_id)
    tasks = env.sample_tasks(2, 1337)
    self.assertEqual([task.index for task in tasks], [0, 1])
    for task in tasks:
      env.set_task(task)
      np.testing.assert_array_equal(env.task.parameters, task.parameters)
    again = registry.make(env_id).sample_tasks(2, 1337)
    np.testing.assert_array_equal(tasks[1].parameters, again[1].parameters)
    self.assertEqual(env.num_parameters, tasks[0].parameters.size)
    self.assertEqual(env.fixed_task_count is not None, env_id.endswith(('AntDir-v0', 'ahDir-v0')))

  @parameterized.parameters(*_IDS)
  def test_sparse_reward_is_in_info_exactly_when_announced(self, env_id):
    env = registry.make(env_id)
    env.reset(seed=0)
    info = env.step(env.action_space.sample())[4]
    self.assertEqual('sparse_reward' in info, env.has_sparse_reward)
    self.assertEqual(env.has_sparse_reward, env_id == 'pearl/SparsePointRobot-v0')

  @parameterized.parameters(*_IDS)
  def test_a_seed_fixes_the_episodes_and_the_global_stream_does_not_matter(self, env_id):
    one, other, third = _adapter(env_id, 3), _adapter(env_id, 3), _adapter(env_id, 4)
    actions = _actions(one)
    for _ in range(2):
      episode = _episode(one, actions)
      np.random.seed()
      np.testing.assert_array_equal(_episode(other, actions), episode)
    if env_id != 'pearl/SparsePointRobot-v0':  # It always starts at the origin.
      self.assertNotAllClose(_episode(third, actions)[0], episode[0])

  @parameterized.parameters(*_IDS)
  def test_an_episode_depends_on_task_seed_and_actions_only(self, env_id):
    worn, fresh = _adapter(env_id, seed=3), _adapter(env_id)
    task = worn.sample_tasks(2, 0)[1]
    worn.set_task(task)
    for seed in range(4):
      _episode(worn, _actions(worn, seed=seed))
    fresh.set_task(task)
    worn.seed(8)
    fresh.seed(8)
    for seed in range(10, 12):
      actions = _actions(worn, seed=seed)
      np.testing.assert_array_equal(_episode(fresh, actions), _episode(worn, actions))

  @parameterized.parameters(*_IDS)
  def test_two_environments_never_share_a_task(self, env_id):
    one, other = _adapter(env_id, seed=0), _adapter(env_id, seed=0)
    # The first of a list and the second differ, whichever of them the default may be.
    first, second = one.sample_tasks(2, 5)
    actions = _actions(one)
    one.set_task(first)
    alone = _episode(one, actions)
    other.set_task(second)
    one = _adapter(env_id, seed=0)
    one.set_task(first)
    other.set_task(second)
    np.testing.assert_array_equal(_episode(one, actions), alone)
    rows = _episode(other, actions)
    length = min(len(rows), len(alone))
    self.assertGreater(np.abs(rows[:length] - alone[:length]).max(), 1e-6)

  def test_importing_the_package_imports_no_simulator(self):
    program = (
      'import sys, gymnasium, pearl_tf.environments; '
      'assert "pearl/AntGoal-v0" in gymnasium.registry; '
      'assert "mujoco" not in sys.modules and "tensorflow" not in sys.modules'
    )
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    self.assertEqual(result.returncode, 0, result.stderr)


if __name__ == '__main__':
  absltest.main()
