import numpy as np
from absl.testing import absltest

from pearl_tf.collect import actor
from pearl_tf.data import types
from pearl_tf.environments import point_robot
from pearl_tf.evaluation import calibration, meta_testing, plots
from pearl_tf.testing import test_case

GOALS = np.array([[0.5, -0.2], [-0.8, 0.6]], np.float32)


class Walker(actor.BelievingActor):
  """Walks to its latent, a place."""

  def act(self, observation, step_type, reward, state, seed):
    action = (state.latent - observation) / point_robot.MAX_STEP
    return np.clip(action, -1, 1).astype(np.float32), state


def result_of(means: np.ndarray, std: float) -> meta_testing.MetaTestResult:
  """Returns a meta-test whose last trajectories were acted on N(mean, std^2) of each goal."""

  def trajectory(task: int, index: int, mean: np.ndarray) -> meta_testing.ScoredEpisode:
    return meta_testing.ScoredEpisode(
      task=types.Task(task, GOALS[task]),
      repeat=0,
      index=index,
      episode_return=0.0,
      dense_return=0.0,
      length=1,
      adapted=index > 0,
      latent=mean,
      posterior=types.Posterior(np.float32(mean), np.full(2, std**2, np.float32)),
      observations=np.zeros([2, 2], np.float32),
    )

  trajectories = [
    trajectory(task, index, mean)
    for task in range(2)
    for index, mean in enumerate([np.ones(2), means[task]])
  ]
  return meta_testing.MetaTestResult(trajectories, env_steps=4, seconds=0.0)


def calibrate(means: np.ndarray, std: float) -> calibration.Calibration:
  return calibration.calibrate(
    Walker(), result_of(means, std), num_steps=20, random=np.random.default_rng(0)
  )


class CalibrationTest(test_case.TestCase):
  def test_errors_in_units_of_the_belief(self):
    off = np.array([[0.1, -0.2], [0.0, 0.2]], np.float32)
    found = calibrate(GOALS + off, 0.1)
    self.assertAllClose(found.errors, off, atol=0.03)  # 96 samples of 0.1.
    self.assertAllClose(found.stds, np.full([2, 2], 0.1), rtol=0.25)
    expected = np.sqrt(np.mean((off / 0.1) ** 2))
    self.assertAllClose(found.standardized_error, expected, rtol=0.25)

  def test_sure_and_right_is_not_divided_by_nothing(self):
    found = calibrate(GOALS, 0.0)
    self.assertLess(found.standardized_error, 1e-2)

  def test_is_drawn(self):
    figure = plots.calibration(calibrate(GOALS + 0.1, 0.1), self.temp_dir() / 'calibration.png')
    (axes,) = figure.axes
    self.assertLen(axes.lines[0].get_xdata(), 4)


if __name__ == '__main__':
  absltest.main()
