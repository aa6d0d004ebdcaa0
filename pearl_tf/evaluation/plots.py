"""Figures of returns: learning curves, and how the return grows with the experience of a task.

Each function returns the `matplotlib.figure.Figure` and writes it to a PNG if told where. The
picture of trajectories and beliefs is in `evaluation.adaptation_plot`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pearl_tf.evaluation import calibration as calibration_lib
from pearl_tf.evaluation import plot_style, report
from pearl_tf.evaluation.reference_curves import reference as reference_curves

if TYPE_CHECKING:
  from matplotlib import axes as mpl_axes
  from matplotlib import figure as mpl_figure

  from pearl_tf.evaluation import meta_testing

_STEPS_LABEL = 'env steps (training transitions collected)'
# Units of the time axis, the largest first, with their length in hours.
_TIME_UNITS = {'hours': 1.0, 'minutes': 1 / 60, 'seconds': 1 / 3600}
_LABEL_POINTS = 11
# Two runs have a range, and no interval worth the name.
_RUNS_FOR_INTERVAL = 3
# How far a longer reference is shown past the end of the runs, as a multiple of their extent.
_REFERENCE_EXTENT = 1.35


def curve_from_metrics(
  label: str, records: Sequence[Mapping[str, Any]], *, metric: str = 'test/final_return'
) -> reference_curves.Curve:
  """Picks the learning curve out of the metrics of a run.

  Args:
    label: What the legend calls the run.
    records: The lines of its `metrics.jsonl`, as `experiment.metrics.read` returns them.
    metric: The return to plot. Lines without it, or where it is null, are passed over.

  Returns:
    The curve against `env_steps` and `time/total_hours`.

  Raises:
    ValueError: No line has the metric; the message names what can be plotted instead.
  """
  lines = [record for record in records if record.get(metric) is not None]
  if not lines:
    names = sorted({name for record in records for name in record if 'return' in name})
    raise ValueError(
      f'{label}: none of its {len(records)} lines of metrics has {metric!r}; '
      f'returns it does have: {", ".join(names) or "none, the run has not evaluated yet"}'
    )
  hours = [record.get('time/total_hours') for record in lines]
  return reference_curves.Curve(
    label=label,
    env_steps=np.array([record['env_steps'] for record in lines], np.float64),
    hours=np.array([np.nan if hour is None else hour for hour in hours], np.float64),
    test_return=np.array([record[metric] for record in lines], np.float64),
  )


def learning_curve(
  runs: Sequence[reference_curves.Curve],
  output: str | os.PathLike | None = None,
  *,
  reference: str | None = None,
  title: str = '',
  y_label: str = 'return on test tasks',
  full_reference: bool = False,
) -> mpl_figure.Figure:
  """Draws learning curves against env steps and against hours, side by side.

  Runs that share a label are drawn as their mean over the range they all cover, with the single
  runs faint behind, in a band: the bootstrap interval of the mean, or of two runs their range.

  Args:
    runs: The curves, see `curve_from_metrics`.
    output: The PNG to write.
    reference: Domain whose published curves are drawn in grey, see `reference_curves`.
    title: Heading.
    y_label: Name of the return.
    full_reference: Shows references to their end, even where the runs are much shorter.

  Returns:
    The figure; its two axes hold one labelled line per label and per reference.

  Raises:
    ValueError: There is no run, or no reference of that name.
  """
  if not runs:
    raise ValueError('there is no run to draw; give at least one')
  references = reference_curves.load(reference) if reference else []
  figure = plot_style.new_figure(11, 4.6, title=title)
  steps_axes, hours_axes = figure.subplots(1, 2, sharey=True)
  for axes, field in ((steps_axes, 'env_steps'), (hours_axes, 'hours')):
    plot_style.decorate(axes)
    _draw_references(axes, references, field)
    _draw_runs(axes, runs, field)
    _limit_x(axes, runs, references, field, full_reference=full_reference)
  steps_axes.set_xlabel(_STEPS_LABEL, color=plot_style.INK)
  _name_time_axis(hours_axes)
  steps_axes.set_ylabel(y_label, color=plot_style.INK)
  steps_axes.xaxis.set_major_formatter(plot_style.format_count)
  _limit_y((steps_axes, hours_axes))
  for axes in (steps_axes, hours_axes):
    _spread_labels(axes)
  if not any(np.isfinite(run.hours).any() for run in runs):
    hours_axes.set_title('the runs do not say how long they took', fontsize=10)
  figure.legend(
    handles=_legend_handles(steps_axes), loc='outside lower center', ncols=3, frameon=False
  )
  plot_style.save(figure, output)
  return figure


def returns_by_trajectory(
  results: Mapping[str, meta_testing.MetaTestResult],
  output: str | os.PathLike | None = None,
  *,
  oracle_return: float | None = None,
  prior_return: float | None = None,
  confidence: float = 0.95,
  title: str = 'Return by trajectory on unseen tasks',
) -> mpl_figure.Figure:
  """Draws the mean return against the trajectory index, with its interval over tasks.

  Args:
    results: Meta-tests by label.
    output: The PNG to write.
    oracle_return: Mean return of a policy that knows the task, drawn as a line.
    prior_return: Mean return of a policy that never adapts, drawn as a line.
    confidence: Probability of the intervals, which need at least two tasks.
    title: Heading.

  Returns:
    The figure, of one axes.

  Raises:
    ValueError: There is no result, or one without trajectories.
  """
  if not results:
    raise ValueError('there is no meta-test to draw; give at least one')
  from matplotlib import ticker

  figure = plot_style.new_figure(7, 4.4, title=title)
  axes = figure.subplots()
  plot_style.decorate(axes)
  for position, (label, result) in enumerate(results.items()):
    color = plot_style.run_color(position)
    returns = report.stacked_returns_by_trajectory(result)
    index = np.arange(1, returns.shape[1] + 1)
    axes.plot(index, returns.mean(axis=0), 'o-', color=color, linewidth=2, label=label)
    if len(returns) > 1:
      lower, upper = np.transpose(
        [report.confidence_interval(column, confidence=confidence) for column in returns.T]
      )
      axes.fill_between(index, lower, upper, color=color, alpha=0.15, linewidth=0)
  _draw_level(axes, oracle_return, 'oracle, knows the task', color='#009E73')
  _draw_level(axes, prior_return, 'prior, never adapts', color='#7A7A7A')
  _shade_exploration(axes, results)
  axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
  axes.set_xlabel('trajectory in the task', color=plot_style.INK)
  axes.set_ylabel(f'return (mean, {confidence:.0%} interval over tasks)', color=plot_style.INK)
  axes.margins(y=0.12)
  figure.legend(loc='outside lower center', ncols=2, frameon=False)
  plot_style.save(figure, output)
  return figure


def calibration(
  found: calibration_lib.Calibration, output: str | os.PathLike | None = None
) -> mpl_figure.Figure:
  """Draws how far beliefs are off against how far they say they may be.

  Args:
    found: Beliefs of a meta-test as places.
    output: The PNG to write.

  Returns:
    The figure.
  """
  figure = plot_style.new_figure(5.6, 4.8)
  axes = figure.subplots()
  plot_style.decorate(axes)
  stds, errors = found.stds.ravel(), np.abs(found.errors).ravel()
  axes.loglog(stds, errors, 'o', color=plot_style.run_color(0), alpha=0.5, markersize=4)
  ends = np.array([stds.min() / 2, stds.max() * 2])
  for factor, label in ((1, '1 standard deviation'), (2, '2 standard deviations')):
    axes.plot(ends, factor * ends, '-' if factor == 1 else '--', color=plot_style.INK, label=label)
  axes.set_xlim(*ends)
  axes.set_ylim(bottom=ends[0] / 10)
  axes.set_xlabel('standard deviation of where the belief leads', color=plot_style.INK)
  axes.set_ylabel('distance of its mean from the goal, by axis', color=plot_style.INK)
  axes.set_title(f'standardised error {found.standardized_error:.2f}', color=plot_style.INK)
  figure.legend(loc='outside lower center', ncols=2, frameon=False)
  plot_style.save(figure, output)
  return figure


def _draw_references(axes: mpl_axes.Axes, references, field: str) -> None:
  for position, curve in enumerate(references):
    axes.plot(
      getattr(curve, field),
      curve.test_return,
      color=plot_style.REFERENCE_COLORS[position],
      linestyle=plot_style.REFERENCE_DASHES[position],
      linewidth=1.4,
      label=curve.label,
    )


def _draw_runs(axes: mpl_axes.Axes, runs: Sequence[reference_curves.Curve], field: str) -> None:
  labels = list(dict.fromkeys(run.label for run in runs))
  for position, label in enumerate(labels):
    color = plot_style.run_color(position)
    group = [(getattr(run, field), run.test_return) for run in runs if run.label == label]
    group = [(x[np.isfinite(x)], y[np.isfinite(x)]) for x, y in group if np.isfinite(x).any()]
    if not group:
      axes.plot([], [], color=color, label=label)
      continue
    x, stacked = _on_common_grid(group)
    axes.plot(x, stacked.mean(axis=0), color=color, linewidth=2.2, label=_count(label, group))
    if len(group) > 1:
      axes.fill_between(x, *_band(stacked), color=color, alpha=0.18, lw=0)
      for single_x, single_y in group:
        axes.plot(single_x, single_y, color=color, linewidth=0.8, alpha=0.35)
    axes.plot(x[-1], stacked[:, -1].mean(), 'o', color=color, markersize=5)
    axes.annotate(
      *plot_style.format_returns(stacked[:, -1].mean()),
      (x[-1], stacked[:, -1].mean()),
      xytext=(7, 0),
      textcoords='offset points',
      va='center',
      fontsize=9,
      fontweight='bold',
      color=color,
      path_effects=plot_style.outline(),
    )


def _band(stacked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the lower and upper end of a band around the mean of `[runs, K]`."""
  if len(stacked) < _RUNS_FOR_INTERVAL:
    return stacked.min(axis=0), stacked.max(axis=0)
  from scipy import stats

  found = stats.bootstrap(
    (stacked,), np.mean, axis=0, n_resamples=2000, method='percentile', rng=np.random.default_rng(0)
  )
  return found.confidence_interval.low, found.confidence_interval.high


