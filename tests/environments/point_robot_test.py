"""Point robots: task lists of the published experiments, rewards, pictures."""

import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.data import types
from pearl_tf.environments import point_robot
from pearl_tf.testing import test_case


def _task(x, y):
  return types.Task(0, np.array([x, y], np.float32))


class PointRobotTest(test_case.TestCase):
  def test_the_task_list_is_the_published_one(self):
    tasks = point_robot.PointRobot().sample_tasks(100, 1337)
    # What the reference draws: coordinate by coordinate from the reseeded global stream.
    np.random.seed(1337)
    expected = [[np.random.uniform(-1, 1), np.random.uniform(-1, 1)] for _ in range(100)]
    self.assertAllClose(np.stack([task.parameters for task in tasks]), expected, atol=1e-7, rtol=0)

  def test_starts_uniformly_in_the_square(self):
    env = point_robot.PointRobot()
    env.reset(seed=0)
    starts = np.stack([env.reset()[0] for _ in range(2000)])
    self.assertAllInRange(starts, -1.0, 1.0)
    self.assertAllClose(starts.mean(axis=0), [0.0, 0.0], atol=0.06)
    self.assertAllClose(starts.std(axis=0), [1 / np.sqrt(3)] * 2, atol=0.03)

  def test_moves_by_the_action_and_pays_minus_the_distance(self):
    env = point_robot.PointRobot()
    env.set_task(_task(0.5, -0.25))
    position, _ = env.reset(seed=0)
    for action in ([0.1, -0.1], [0.05, 0.0], [-0.1, 0.02]):
      position = position + np.array(action)
      observation, reward, terminated, truncated, info = env.step(np.array(action, np.float32))
      self.assertAllClose(observation, position, atol=1e-6)
      self.assertAlmostEqual(reward, -np.hypot(position[0] - 0.5, position[1] + 0.25), places=6)
      self.assertFalse(terminated or truncated)
      self.assertNotIn('sparse_reward', info)

  def test_a_new_task_acts_from_the_next_step_without_a_reset(self):
    env = point_robot.PointRobot()
    position, _ = env.reset(seed=0)
    env.set_task(_task(*position))
    self.assertAlmostEqual(env.step(np.zeros(2))[1], 0.0, places=6)

  def test_a_picture_shows_goal_and_robot(self):
    env = point_robot.SparsePointRobot(render_mode='rgb_array')
    env.set_task(_task(0.0, 1.0))
    env.reset(seed=0)
    for _ in range(5):
      env.step(np.array([0.1, 0.0]))
    picture = env.render()
    self.assertEqual(picture.shape, (240, 240, 3))
    self.assertEqual(picture.dtype, np.uint8)
    # The plane is 3 wide: 80 pixels to the unit, the origin in the middle, y upwards.
    np.testing.assert_array_equal(picture[120, 160], (30, 60, 180))
    np.testing.assert_array_equal(picture[40, 120], (20, 130, 60))
    np.testing.assert_array_equal(picture[40 + 12, 120], (200, 230, 200))
    np.testing.assert_array_equal(picture[10, 10], (255, 255, 255))
    trail = (picture == (150, 170, 220)).all(axis=-1)
    self.assertTrue(trail[120, 130:155].any())

  def test_renders_nothing_unless_asked(self):
    env = point_robot.PointRobot()
    env.reset(seed=0)
    self.assertIsNone(env.render())
    with self.assertRaisesRegex(ValueError, 'human'):
      point_robot.PointRobot(render_mode='human')


class SparsePointRobotTest(test_case.TestCase):
  def test_the_task_list_is_the_published_one(self):
    tasks = point_robot.SparsePointRobot().sample_tasks(100, 1337)
    np.random.seed(1337)
    angles = np.linspace(0, np.pi, num=100)
    expected = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    np.random.shuffle(expected)
    self.assertAllClose(np.stack([task.parameters for task in tasks]), expected, atol=1e-7, rtol=0)

  def test_goals_lie_on_the_half_circle(self):
    goals = np.stack([t.parameters for t in point_robot.SparsePointRobot().sample_tasks(40, 0)])
    self.assertAllClose(np.linalg.norm(goals, axis=1), np.ones(40), atol=1e-6)
    self.assertAllGreaterEqual(goals[:, 1], 0.0)
    self.assertLen(np.unique(goals, axis=0), 40)

  def test_starts_at_the_origin(self):
    env = point_robot.SparsePointRobot()
    for seed in range(3):
      np.testing.assert_array_equal(env.reset(seed=seed)[0], np.zeros(2, np.float32))

  @parameterized.parameters((0.75, 0.0), (0.81, 0.81), (0.9, 0.9), (1.1, 0.9), (1.3, 0.0))
  def test_sparse_reward_is_paid_within_the_radius(self, y, sparse):
    env = point_robot.SparsePointRobot()
    env.set_task(_task(0.0, 1.0))
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.array([0.0, y]))
    self.assertAlmostEqual(reward, -abs(1.0 - y), places=6)
    self.assertAlmostEqual(info['sparse_reward'], sparse, places=6)

  def test_the_radius_can_be_changed(self):
    env = point_robot.SparsePointRobot(goal_radius=0.8)
    env.set_task(_task(0.0, 1.0))
    env.reset(seed=0)
    self.assertAlmostEqual(env.step(np.array([0.0, 0.25]))[4]['sparse_reward'], 0.25, places=6)
    with self.assertRaisesRegex(ValueError, 'got 0'):
      point_robot.SparsePointRobot(goal_radius=0)

  def test_an_agent_that_knows_the_goal_scores_what_is_known(self):
    env = point_robot.SparsePointRobot()
    returns, dense = [], []
    for task in env.sample_tasks(100, 1337):
      env.set_task(task)
      position, _ = env.reset(seed=0)
      rewards = []
      for _ in range(20):
        position, reward, _, _, info = env.step(np.clip(task.parameters - position, -0.1, 0.1))
        rewards.append((info['sparse_reward'], reward))
      returns.append(np.sum(rewards, axis=0)[0])
      dense.append(np.sum(rewards, axis=0)[1])
    self.assertBetween(np.min(returns), 12.6, 12.8)
    self.assertBetween(np.max(returns), 14.7, 14.9)
    self.assertBetween(np.mean(returns), 13.3, 13.5)
    self.assertBetween(np.mean(dense), -3.9, -3.8)
    start = env.reset(seed=0)[0]
    known = [env.oracle_return(task, start, 20) for task in env.sample_tasks(100, 1337)]
    self.assertAllClose(known, dense)


if __name__ == '__main__':
  absltest.main()
