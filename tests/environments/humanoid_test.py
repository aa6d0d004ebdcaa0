"""The humanoid against the figures of the published experiments."""

import mujoco
import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.data import types
from pearl_tf.environments import humanoid
from pearl_tf.testing import test_case


def _center_of_mass(env):
  mass = env.model.body_mass[:, None]
  return np.sum(mass * env.data.xipos, axis=0)[:2] / np.sum(mass)


def _let_float(env):
  """Takes gravity and contacts away, so that a height stays where it is put."""
  env.model.opt.gravity[:] = 0.0
  env.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT


class HumanoidDirTest(test_case.TestCase):
  def test_sizes(self):
    env = humanoid.HumanoidDir()
    self.assertEqual(env.observation_space.shape, (376,))
    self.assertEqual(env.action_space.shape, (17,))
    self.assertAllClose(env.action_space.high, 0.4 * np.ones(17))
    self.assertAlmostEqual(env.dt, 0.015)
    self.assertAlmostEqual(env.model.opt.timestep, 0.003)
    self.assertEqual(env.model.opt.iterations, 50)

  def test_the_hip_has_its_range_of_2019(self):
    env = humanoid.HumanoidDir()
    self.assertAllClose(np.rad2deg(env.model.joint('left_hip_y').range), [-120.0, 20.0])
    self.assertAllClose(np.rad2deg(env.model.joint('right_hip_y').range), [-110.0, 20.0])

  def test_tasks_are_directions(self):
    directions = [task.parameters[0] for task in humanoid.HumanoidDir().sample_tasks(500, 5)]
    np.random.seed(5)
    self.assertAllClose(directions, np.random.uniform(0, 2 * np.pi, size=500))

  def test_observation_and_reward(self):
    env = humanoid.HumanoidDir()
    env.set_task(types.Task(0, np.array([2.0], np.float32)))
    env.reset(seed=3)
    random = np.random.RandomState(0)
    for _ in range(15):
      action = random.uniform(-0.4, 0.4, 17)
      before = _center_of_mass(env)
      observation, reward, terminated, _, _ = env.step(action)
      data = env.data
      expected = (
        0.25 * (_center_of_mass(env) - before) @ [np.cos(2.0), np.sin(2.0)] / 0.003
        - 0.1 * np.sum(action**2)
        - min(5e-7 * np.sum(data.cfrc_ext**2), 10)
        + 5
      )
      self.assertAlmostEqual(reward, expected, places=5)
      parts = [data.qpos[2:], data.qvel, data.cinert, data.cvel, data.qfrc_actuator, data.cfrc_ext]
      self.assertAllClose(observation, np.concatenate([part.ravel() for part in parts]), rtol=1e-5)
      self.assertEqual(terminated, not 1.0 <= data.qpos[2] <= 2.0)

  def test_28_entries_are_always_zero(self):
    env = humanoid.HumanoidDir()
    env.reset(seed=0)
    random = np.random.RandomState(0)
    observations = np.stack([env.step(random.uniform(-0.4, 0.4, 17))[0] for _ in range(80)])
    always_zero = np.flatnonzero((observations == 0).all(axis=0))
    world = [*range(45, 55), *range(185, 191), *range(269, 275), *range(292, 298)]
    self.assertContainsSubset(world, always_zero)
    self.assertLen(world, 28)
    # Contact forces live, beyond what a feather could do.
    self.assertGreater(np.abs(observations[:, 298:]).max(), 100.0)

  @parameterized.parameters((0.9, True), (1.3, False), (2.2, True))
  def test_ends_outside_the_heights_and_is_still_paid_for_living(self, height, ends):
    env = humanoid.HumanoidDir()
    env.reset(seed=0)
    _let_float(env)
    qpos = env.init_qpos.copy()
    qpos[2] = height
    env.set_state(qpos, np.zeros(env.model.nv))
    _, reward, terminated, _, info = env.step(np.zeros(17))
    self.assertEqual(terminated, ends)
    self.assertAlmostEqual(reward, 1.25 * info['forward_velocity'] + 5, places=5)

  def test_sanity_returns(self):
    env = humanoid.HumanoidDir()
    env.reset(seed=0)
    random = np.random.RandomState(0)
    returns, lengths = [], []
    for _ in range(20):
      env.reset()
      total, terminated, length = 0.0, False, 0
      while not terminated and length < 200:
        _, reward, terminated, _, _ = env.step(random.uniform(-0.4, 0.4, 17))
        total, length = total + reward, length + 1
      returns.append(total)
      lengths.append(length)
    self.assertAlmostEqual(np.mean(returns), 131, delta=40)
    self.assertAlmostEqual(np.mean(lengths), 27, delta=8)

  def test_reset_distribution(self):
    env = humanoid.HumanoidDir()
    env.reset(seed=0)
    noise = []
    for _ in range(100):
      env.reset()
      noise.append(np.concatenate([env.data.qpos - env.init_qpos, env.data.qvel]))
    self.assertAllInRange(np.array(noise), -0.01, 0.01)
    self.assertAlmostEqual(np.std(noise), 0.01 / np.sqrt(3), delta=0.0003)


if __name__ == '__main__':
  absltest.main()