def _spread_labels(axes: mpl_axes.Axes) -> None:
  """Moves the numbers at the ends of curves apart where one would cover another."""
  height = axes.get_window_extent().height * 72 / axes.get_figure().dpi
  lower, upper = axes.get_ylim()
  labels = sorted(axes.texts, key=lambda text: text.xy[1])
  wanted = [(label.xy[1] - lower) / (upper - lower) * height for label in labels]
  places, lowest = [], -np.inf
  for place in wanted:
    lowest = max(place, lowest + _LABEL_POINTS)
    places.append(lowest)
  highest = height
  for index in reversed(range(len(labels))):
    places[index] = min(places[index], highest)
    highest = places[index] - _LABEL_POINTS
    labels[index].xyann = (labels[index].xyann[0], places[index] - wanted[index])


def _name_time_axis(axes: mpl_axes.Axes) -> None:
  """Shows seconds, minutes or hours, the largest unit of which there are at least two."""
  from matplotlib import ticker

  extent = axes.get_xlim()[1]
  unit = next((u for u, size in _TIME_UNITS.items() if extent >= 2 * size), 'seconds')
  size = _TIME_UNITS[unit]
  axes.xaxis.set_major_locator(ticker.FixedLocator(_ticks(axes.get_xlim(), size)))
  axes.xaxis.set_major_formatter(lambda hours, unused: f'{hours / size:.4g}')
  axes.set_xlabel(f'wall clock [{unit}]', color=plot_style.INK)


