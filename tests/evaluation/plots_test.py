import itertools
import sys

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from pearl_tf.evaluation import plot_style, plots, report
from pearl_tf.evaluation.reference_curves import reference
from pearl_tf.testing import test_case, trajectories


def _curve(label='ours', *, scale=1.0, start=0, num_points=11, hours=True) -> reference.Curve:
  steps = start + 1000.0 * np.arange(num_points)
  elapsed = steps / 20_000 if hours else np.full(num_points, np.nan)
  return reference.Curve(label, steps, elapsed, scale * np.sqrt(steps))


def _line(axes, label):
  (line,) = [line for line in axes.get_lines() if line.get_label() == label]
  return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


class CurveFromMetricsTest(test_case.TestCase):
  def test_lines_without_evaluation_are_passed_over(self):
    records = [
      {'iteration': 1, 'env_steps': 10, 'time/total_hours': 0.1, 'test/final_return': -5.0},
      {'iteration': 2, 'env_steps': 20, 'time/total_hours': 0.2},
      {'iteration': 3, 'env_steps': 30, 'time/total_hours': 0.3, 'test/final_return': None},
      {'iteration': 4, 'env_steps': 40, 'test/final_return': -4.0, 'train/final_return': -1.0},
    ]
    curve = plots.curve_from_metrics('run', records)
    self.assertAllEqual(curve.env_steps, [10, 40])
    self.assertAllEqual(curve.hours, [0.1, np.nan])
    self.assertAllEqual(curve.test_return, [-5, -4])
    train = plots.curve_from_metrics('run', records, metric='train/final_return')
    self.assertAllEqual(train.test_return, [-1])

  def test_missing_metric_names_what_there_is(self):
    records = [{'iteration': 1, 'env_steps': 1, 'test/final_return': 1.0, 'loss/critic': 2.0}]
    with self.assertRaisesRegex(ValueError, 'returns it does have: test/final_return$'):
      plots.curve_from_metrics('run', records, metric='test/final')
    with self.assertRaisesRegex(ValueError, 'has not evaluated yet'):
      plots.curve_from_metrics('run', [])


class LearningCurveTest(test_case.TestCase):
  def test_single_run_is_drawn_as_it_is(self):
    run = _curve()
    steps_axes, hours_axes = plots.learning_curve([run]).axes
    for axes, expected in ((steps_axes, run.env_steps), (hours_axes, run.hours)):
      x, y = _line(axes, 'ours')
      self.assertAllEqual(x, expected)
      self.assertAllEqual(y, run.test_return)

  def test_runs_of_one_label_are_averaged_where_they_overlap(self):
    runs = [_curve(scale=1.0), _curve(scale=3.0, start=2000), _curve('other')]
    axes = plots.learning_curve(runs).axes[0]
    x, y = _line(axes, 'ours (mean and range of 2 runs)')
    self.assertAllEqual(x, np.arange(2000, 10_001, 1000))
    self.assertAllClose(y, 2 * np.sqrt(x))
    (band,) = axes.collections
    vertices = band.get_paths()[0].vertices
    self.assertAllClose(vertices[:, 1].max(), 3 * np.sqrt(10_000))
    self.assertAllClose(vertices[:, 1].min(), np.sqrt(2000))
    self.assertLen(_line(axes, 'other')[0], 11)

  def test_the_band_of_three_runs_is_the_interval_of_their_mean(self):
    axes = plots.learning_curve([_curve(scale=scale) for scale in (1.0, 2.0, 6.0)]).axes[0]
    x, y = _line(axes, 'ours (mean and 95 % interval of 3 runs)')
    self.assertAllClose(y, 3 * np.sqrt(x))
    (band,) = axes.collections
    at_end = band.get_paths()[0].vertices
    at_end = at_end[at_end[:, 0] == x[-1], 1] / np.sqrt(x[-1])
    # Of the 27 draws of three runs two hold but one of them, which 95 % do not leave out.
    self.assertAllClose([at_end.min(), at_end.max()], [1, 6])

  def test_runs_of_one_label_that_never_overlap_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'labels of their own'):
      plots.learning_curve([_curve(), _curve(start=50_000)])

  def test_references_hold_the_published_values(self):
    figure = plots.learning_curve([_curve()], reference='cheetah-dir')
    for curve in reference.load('cheetah-dir'):
      x, y = _line(figure.axes[0], curve.label)
      self.assertAllEqual(x, curve.env_steps)
      self.assertAllEqual(y, curve.test_return)
      self.assertAllEqual(_line(figure.axes[1], curve.label)[0], curve.hours)

  def test_long_reference_is_cut_unless_asked_for(self):
    short = plots.learning_curve([_curve()], reference='cheetah-dir').axes[0]
    full = plots.learning_curve([_curve()], reference='cheetah-dir', full_reference=True).axes[0]
    self.assertAllClose(short.get_xlim(), (0, 13_500))
    self.assertAllClose(full.get_xlim(), (0, 1_444_000))
    # Nor does what is cut off stretch the vertical range.
    self.assertLess(short.get_ylim()[1], 700)
    self.assertGreater(full.get_ylim()[1], 1673)

  def test_large_initial_pool_leaves_no_empty_panel(self):
    axes = plots.learning_curve([_curve(start=200_000)]).axes[0]
    self.assertGreater(axes.get_xlim()[0], 190_000)
    self.assertLess(axes.get_xlim()[0], 200_000)

  def test_legend_lies_outside_the_panels(self):
    figure = plots.learning_curve([_curve('a'), _curve('b')], reference='cheetah-vel')
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    self.assertEqual(
      [text.get_text() for text in legend.get_texts()], ['a', 'b', 'peer (x35f/meta_rl, 1 seed)']
    )
    for axes in figure.axes:
      self.assertFalse(box.overlaps(axes.get_tightbbox()))
    self.assertTrue(figure.bbox.contains(box.x0, box.y0))
    self.assertTrue(figure.bbox.contains(box.x1, box.y1))

  def test_numbers_at_the_ends_do_not_cover_each_other(self):
    runs = [_curve(f'run {k}', scale=1 + 0.002 * k) for k in range(5)]
    figure = plots.learning_curve(runs)
    figure.canvas.draw()
    for axes in figure.axes:
      boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
      self.assertLen(boxes, 5)
      for below, above in itertools.pairwise(boxes):
        self.assertGreater(above.y0 + 0.25 * above.height, below.y1 - 0.25 * below.height)
      self.assertLess(boxes[-1].y1, axes.get_window_extent().y1 + boxes[-1].height)

  @parameterized.parameters((2.5, 'hours'), (1.5, 'minutes'), (0.02, 'seconds'))
  def test_time_is_told_in_what_fits(self, hours, unit):
    run = _curve()
    run = run._replace(hours=run.hours / run.hours.max() * hours)
    axes = plots.learning_curve([run]).axes[1]
    self.assertEqual(axes.get_xlabel(), f'wall clock [{unit}]')
    self.assertGreater(float(axes.get_xticklabels()[-1].get_text()), 1.5)

  def test_run_without_clock_is_drawn_against_steps_only(self):
    steps_axes, hours_axes = plots.learning_curve([_curve(hours=False)]).axes
    self.assertLen(_line(steps_axes, 'ours')[0], 11)
    self.assertEmpty(_line(hours_axes, 'ours')[0])
    self.assertIn('do not say how long', hours_axes.get_title())

  def test_file_is_a_png_and_no_global_state_is_left(self):
    path = self.temp_dir() / 'figures' / 'curve.png'
    plots.learning_curve([_curve()], path, reference='cheetah-vel', title='cheetah-vel')
    with Image.open(path) as image:
      image.load()
      self.assertEqual(image.format, 'PNG')
      self.assertEqual(image.size, (1760, 736))
      colors = np.unique(np.asarray(image.convert('RGB')).reshape(-1, 3), axis=0)
      self.assertGreater(len(colors), 20)
    pyplot = sys.modules.get('matplotlib.pyplot')
    self.assertEmpty(pyplot.get_fignums() if pyplot else [])

  def test_nothing_to_draw_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'no run'):
      plots.learning_curve([])
    with self.assertRaisesRegex(ValueError, 'available are'):
      plots.learning_curve([_curve()], reference='cheetah')


