"""Ants against the figures of the published experiments."""

import mujoco
import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.data import types
from pearl_tf.environments import ant
from pearl_tf.testing import test_case


def _task(*values):
  return types.Task(0, np.array(values, np.float32))


def _random_episode(env, random, zero=False):
  """Returns (return, length) of one episode of at most 200 steps."""
  total, length, terminated = 0.0, 0, False
  while not terminated and length < 200:
    action = np.zeros(8) if zero else random.uniform(-1, 1, 8)
    _, reward, terminated, _, _ = env.step(action)
    total, length = total + reward, length + 1
  return total, length


def _let_float(env):
  """Takes gravity and contacts away, so that a height stays where it is put."""
  env.model.opt.gravity[:] = 0.0
  env.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT


class AntDirTest(test_case.TestCase):
  @parameterized.parameters((ant.AntDir, 27), (ant.AntRandDir, 27), (ant.AntGoal, 113))
  def test_sizes(self, family, size):
    env = family()
    self.assertEqual(env.observation_space.shape, (size,))
    self.assertEqual(env.action_space.shape, (8,))
    np.testing.assert_array_equal(env.action_space.high, np.ones(8, np.float32))
    self.assertAlmostEqual(env.dt, 0.05)
    np.testing.assert_array_equal(env.model.actuator_gear[:, 0], 150 * np.ones(8))

  def test_tasks(self):
    tasks = ant.AntDir().sample_tasks(2, 5)
    self.assertAllClose([task.parameters[0] for task in tasks], [0.0, np.pi])
    with self.assertRaisesRegex(ValueError, 'fixed list of 2'):
      ant.AntDir().sample_tasks(4, 5)
    directions = [task.parameters[0] for task in ant.AntRandDir().sample_tasks(500, 5)]
    self.assertAllInRange(np.array(directions), 0.0, 2 * np.pi)
    self.assertAlmostEqual(np.mean(directions), np.pi, delta=0.3)

  @parameterized.parameters((ant.AntDir, np.pi), (ant.AntRandDir, 2.1))
  def test_observation_and_reward(self, family, direction):
    env = family()
    env.set_task(_task(direction))
    env.reset(seed=3)
    random = np.random.RandomState(0)
    for _ in range(30):
      action = random.uniform(-1, 1, 8)
      before = env.data.body('torso').xpos.copy()
      observation, reward, terminated, _, _ = env.step(action)
      velocity = (env.data.body('torso').xpos - before)[:2] / 0.05
      expected = (
        velocity @ [np.cos(direction), np.sin(direction)]
        - 0.5 * np.sum(action**2)
        - 5e-4 * np.sum(np.clip(env.data.cfrc_ext, -1, 1) ** 2)
        + 1
      )
      self.assertAlmostEqual(reward, expected, places=6)
      self.assertAllClose(observation, np.concatenate([env.data.qpos[2:], env.data.qvel]))
      self.assertEqual(terminated, not 0.2 <= env.data.qpos[2] <= 1.0)

  @parameterized.parameters((0.15, True), (0.3, False), (0.9, False), (1.2, True))
  def test_ends_outside_the_heights_and_is_still_paid_for_living(self, height, ends):
    env = ant.AntDir()
    env.reset(seed=0)
    _let_float(env)
    qpos = env.init_qpos.copy()
    qpos[2] = height
    env.set_state(qpos, np.zeros(env.model.nv))
    before = env.data.body('torso').xpos[0]
    _, reward, terminated, truncated, _ = env.step(np.zeros(8))
    self.assertEqual((terminated, truncated), (ends, False))
    velocity = (env.data.body('torso').xpos[0] - before) / 0.05
    self.assertAlmostEqual(reward, velocity + 1, places=6)

  def test_sanity_returns(self):
    env = ant.AntDir()
    random = np.random.RandomState(0)
    env.reset(seed=0)
    episodes = []
    for _ in range(15):
      env.reset()
      episodes.append(_random_episode(env, random))
    returns, lengths = np.mean(episodes, axis=0)
    self.assertAlmostEqual(returns, -19, delta=30)
    self.assertAlmostEqual(lengths, 82, delta=35)
    env.reset()
    total, length = _random_episode(env, random, zero=True)
    self.assertAlmostEqual(total, 200, delta=10)
    self.assertEqual(length, 200)

  def test_reset_distribution(self):
    env = ant.AntDir()
    env.reset(seed=0)
    positions, velocities = [], []
    for _ in range(200):
      env.reset()
      positions.append(env.data.qpos - env.init_qpos)
      velocities.append(env.data.qvel.copy())
    self.assertAllInRange(np.array(positions), -0.1, 0.1)
    self.assertAlmostEqual(np.std(positions), 0.1 / np.sqrt(3), delta=0.003)
    self.assertAlmostEqual(np.std(velocities), 0.1, delta=0.005)