def _ticks(limits: tuple[float, float], size: float) -> np.ndarray:
  from matplotlib import ticker

  values = ticker.MaxNLocator(8).tick_values(limits[0] / size, limits[1] / size) * size
  return values[(values >= limits[0]) & (values <= limits[1])]


def _on_common_grid(group) -> tuple[np.ndarray, np.ndarray]:
  """Returns `[K]` and `[runs, K]`: runs interpolated where they overlap; one run stays as it is."""
  if len(group) == 1:
    return group[0][0], group[0][1][np.newaxis]
  lower = max(x[0] for x, _ in group)
  upper = min(x[-1] for x, _ in group)
  if lower > upper:
    raise ValueError(
      f'runs of one label do not overlap (one starts at {lower:g}, one ends at {upper:g}); '
      'give them labels of their own'
    )
  grid = np.unique(np.concatenate([x for x, _ in group] + [[lower, upper]]))
  grid = grid[(grid >= lower) & (grid <= upper)]
  return grid, np.stack([np.interp(grid, x, y) for x, y in group])


def _limit_x(axes: mpl_axes.Axes, runs, references, field: str, *, full_reference: bool) -> None:
  starts, ends = _ends(runs, field)
  reference_starts, reference_ends = _ends(references, field)
  last = max(ends, default=0.0)
  longest = max([last, *reference_ends])
  if not full_reference and last > 0:
    longest = min(longest, _REFERENCE_EXTENT * last)
  # The room on the right is for the number at the end of each curve.
  right = max(longest, 1.12 * last) or 1.0
  first = min([*starts, *reference_starts], default=0.0)
  # A large initial pool would leave much of the panel empty.
  axes.set_xlim(first - 0.05 * (right - first) if first > 0.25 * right else 0, right)


