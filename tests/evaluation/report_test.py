import io
import json
import re

import numpy as np
import tensorflow_probability as tfp
from absl.testing import absltest, parameterized
from rich import console
from scipy import stats

from pearl_tf.evaluation import meta_testing, report
from pearl_tf.testing import test_case, trajectories

# Two tasks of two repeats; the second repeat of the second task ended early and has one more.
_RETURNS = [[[1, 2, 10], [3, 4, 20]], [[-1, -2, -3], [-5, -6, -7, -8]]]


class ReportTest(test_case.TestCase):
  def test_final_return_is_that_of_the_last_trajectory(self):
    result = trajectories.meta_test_result(_RETURNS, first_task=80)
    self.assertEqual(report.final_returns(result), {80: 15.0, 81: -5.5})

  def test_order_of_the_trajectories_does_not_matter(self):
    result = trajectories.meta_test_result(_RETURNS)
    shuffled = result._replace(trajectories=result.trajectories[::-1])
    self.assertEqual(report.final_returns(shuffled), report.final_returns(result))
    self.assertEqual(report.summarize(shuffled), report.summarize(result))

  def test_returns_by_trajectory_are_cut_to_the_shortest(self):
    result = trajectories.meta_test_result(_RETURNS)
    by_task = report.task_returns_by_trajectory(result)
    self.assertAllClose(by_task[0], [2, 3, 15])
    self.assertAllClose(by_task[1], [-3, -4, -5])
    self.assertAllClose(report.returns_by_trajectory(result), [-0.5, -0.5, 5])

  def test_tasks_of_different_length_are_cut_to_the_shortest(self):
    result = trajectories.meta_test_result([[[1, 2, 3, 4]], [[5, 6]]])
    self.assertAllClose(report.returns_by_trajectory(result), [3, 4])
    self.assertEqual(report.final_returns(result), {0: 4.0, 1: 6.0})

  @parameterized.product(num_values=[2, 3, 30], confidence=[0.5, 0.95, 0.99])
  def test_interval_is_that_of_student(self, num_values, confidence):
    values = np.random.default_rng(1).normal(-50, 7, num_values)
    student = tfp.distributions.StudentT(
      np.float64(num_values - 1), values.mean(), np.std(values, ddof=1) / np.sqrt(num_values)
    )
    expected = student.quantile([(1 - confidence) / 2, (1 + confidence) / 2])
    actual = report.confidence_interval(values, confidence=confidence)
    self.assertAllClose(actual, expected, rtol=1e-6, atol=0)

  def test_no_single_task_decides_the_interquartile_mean(self):
    values = {task: [float(task), task + 0.5] for task in range(7)} | {7: [-900.0, -1000.0]}
    middle, (lower, upper) = report.interquartile_mean(values)
    ordered = sorted(value for own in values.values() for value in own)
    self.assertAlmostEqual(middle, np.mean(ordered[4:12]))
    # Tasks are strata: repeats that lie close together leave a narrow interval.
    self.assertBetween(upper - lower, 0.05, 1.0)
    self.assertBetween(middle, lower, upper)
    self.assertEqual(report.interquartile_mean({0: [1.0], 1: [2.0, 3.0]})[1], None)

  def test_interval_of_one_task_is_unknown(self):
    self.assertIsNone(report.confidence_interval([3.0]))
    summary = report.summarize(trajectories.meta_test_result([[[1, 2, 3]]]))
    self.assertIsNone(summary['final_return_interval'])
    self.assertIsNone(summary['final_return_std'])
    self.assertEqual(summary['final_return'], 3.0)

  @parameterized.parameters(0, 1, 95)
  def test_impossible_confidence_is_refused(self, confidence):
    with self.assertRaisesRegex(ValueError, f'between 0 and 1, got {confidence}'):
      report.confidence_interval([1.0, 2.0], confidence=confidence)

  def test_summary_is_json_and_complete(self):
    result = trajectories.meta_test_result(_RETURNS, first_task=80)
    summary = json.loads(json.dumps(report.summarize(result, confidence=0.9), allow_nan=False))
    self.assertEqual(summary['final_return'], 4.75)
    self.assertAllClose(summary['final_return_std'], np.std([15, -5.5], ddof=1))
    self.assertAllClose(
      summary['final_return_interval'],
      stats.t.interval(0.9, 1, loc=4.75, scale=stats.sem([15, -5.5])),
    )
    self.assertEqual(summary['returns_by_trajectory'], [-0.5, -0.5, 5])
    self.assertEqual([task['index'] for task in summary['tasks']], [80, 81])
    self.assertAllClose(summary['tasks'][1]['parameters'], result.trajectories[-1].task.parameters)
    self.assertEqual(summary['tasks'][1]['final_return'], -5.5)
    self.assertEqual(summary['tasks'][1]['returns_by_trajectory'], [-3, -4, -5])
    self.assertEqual((summary['num_tasks'], summary['num_repeats']), (2, 2))
    self.assertEqual((summary['env_steps'], summary['seconds']), (13 * 4, 1.5))

  def test_the_success_rate_is_that_of_the_last_trajectory(self):
    result = trajectories.meta_test_result(_RETURNS, first_task=80)
    # A return above 15 or below -7 counts: one of two repeats of each task, the last trajectory.
    told = result._replace(
      trajectories=[
        one._replace(success=float(not -7 < one.episode_return < 15)) for one in result.trajectories
      ]
    )
    self.assertEqual(report.success_rates(told), {80: 0.5, 81: 0.5})
    summary = json.loads(json.dumps(report.summarize(told), allow_nan=False))
    self.assertEqual(summary['success_rate'], 0.5)
    self.assertEqual([task['success_rate'] for task in summary['tasks']], [0.5, 0.5])
    text = _render(report.format_table(summary))
    self.assertRegex(text, r'(?m)^ +80 .* 15\.0 +50% *$')
    self.assertRegex(text, r'(?m)^ +mean .* 50\.0% *$')

  def test_without_a_word_of_success_there_is_no_rate(self):
    result = trajectories.meta_test_result(_RETURNS)
    self.assertIsNone(report.success_rates(result))
    summary = report.summarize(result)
    self.assertNotIn('success_rate', summary)
    self.assertNotIn('success_rate', summary['tasks'][0])
    self.assertNotIn('success', _render(report.format_table(summary)))

  def test_empty_meta_test_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'holds no trajectory'):
      report.summarize(meta_testing.MetaTestResult(trajectories=[], env_steps=0, seconds=0.0))

  def test_table_shows_tasks_mean_and_interval(self):
    summary = report.summarize(trajectories.meta_test_result(_RETURNS, first_task=80))
    lower, upper = summary['final_return_interval']
    text = _render(report.format_table(summary, title='held-out tasks'))
    self.assertIn('held-out tasks', text)
    self.assertRegex(text, r'(?m)^ +80 .* 2\.0 +3\.0 +15\.0 +15\.0 *$')
    self.assertRegex(text, r'(?m)^ +mean .* -0\.5 +-0\.5 +5\.0 ')
    self.assertIn(f'4.8 ± {(upper - lower) / 2:.1f}', text)
    self.assertIn('2 tasks x 2 repeats', text)

  def test_table_of_much_data_stays_small(self):
    returns = np.arange(12 * 20, dtype=float).reshape(12, 1, 20).tolist()
    summary = report.summarize(trajectories.meta_test_result(returns))
    text = _render(report.format_table(summary, max_tasks=3))
    self.assertIn('9 more', text)
    self.assertIn('#1 ', text)
    self.assertIn('#20', text)
    self.assertNotIn('#2 ', text)
    self.assertLessEqual(max(map(len, text.splitlines())), 110)

  def test_a_terminal_of_80_columns_breaks_no_row(self):
    returns = (np.arange(12 * 6, dtype=float).reshape(12, 1, 6) * -3.7).tolist()
    text = _render(
      report.format_table(report.summarize(trajectories.meta_test_result(returns))), width=80
    )
    self.assertLen([line for line in text.splitlines() if re.match(r' *\d+ .*\d\.\d *$', line)], 12)
    self.assertLessEqual(max(map(len, text.splitlines())), 80)


def _render(renderable, width: int = 110) -> str:
  stream = io.StringIO()
  console.Console(file=stream, width=width).print(renderable)
  return stream.getvalue()


if __name__ == '__main__':
  absltest.main()