class AntGoalTest(test_case.TestCase):
  def test_goals_are_the_draws_of_the_reference_uniform_in_the_disc(self):
    goals = np.stack([task.parameters for task in ant.AntGoal().sample_tasks(1000, 9)])
    np.random.seed(9)
    angle = np.random.random(1000) * 2 * np.pi
    radius = 3 * np.random.random(1000) ** 0.5
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    self.assertAllClose(goals, expected, atol=1e-6)
    # Half of the disc's area lies within 3 / sqrt(2).
    self.assertAlmostEqual(np.median(np.linalg.norm(goals, axis=1)), 3 / np.sqrt(2), delta=0.1)
    self.assertAllLess(np.linalg.norm(goals, axis=1), 3.0 + 1e-6)

  def test_observation_and_reward(self):
    env = ant.AntGoal()
    env.set_task(_task(-1.5, 0.5))
    env.reset(seed=3)
    random = np.random.RandomState(0)
    for _ in range(60):
      action = random.uniform(-1, 1, 8)
      observation, reward, terminated, _, _ = env.step(action)
      x, y = env.data.body('torso').xpos[:2]
      forces = np.clip(env.data.cfrc_ext, -1, 1)
      expected = -(abs(x + 1.5) + abs(y - 0.5)) - 0.1 * np.sum(action**2)
      self.assertAlmostEqual(reward, expected - 5e-4 * np.sum(forces**2), places=6)
      self.assertAllClose(
        observation, np.concatenate([env.data.qpos, env.data.qvel, forces.ravel()])
      )
      self.assertFalse(terminated)

  def test_contact_forces_are_alive_and_the_world_s_are_zero(self):
    env = ant.AntGoal()
    env.reset(seed=0)
    for _ in range(100):
      observation, *_ = env.step(np.zeros(8))
    np.testing.assert_array_equal(observation[29:35], np.zeros(6))
    self.assertGreater(np.count_nonzero(observation[35:]), 10)
    self.assertGreater(np.abs(env.data.cfrc_ext).max(), 1.0)
    self.assertAllInRange(observation[29:], -1.0, 1.0)

  def test_never_ends_even_on_its_back(self):
    env = ant.AntGoal()
    env.reset(seed=0)
    qpos = env.init_qpos.copy()
    qpos[2] = 2.0
    env.set_state(qpos, np.zeros(env.model.nv))
    self.assertFalse(env.step(np.zeros(8))[2])

  def test_sanity_returns(self):
    env = ant.AntGoal()
    env.reset(seed=0)
    random = np.random.RandomState(0)
    returns = {True: [], False: []}
    for angle in np.linspace(0, 2 * np.pi, 8, endpoint=False) + np.pi / 8:
      env.set_task(_task(2 * np.cos(angle), 2 * np.sin(angle)))
      for zero in (True, False):
        env.reset()
        returns[zero].append(_random_episode(env, random, zero)[0])
    self.assertAlmostEqual(np.mean(returns[True]), -550, delta=80)
    self.assertAlmostEqual(np.mean(returns[False]), -772, delta=220)


if __name__ == '__main__':
  absltest.main()
