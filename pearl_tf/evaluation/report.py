"""Turns the trajectories of a meta-test into numbers: returns, intervals and a table to print.

The definitions are those of the authors' evaluation: the *final return* is that of the last
trajectory of a meta-test, averaged over its repeats and then over tasks; the *success rate* is the
same mean of whether that trajectory succeeded. Nothing is run here;
`evaluation.meta_testing` produces what is summarized.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box, table
from rich import text as rich_text
from scipy import stats

if TYPE_CHECKING:
  from pearl_tf.evaluation import meta_testing

_MAX_TRAJECTORY_COLUMNS = 6
_NUM_RESAMPLES = 2000


def final_returns(result: meta_testing.MetaTestResult) -> dict[int, float]:
  """Returns the final return of each task: of the last trajectory, averaged over repeats.

  Args:
    result: A meta-test.

  Returns:
    The mean undiscounted return by task index, in ascending order of the index.

  Raises:
    ValueError: The meta-test holds no trajectory.
  """
  return {
    task: float(np.mean([returns[-1] for returns in repeats]))
    for task, repeats in _returns_by_task(result).items()
  }


def success_rates(result: meta_testing.MetaTestResult) -> dict[int, float] | None:
  """Returns the success rate of each task: of the last trajectory, averaged over repeats.

  Args:
    result: A meta-test.

  Returns:
    The share in [0, 1] by task index, in ascending order of the index; None where the environment
    does not say of every trajectory whether it succeeded.

  Raises:
    ValueError: The meta-test holds no trajectory.
  """
  grouped = _by_task(result, lambda trajectory: trajectory.success)
  if any(trajectory.success is None for trajectory in result.trajectories):
    return None
  return {
    task: float(np.mean([successes[-1] for successes in repeats]))
    for task, repeats in grouped.items()
  }


def task_returns_by_trajectory(result: meta_testing.MetaTestResult) -> dict[int, np.ndarray]:
  """Returns how the return of each task develops from its first trajectory on.

  Args:
    result: A meta-test.

  Returns:
    By task index, in ascending order, `[K] float64`: the return of the k-th trajectory averaged
    over repeats, up to the length of the task's shortest repeat. (Repeats differ in length where
    episodes end early and more of them fit into the budget of steps.)

  Raises:
    ValueError: The meta-test holds no trajectory.
  """
  curves = {}
  for task, repeats in _returns_by_task(result).items():
    shortest = min(len(returns) for returns in repeats)
    curves[task] = np.mean([returns[:shortest] for returns in repeats], axis=0)
  return curves


def returns_by_trajectory(result: meta_testing.MetaTestResult) -> np.ndarray:
  """Returns how the return develops from the first trajectory on, averaged over tasks.

  Args:
    result: A meta-test.

  Returns:
    `[K] float64`, the mean over repeats and then over tasks, cut to the shortest.

  Raises:
    ValueError: The meta-test holds no trajectory.
  """
  return np.mean(stacked_returns_by_trajectory(result), axis=0)


def stacked_returns_by_trajectory(result: meta_testing.MetaTestResult) -> np.ndarray:
  """Returns `[tasks, K] float64`: `task_returns_by_trajectory` of all tasks, cut to the shortest.

  Raises:
    ValueError: The meta-test holds no trajectory.
  """
  curves = list(task_returns_by_trajectory(result).values())
  shortest = min(len(curve) for curve in curves)
  return np.stack([curve[:shortest] for curve in curves])


def confidence_interval(
  values: Sequence[float] | np.ndarray, *, confidence: float = 0.95
) -> tuple[float, float] | None:
  """Returns an interval for the mean of independent values, by Student's t distribution.

  Mathematical Details:
    mean +- q * s / sqrt(n), with s the standard deviation of n - 1 degrees of freedom and q the
    (1 + confidence) / 2 quantile of Student's t with as many degrees of freedom.

  Args:
    values: `[n]`, for example one mean return per task.
    confidence: Probability with which such intervals hold the true mean.

  Returns:
    Its lower and upper end; None where fewer than two values leave the spread unknown.

  Raises:
    ValueError: `confidence` is not between 0 and 1.
  """
  if not 0 < confidence < 1:
    raise ValueError(f'confidence must be between 0 and 1, got {confidence}; 0.95 is usual')
  values = np.asarray(values, np.float64)
  if values.size < 2:
    return None
  scale = stats.sem(values)
  if scale == 0:
    return float(values[0]), float(values[0])
  lower, upper = stats.t.interval(confidence, values.size - 1, loc=values.mean(), scale=scale)
  return float(lower), float(upper)


def interquartile_mean(
  values_by_task: Mapping[int, Sequence[float]], *, confidence: float = 0.95
) -> tuple[float, tuple[float, float] | None]:
  """Returns the mean of the middle half of all values, which no single task decides.

  Args:
    values_by_task: Of each task the value of every repeat.
    confidence: Probability of the interval.

  Returns:
    The mean, and its interval by a bootstrap that draws the repeats of each task anew (Agarwal et
    al. 2021, stratified by task); None where a task has one repeat only.
  """

  def statistic(*samples, axis=-1):
    return stats.trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)

  samples = [np.asarray(values, np.float64) for values in values_by_task.values()]
  mean = float(statistic(*samples))
  if min(len(sample) for sample in samples) < 2:
    return mean, None
  found = stats.bootstrap(
    samples,
    statistic,
    n_resamples=_NUM_RESAMPLES,
    confidence_level=confidence,
    method='percentile',
    rng=np.random.default_rng(0),
  ).confidence_interval
  return mean, (float(found.low), float(found.high))


def summarize(result: meta_testing.MetaTestResult, confidence: float = 0.95) -> dict[str, Any]:
  """Summarizes a meta-test as plain data that `json.dump` takes.

  Args:
    result: A meta-test.
    confidence: Probability of the interval over tasks.

  Returns:
    A dictionary of
      `final_return`: the mean over tasks of `final_returns`;
      `final_return_std`: their standard deviation over tasks (n - 1; None for one task);
      `final_return_interval`: `[lower, upper]` for the mean over tasks, None for one task;
      `interquartile_mean`, `interquartile_mean_interval`: see `interquartile_mean`;
      `confidence`: that of the intervals;
      `returns_by_trajectory`: list of the mean returns by trajectory index;
      `tasks`: a list, one per task, of `index`, `parameters`, `final_return` and
        `returns_by_trajectory`;
      `num_tasks`, `num_repeats`, `env_steps`, `seconds`: what it took.
    Where the environment tells success, it and each of its tasks have a `success_rate` too.

  Raises:
    ValueError: The meta-test holds no trajectory, or `confidence` is not between 0 and 1.
  """
  finals = final_returns(result)
  curves = task_returns_by_trajectory(result)
  values = np.array(list(finals.values()))
  interval = confidence_interval(values, confidence=confidence)
  parameters = {one.task.index: one.task.parameters for one in result.trajectories}
  repeats = {task: [own[-1] for own in runs] for task, runs in _returns_by_task(result).items()}
  middle, middle_interval = interquartile_mean(repeats, confidence=confidence)
  summary = {
    'final_return': float(np.mean(values)),
    'final_return_std': float(np.std(values, ddof=1)) if values.size > 1 else None,
    'final_return_interval': None if interval is None else list(interval),
    'interquartile_mean': middle,
    'interquartile_mean_interval': None if middle_interval is None else list(middle_interval),
    'confidence': float(confidence),
    'returns_by_trajectory': returns_by_trajectory(result).tolist(),
    'tasks': [
      {
        'index': index,
        'parameters': np.asarray(parameters[index], np.float64).ravel().tolist(),
        'final_return': final,
        'returns_by_trajectory': curves[index].tolist(),
      }
      for index, final in finals.items()
    ],
    'num_tasks': len(finals),
    'num_repeats': len({trajectory.repeat for trajectory in result.trajectories}),
    'env_steps': int(result.env_steps),
    'seconds': float(result.seconds),
  }
  rates = success_rates(result)
  if rates is not None:
    summary['success_rate'] = float(np.mean(list(rates.values())))
    for row in summary['tasks']:
      row['success_rate'] = rates[row['index']]
  return summary


def format_table(
  summary: Mapping[str, Any], *, title: str | None = None, max_tasks: int | None = None
) -> table.Table:
  """Lays a summary out as a table for terminals: a row per task, and the mean as the last row.

  Args:
    summary: What `summarize` returned, or its JSON read back.
    title: Printed above it.
    max_tasks: Shows only so many tasks; the mean is over all of them nevertheless. Of many
      trajectories a selection is shown too.

  Returns:
    A renderable for `rich.console.Console().print`.
  """
  shown = _spread(len(summary['returns_by_trajectory']), _MAX_TRAJECTORY_COLUMNS)
  rows = summary['tasks'] if max_tasks is None else summary['tasks'][:max_tasks]
  layout = table.Table(
    title=title,
    box=box.SIMPLE_HEAD,
    show_footer=True,
    caption=f'#k: return of trajectory k; {_caption(summary)}',
    padding=(0, 1, 0, 0),
    pad_edge=False,
  )
  columns = {'task': ('mean', [str(row['index']) for row in rows])}
  for index in shown:
    mean = summary['returns_by_trajectory'][index]
    returns = [f'{row["returns_by_trajectory"][index]:.1f}' for row in rows]
    columns[f'#{index + 1}'] = (f'{mean:.1f}', returns)
  finals = [f'{row["final_return"]:.1f}' for row in rows]
  columns['final return'] = (_mean_and_half_width(summary), finals)
  if 'success_rate' in summary:
    rates = [f'{row["success_rate"]:.0%}' for row in rows]
    columns['success'] = (f'{summary["success_rate"]:.1%}', rates)
  parameters = [' '.join(f'{parameter:.3g}' for parameter in row['parameters']) for row in rows]
  for name, (footer, cells) in columns.items():
    # Numbers are never cut off, so that where there is little room the parameters are.
    width = max(map(len, (name, footer, *cells)))
    layout.add_column(name, justify='right', footer=footer, no_wrap=True, min_width=width)
    if name == 'task':
      layout.add_column('parameters')
  for cells in zip(*(cells for _, cells in columns.values()), parameters, strict=True):
    cut = rich_text.Text(cells[-1], no_wrap=True, overflow='ellipsis')
    layout.add_row(cells[0], cut, *cells[1:-1])
  hidden = len(summary['tasks']) - len(rows)
  if hidden:
    layout.add_row('...', f'{hidden} more')
  return layout


def in_words(summary: Mapping[str, Any]) -> str:
  """Returns one line: the final return with its interval, and how it was measured."""
  return f'final return {_mean_and_half_width(summary)}; {_caption(summary)}'


def _returns_by_task(result: meta_testing.MetaTestResult) -> dict[int, list[list[float]]]:
  return _by_task(result, lambda trajectory: trajectory.episode_return)


def _by_task(
  result: meta_testing.MetaTestResult, value_fn: Callable[[meta_testing.ScoredEpisode], Any]
) -> dict[int, list[list[Any]]]:
  """Groups values by task, then by repeat, each in ascending order of trajectory index."""
  if not result.trajectories:
    raise ValueError('the meta-test holds no trajectory; nothing can be reported')
  grouped: dict[int, dict[int, dict[int, Any]]] = {}
  for trajectory in result.trajectories:
    repeats = grouped.setdefault(trajectory.task.index, {})
    repeats.setdefault(trajectory.repeat, {})[trajectory.index] = value_fn(trajectory)
  return {
    task: [[values[index] for index in sorted(values)] for values in grouped[task].values()]
    for task in sorted(grouped)
  }


def _spread(count: int, limit: int) -> list[int]:
  """Returns at most `limit` of the indices below `count`, the first and the last among them."""
  return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int)).tolist()


def _mean_and_half_width(summary: Mapping[str, Any]) -> str:
  interval = summary['final_return_interval']
  text = f'{summary["final_return"]:.1f}'
  return text if interval is None else f'{text} ± {(interval[1] - interval[0]) / 2:.1f}'


def _caption(summary: Mapping[str, Any]) -> str:
  text = (
    f'{summary["num_tasks"]} tasks x {summary["num_repeats"]} repeats, '
    f'{summary["env_steps"]:,} env steps in {summary["seconds"]:.1f} s'
  )
  if summary['final_return_interval'] is not None:
    text += f'; ± {summary["confidence"]:.0%} interval over tasks'
  if 'interquartile_mean' in summary:  # Agents published by earlier versions do not say it.
    text += f'; interquartile mean {summary["interquartile_mean"]:.1f}'
    if summary['interquartile_mean_interval'] is not None:
      text += ' [{:.1f}, {:.1f}]'.format(*summary['interquartile_mean_interval'])
  return text
