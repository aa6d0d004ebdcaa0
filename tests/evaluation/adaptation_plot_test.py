import numpy as np
from absl.testing import absltest, parameterized
from matplotlib import colors
from PIL import Image

from pearl_tf.evaluation import adaptation_plot
from pearl_tf.testing import test_case, trajectories


def _returns(num_tasks, num_trajectories, num_repeats=1):
  values = -30.0 + np.arange(num_tasks * num_repeats * num_trajectories)
  return values.reshape(num_tasks, num_repeats, num_trajectories).tolist()


def _path_of(axes, observations):
  """Returns the line that follows these positions."""
  (line,) = [
    line
    for line in axes.get_lines()
    if np.shape(line.get_xydata()) == observations.shape
    and np.allclose(line.get_xydata(), observations)
  ]
  return line


class AdaptationTest(test_case.TestCase):
  def test_every_trajectory_is_drawn_where_it_went(self):
    result = trajectories.meta_test_result(_returns(3, 4), first_task=80)
    figure = adaptation_plot.adaptation(result.trajectories)
    self.assertLen(figure.axes, 6)
    for position in range(3):
      plane = figure.axes[2 * position]
      group = result.trajectories[4 * position : 4 * position + 4]
      lines = [_path_of(plane, trajectory.observations) for trajectory in group]
      self.assertLen({colors.to_hex(line.get_color()) for line in lines}, 4)
      self.assertEqual([line.is_dashed() for line in lines], [True, True, False, False])
      self.assertIn(f'task {80 + position}', plane.get_title())

  def test_goal_is_the_tasks_unless_given(self):
    result = trajectories.meta_test_result(_returns(1, 3))
    default = adaptation_plot.adaptation(result.trajectories).axes[0]
    self.assertAllClose(_star(default), result.trajectories[0].task.parameters)
    given = adaptation_plot.adaptation(
      result.trajectories, goals={0: np.array([2.0, 3.0])}, goal_radius=0.2
    ).axes[0]
    self.assertAllClose(_star(given), [2, 3])
    (disc,) = given.patches
    self.assertEqual((disc.center[0], disc.center[1], disc.radius), (2, 3, 0.2))
    self.assertGreater(given.get_xlim()[1], 2.2)

  def test_belief_shows_mean_and_std_of_each_trajectory(self):
    result = trajectories.meta_test_result(_returns(1, 4))
    belief = adaptation_plot.adaptation(result.trajectories).axes[1]
    self.assertLen(belief.collections, 4)
    for trajectory, bars in zip(result.trajectories, belief.collections, strict=True):
      segments = np.array(bars.get_segments())
      mean, std = trajectory.posterior.mean, np.sqrt(trajectory.posterior.variance)
      self.assertAllClose(segments[:, 0, 1], mean - std)
      self.assertAllClose(segments[:, 1, 1], mean + std)
      self.assertAllEqual(np.round(segments[:, 0, 0]), [trajectory.index + 1] * len(mean))

  def test_belief_positions_are_drawn(self):
    result = trajectories.meta_test_result(_returns(1, 3))
    positions = np.random.default_rng(0).normal(size=(7, 2))
    plane = adaptation_plot.adaptation(
      result.trajectories, belief_positions={(0, 1): positions}
    ).axes[0]
    (dots,) = plane.collections
    self.assertAllClose(dots.get_offsets(), positions)

  def test_only_the_repeat_and_so_many_tasks(self):
    result = trajectories.meta_test_result(_returns(5, 3, num_repeats=2))
    figure = adaptation_plot.adaptation(result.trajectories, max_tasks=2, repeat=1)
    self.assertLen(figure.axes, 4)
    _path_of(figure.axes[0], result.trajectories[3].observations)

  @parameterized.parameters((1, 2), (2, 5), (8, 5), (6, 20))
  def test_file_shows_all_of_its_labels(self, num_tasks, num_trajectories):
    path = self.temp_dir() / 'adaptation.png'
    result = trajectories.meta_test_result(_returns(num_tasks, num_trajectories))
    figure = adaptation_plot.adaptation(result.trajectories, path, goal_radius=0.2)
    with Image.open(path) as image:
      image.load()
      self.assertEqual(image.format, 'PNG')
      self.assertBetween(image.size[0], 1000, 2500)
      self.assertBetween(image.size[1], 500, 2500)
    figure.draw_without_rendering()
    for artist in (*figure.legends, *figure.axes):
      box = artist.get_tightbbox()
      self.assertGreaterEqual(min(box.x0, box.y0), 0)
      self.assertLessEqual(box.x1, figure.bbox.x1)
      self.assertLessEqual(box.y1, figure.bbox.y1)

  def test_many_trajectories_have_a_colour_bar(self):
    few = adaptation_plot.adaptation(trajectories.meta_test_result(_returns(2, 6)).trajectories)
    many = adaptation_plot.adaptation(trajectories.meta_test_result(_returns(2, 7)).trajectories)
    self.assertLen(few.axes, 4)
    self.assertLen(many.axes, 5)
    self.assertIn('trajectory 6 (from the posterior)', _legend(few))
    self.assertNotIn('trajectory 6 (from the posterior)', _legend(many))

  def test_repeat_that_was_not_made_is_refused(self):
    result = trajectories.meta_test_result(_returns(1, 3, num_repeats=2))
    with self.assertRaisesRegex(ValueError, r'repeat 5 among 6; repeats present: \[0, 1\]'):
      adaptation_plot.adaptation(result.trajectories, repeat=5)

  def test_observations_that_are_no_positions_are_refused(self):
    result = trajectories.meta_test_result(_returns(1, 1))
    wide = result.trajectories[0]._replace(observations=np.zeros((5, 20)))
    with self.assertRaisesRegex(ValueError, r'got \(5, 20\)'):
      adaptation_plot.adaptation([wide])


def _star(axes):
  (line,) = [line for line in axes.get_lines() if line.get_marker() == '*']
  return line.get_xydata()[0]


def _legend(figure):
  return [text.get_text() for text in figure.legends[0].get_texts()]


if __name__ == '__main__':
  absltest.main()
