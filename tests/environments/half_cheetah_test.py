"""Half-cheetahs against the published figures and against gymnasium's own class."""

import gymnasium
import mujoco
import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.data import types
from pearl_tf.environments import half_cheetah
from pearl_tf.testing import test_case


def _task(value):
  return types.Task(0, np.array([value], np.float32))


def _stock_environment():
  """Gymnasium's own; what MuJoCo says of its file would land in MUJOCO_LOG.TXT."""
  previous = mujoco.get_mju_user_warning()
  mujoco.set_mju_user_warning(lambda message: None)
  try:
    return gymnasium.make('HalfCheetah-v5').unwrapped
  finally:
    mujoco.set_mju_user_warning(previous)


class HalfCheetahTest(test_case.TestCase):
  @parameterized.parameters(half_cheetah.HalfCheetahDir, half_cheetah.HalfCheetahVel)
  def test_sizes(self, family):
    env = family()
    self.assertEqual(env.observation_space.shape, (20,))
    self.assertEqual(env.observation_space.dtype, np.float32)
    self.assertEqual(env.action_space.shape, (6,))
    names = ('bthigh', 'bshin', 'bfoot', 'fthigh', 'fshin', 'ffoot')
    self.assertEqual(env.action_names, names)
    np.testing.assert_array_equal(env.action_space.high, np.ones(6, np.float32))
    self.assertAlmostEqual(env.dt, 0.05)

  @parameterized.parameters(
    (half_cheetah.HalfCheetahDir, -1.0, lambda v: -v),
    (half_cheetah.HalfCheetahDir, 1.0, lambda v: v),
    (half_cheetah.HalfCheetahVel, 0.75, lambda v: -abs(v - 0.75)),
  )
  def test_dynamics_are_gymnasium_s_and_the_reward_is_ours(self, family, parameter, forward):
    env, stock = family(), _stock_environment()
    env.set_task(_task(parameter))
    observation, _ = env.reset(seed=7)
    expected, _ = stock.reset(seed=7)
    random = np.random.RandomState(0)
    for _ in range(50):
      self.assertEqual(observation.dtype, np.float32)
      self.assertAllClose(observation[:17], expected, rtol=1e-6, atol=1e-6)
      self.assertAllClose(observation[17:], stock.data.body('torso').xpos, rtol=1e-6, atol=1e-6)
      action = random.uniform(-1, 1, 6)
      x = stock.data.qpos[0]
      expected, *_ = stock.step(action)
      observation, reward, terminated, truncated, info = env.step(action)
      velocity = (stock.data.qpos[0] - x) / 0.05
      self.assertAlmostEqual(reward, forward(velocity) - 0.05 * np.sum(action**2), places=6)
      self.assertAlmostEqual(info['x_velocity'], velocity, places=6)
      self.assertFalse(terminated or truncated)

  def test_directions_are_a_fixed_list(self):
    env = half_cheetah.HalfCheetahDir()
    for seed in (0, 1337):
      tasks = env.sample_tasks(2, seed)
      self.assertEqual([task.parameters.tolist() for task in tasks], [[-1.0], [1.0]])
    with self.assertRaisesRegex(ValueError, 'fixed list of 2'):
      env.sample_tasks(3, 0)
    with self.assertRaisesRegex(ValueError, '-1 or .1, got 0.5'):
      env.set_task(_task(0.5))

  def test_velocities_are_the_published_list(self):
    tasks = half_cheetah.HalfCheetahVel().sample_tasks(130, 1337)
    velocities = np.concatenate([task.parameters for task in tasks])
    np.random.seed(1337)
    self.assertAllClose(velocities, np.random.uniform(0.0, 3.0, size=(130,)), atol=1e-6)
    test = velocities[100:]
    self.assertAlmostEqual(test.min(), 0.083, places=3)
    self.assertAlmostEqual(test.max(), 2.978, places=3)
    self.assertAlmostEqual(test.mean(), 1.418, places=3)

  def test_standing_still_scores_what_is_known_on_the_test_tasks(self):
    env = half_cheetah.HalfCheetahVel()
    env.reset(seed=0)
    returns = []
    for task in env.sample_tasks(130, 1337)[100:]:
      env.set_task(task)
      env.reset()
      returns.append(sum(env.step(np.zeros(6))[1] for _ in range(200)))
    self.assertAlmostEqual(np.mean(returns), -283.5, delta=1.0)

  def test_sanity_returns(self):
    velocity, direction, still = [], [], []
    env = half_cheetah.HalfCheetahVel()
    random = np.random.RandomState(0)
    for seed in range(10):
      env.reset(seed=seed)
      start, rewards, cost = env.data.qpos[0], 0.0, 0.0
      for _ in range(200):
        action = random.uniform(-1, 1, 6)
        rewards += env.step(action)[1]
        cost += 0.05 * np.sum(action**2)
      velocity.append(rewards)
      direction.append((env.data.qpos[0] - start) / 0.05 - cost)
      env.reset()
      still.append(sum(env.step(np.zeros(6))[1] for _ in range(200)))
    self.assertAlmostEqual(np.mean(velocity), -335, delta=35)
    self.assertAlmostEqual(np.mean(direction), -23, delta=45)
    self.assertAlmostEqual(np.mean(still), -300, delta=3)

  def test_reset_distribution(self):
    env = half_cheetah.HalfCheetahVel()
    env.reset(seed=0)
    positions, velocities = [], []
    for _ in range(400):
      env.reset()
      positions.append(env.data.qpos - env.init_qpos)
      velocities.append(env.data.qvel.copy())
    self.assertAllInRange(np.array(positions), -0.1, 0.1)
    self.assertAlmostEqual(np.std(positions), 0.1 / np.sqrt(3), delta=0.002)
    self.assertAlmostEqual(np.std(velocities), 0.1, delta=0.004)


if __name__ == '__main__':
  absltest.main()