def _ends(curves: Sequence[reference_curves.Curve], field: str) -> tuple[list, list]:
  """Returns the first and the last finite position of each curve that has one."""
  positions = [getattr(curve, field) for curve in curves]
  positions = [values[np.isfinite(values)] for values in positions]
  positions = [values for values in positions if values.size]
  return [values.min() for values in positions], [values.max() for values in positions]


def _limit_y(panels: Sequence[mpl_axes.Axes]) -> None:
  """Fits the shared vertical range to what the panels show, not to what lies beyond their ends."""
  values = []
  for axes in panels:
    left, right = axes.get_xlim()
    for line in axes.get_lines():
      x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
      values.append(y[(x >= left) & (x <= right) & np.isfinite(y)])
  values = np.concatenate(values)
  lower, upper = values.min(), values.max()
  margin = 0.06 * (upper - lower) or 1.0
  panels[0].set_ylim(lower - margin, upper + margin)


def _legend_handles(axes: mpl_axes.Axes) -> list:
  """Returns the runs first, then the references, which are drawn beneath them."""
  handles = [line for line in axes.get_lines() if not line.get_label().startswith('_')]
  return sorted(handles, key=lambda line: line.get_color() in plot_style.REFERENCE_COLORS)


def _draw_level(axes: mpl_axes.Axes, value: float | None, label: str, *, color: str) -> None:
  if value is not None:
    label = f'{label} ({plot_style.format_returns(value)[0]})'
    axes.axhline(value, color=color, linestyle=(0, (5, 2)), linewidth=1.5, label=label)


def _shade_exploration(axes: mpl_axes.Axes, results: Mapping[str, Any]) -> None:
  """Marks the trajectories at the start of which all act on a latent drawn from the prior."""
  trajectories = [one for result in results.values() for one in result.trajectories]
  adapted = [one.index for one in trajectories if one.adapted]
  num_prior = min(adapted) if adapted else 0
  if num_prior:
    label = 'exploring: latent from the prior'
    axes.axvspan(0.5, num_prior + 0.5, color='#EFEFEF', zorder=0, linewidth=0, label=label)
    axes.set_xlim(left=0.5)


def _count(label: str, group: Sequence[Any]) -> str:
  if len(group) == 1:
    return label
  band = 'range' if len(group) < _RUNS_FOR_INTERVAL else '95 % interval'
  return f'{label} (mean and {band} of {len(group)} runs)'