class ReturnsByTrajectoryTest(test_case.TestCase):
  _RETURNS = [[[0, 1, 5, 6]], [[1, 2, 8, 9]], [[-1, 0, 3, 4]]]

  def test_mean_interval_and_levels(self):
    path = self.temp_dir() / 'returns.png'
    result = trajectories.meta_test_result(self._RETURNS)
    figure = plots.returns_by_trajectory(
      {'PEARL': result}, path, oracle_return=9.5, prior_return=-0.25
    )
    (axes,) = figure.axes
    x, y = _line(axes, 'PEARL')
    self.assertAllEqual(x, [1, 2, 3, 4])
    self.assertAllClose(y, report.returns_by_trajectory(result))
    lower, upper = report.confidence_interval([6, 9, 4])
    at_last = axes.collections[0].get_paths()[0].vertices
    at_last = at_last[at_last[:, 0] == 4][:, 1]
    self.assertAllClose((at_last.min(), at_last.max()), (lower, upper))
    self.assertAllEqual(_line(axes, 'oracle, knows the task (9.50)')[1], [9.5, 9.5])
    self.assertAllEqual(
      _line(axes, f'prior, never adapts ({plot_style.MINUS}0.25)')[1], [-0.25] * 2
    )
    with Image.open(path) as image:
      self.assertEqual(image.size, (1120, 704))

  def test_exploration_is_marked(self):
    (axes,) = plots.returns_by_trajectory(
      {'PEARL': trajectories.meta_test_result(self._RETURNS)}
    ).axes
    (span,) = axes.patches
    self.assertAllClose((span.get_x(), span.get_width()), (0.5, trajectories.NUM_PRIOR))

  def test_one_task_has_no_interval(self):
    (axes,) = plots.returns_by_trajectory(
      {'PEARL': trajectories.meta_test_result(self._RETURNS[:1])}
    ).axes
    self.assertEmpty(axes.collections)

  def test_several_results_have_colours_of_their_own(self):
    result = trajectories.meta_test_result(self._RETURNS)
    (axes,) = plots.returns_by_trajectory({'a': result, 'b': result}).axes
    self.assertLen({line.get_color() for line in axes.get_lines()}, 2)

  def test_nothing_to_draw_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'no meta-test'):
      plots.returns_by_trajectory({})


class PlotStyleTest(test_case.TestCase):
  @parameterized.parameters(
    (0, '0'), (950, '950'), (12_000, '12k'), (1_500_000, '1.5M'), (-20_000, '-20k')
  )
  def test_format_count(self, value, expected):
    self.assertEqual(plot_style.format_count(value), expected)

  def test_format_returns(self):
    self.assertEqual(plot_style.format_returns(-283.4, 1.26), [f'{plot_style.MINUS}283', '1'])
    self.assertEqual(plot_style.format_returns(53.44), ['53.4'])
    self.assertEqual(plot_style.format_returns(-0.001), ['0.00'])
    self.assertEqual(plot_style.format_returns(1673.6), ['1,674'])


if __name__ == '__main__':
  absltest.main()
