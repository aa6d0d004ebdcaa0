"""How many env steps a method needs for what another one reaches at last.

For each baseline its best level within its budget, the steps to 0.95 of it for it and for PEARL,
and their ratio. Levels are trailing means of five evaluations, never single ones, and nothing is
extrapolated: where a method never gets there, the ratio is a bound and says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pearl_tf.evaluation import plot_style

if TYPE_CHECKING:
  from matplotlib import figure as mpl_figure

WINDOW = 5
SHARE = 0.95
METRIC = 'test/final_return'


class Curve(NamedTuple):
  """A run, by its evaluations in order.

  Attributes:
    env_steps: `[K]`.
    level: `[K]`, the mean of the last five evaluations; NaN where there are not yet five.
    hours: `[K]`, wall clock.
  """

  env_steps: np.ndarray
  level: np.ndarray
  hours: np.ndarray


def curve(records: Sequence[Mapping[str, Any]]) -> Curve:
  """Returns the curve of a run's metrics.

  Raises:
    ValueError: if there are fewer than five evaluations.
  """
  rows = [(r['env_steps'], r[METRIC], r['hours']) for r in records if r.get(METRIC) is not None]
  if len(rows) < WINDOW:
    raise ValueError(f'{len(rows)} evaluations; a trailing mean needs {WINDOW}')
  env_steps, returns, hours = np.array(rows, np.float64).T
  means = np.convolve(returns, np.full(WINDOW, 1 / WINDOW), mode='valid')
  return Curve(env_steps, np.concatenate([np.full(WINDOW - 1, np.nan), means]), hours)


def first_at(one: Curve, level: float) -> tuple[float, float] | None:
  """Returns between which env steps a run first reached a level.

  Returns:
    The evaluation before and the one that shows it, as far apart as evaluations are; None if it
    never did.
  """
  reached = np.flatnonzero(one.level >= level)
  if not len(reached):
    return None
  index = int(reached[0])
  return float(one.env_steps[index - 1]) if index else 0.0, float(one.env_steps[index])


def still_rising(one: Curve) -> bool:
  """Tells whether the level in the last fifth of the budget exceeds all before it."""
  last = one.env_steps > 0.8 * one.env_steps[-1]
  before, after = one.level[~last], one.level[last]
  before, after = before[np.isfinite(before)], after[np.isfinite(after)]
  return bool(len(after) and (not len(before) or after.max() > before.max()))


def compare(baseline: Sequence[Curve], pearl: Sequence[Curve]) -> dict[str, Any]:
  """Compares a baseline with PEARL on one domain.

  Args:
    baseline: a curve a seed.
    pearl: likewise.

  Returns:
    `level`: 0.95 of the baseline's best, the mean over its seeds; negative returns are counted from
    the level at which the baseline began.
    `baseline_env_steps`, `pearl_env_steps`: `[low, high]` over seeds and the spacing of
    evaluations; null where a seed never reached it.
    `baseline_hours`, `pearl_hours`: of the slowest seed to there, wall clock; null likewise.
    `ratio`: of the highest means; null if unknown.
    `bound`: 'between' with `ratio_low` and `ratio_high`; '>' with `ratio_low` where not every seed
      of the baseline reached the level; '<' where PEARL has not.
    `pearl_level` and `ratio_at_least`: the same the other way round, for PEARL's last level, where
    the baseline never gets there within its budget.
    `still_rising`: whether the baseline was, at the end of its budget.
    `seeds`: of the baseline and of PEARL.
  """
  best = float(np.mean([np.nanmax(one.level) for one in baseline]))
  start = float(np.mean([one.level[WINDOW - 1] for one in baseline]))
  # A share of a negative return would be a lower level than none: then of what was gained.
  level = SHARE * best if best > 0 else start + SHARE * (best - start)
  result = {
    'level': level,
    'baseline_env_steps': _over_seeds(baseline, level),
    'pearl_env_steps': _over_seeds(pearl, level),
    'baseline_hours': _hours(baseline, level),
    'pearl_hours': _hours(pearl, level),
    'ratio': None,
    'ratio_low': None,
    'ratio_high': None,
    'bound': None,
    'still_rising': any(still_rising(one) for one in baseline),
    'seeds': [len(baseline), len(pearl)],
  }
  theirs, ours = result['baseline_env_steps'], result['pearl_env_steps']
  if theirs and ours:
    result |= {
      'ratio': theirs[1] / ours[1],
      'ratio_low': theirs[0] / ours[1],
      'ratio_high': theirs[1] / ours[0] if ours[0] else None,
      'bound': 'between',
    }
  elif ours:
    found = [first_at(one, level) or one.env_steps[-1:] for one in baseline]
    result |= {'ratio_low': float(min(low for low, *_ in found)) / ours[1], 'bound': '>'}
  elif theirs:
    budget = min(one.env_steps[-1] for one in pearl)
    result |= {'ratio': theirs[1] / budget, 'bound': '<'}
  return result | _the_other_way(baseline, pearl)


def _the_other_way(baseline: Sequence[Curve], pearl: Sequence[Curve]) -> dict[str, Any]:
  """Returns the bound for PEARL's last level, if the baseline never reaches it."""
  level = float(np.mean([one.level[-1] for one in pearl]))
  ours = _over_seeds(pearl, level)
  if ours is None or any(first_at(one, level) for one in baseline):
    return {'pearl_level': level, 'ratio_at_least': None}
  budget = min(one.env_steps[-1] for one in baseline)
  return {'pearl_level': level, 'ratio_at_least': budget / ours[1]}


def _over_seeds(curves: Sequence[Curve], level: float) -> list[float] | None:
  found = [first_at(one, level) for one in curves]
  if None in found:
    return None
  return [min(low for low, _ in found), max(high for _, high in found)]


def _hours(curves: Sequence[Curve], level: float) -> float | None:
  reached = [np.flatnonzero(one.level >= level) for one in curves]
  if not all(map(len, reached)):
    return None
  return max(float(one.hours[found[0]]) for one, found in zip(curves, reached, strict=True))


def figure(
  runs: Mapping[str, Sequence[Curve]], output: str | os.PathLike | None = None, *, title: str = ''
) -> mpl_figure.Figure:
  """Draws levels against env steps on a logarithmic axis, the last ones as dashed lines.

  Args:
    runs: a curve a seed, by label.
    output: the PNG to write.
    title: heading.
  """
  drawing = plot_style.new_figure(8, 4.6, title=title)
  axes = drawing.subplots()
  plot_style.decorate(axes)
  axes.set_xscale('log')
  for position, (label, curves) in enumerate(runs.items()):
    color = plot_style.run_color(position)
    name = f'{label} ({len(curves)} seed{"s" if len(curves) > 1 else ""})'
    for index, one in enumerate(curves):
      axes.plot(one.env_steps, one.level, color=color, label=name if not index else None)
    axes.axhline(
      float(np.mean([one.level[-1] for one in curves])), color=color, linestyle='--', linewidth=0.9
    )
  axes.set_xlabel('env steps (training transitions collected)', color=plot_style.INK)
  axes.set_ylabel(f'return on test tasks, mean of {WINDOW}', color=plot_style.INK)
  drawing.legend(loc='outside lower center', ncols=3, frameon=False)
  plot_style.save(drawing, output)
  return drawing
