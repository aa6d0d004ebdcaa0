"""The picture of posterior sampling: where an agent goes on unseen tasks, and what it believes.

For tasks in the plane (the point robots), whose observation is the position. Each task has the
plane with its trajectories, coloured by their index, and beneath it, in the same colours, the
beliefs their latents were drawn from.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pearl_tf.evaluation import plot_style

if TYPE_CHECKING:
  from matplotlib import axes as mpl_axes
  from matplotlib import figure as mpl_figure

  from pearl_tf.evaluation import meta_testing

_MAX_COLUMNS = 4
_MAX_LEGEND_ENTRIES = 6
_CELL_WIDTH = 2.75
_BELIEF_HEIGHT = 1.0
_LABELS_HEIGHT = 1.05


def adaptation(
  trajectories: Sequence[meta_testing.ScoredEpisode],
  output: str | os.PathLike | None = None,
  *,
  goals: Mapping[int, np.ndarray] | None = None,
  goal_radius: float | None = None,
  belief_positions: Mapping[tuple[int, int], np.ndarray] | None = None,
  max_tasks: int = 8,
  repeat: int = 0,
  title: str = 'PEARL adapts to tasks it has never met',
) -> mpl_figure.Figure:
  """Draws a grid of tasks: the trajectories of a meta-test, and the belief as it narrows.

  Args:
    trajectories: Those of a `MetaTestResult`; observations `[S + 1, 2]`, positions in the plane.
    output: The PNG to write.
    goals: `[2]` by task index; the first two parameters of a task by default.
    goal_radius: Radius within which a sparse task rewards, drawn as a disc.
    belief_positions: `[M, 2]` by (task index, trajectory index): positions that stand for samples
      of the belief, such as where the policy would end up under them. Drawn as dots.
    max_tasks: Draws so many tasks, the first ones.
    repeat: The repeat of the meta-test to draw.
    title: Heading.

  Returns:
    The figure. Its axes come in pairs, per task the plane and the belief.

  Raises:
    ValueError: There is no trajectory of this repeat, or observations are not positions.
  """
  by_task = _select(trajectories, repeat=repeat, max_tasks=max_tasks)
  if goals is None:
    goals = {task: group[0].task.parameters[:2] for task, group in by_task.items()}
  num_trajectories = max(len(group) for group in by_task.values())
  limits = _plane_limits(by_task, goals, goal_radius)
  belief_limit = _belief_limit(by_task)
  columns = _num_columns(len(by_task))
  rows = math.ceil(len(by_task) / columns)
  (left, right), (bottom, top) = limits
  plane_height = 0.85 * _CELL_WIDTH * (top - bottom) / (right - left)
  figure = plot_style.new_figure(
    max(_CELL_WIDTH * columns, 3 * _CELL_WIDTH),
    rows * (plane_height + _BELIEF_HEIGHT + _LABELS_HEIGHT) + 1.1,
    title=title,
  )
  grid = figure.add_gridspec(2 * rows, columns, height_ratios=[plane_height, _BELIEF_HEIGHT] * rows)
  for position, (task, group) in enumerate(by_task.items()):
    row, column = divmod(position, columns)
    plane = figure.add_subplot(grid[2 * row, column])
    _draw_plane(plane, group, goals.get(task), goal_radius, belief_positions, num_trajectories)
    plane.set(xlim=limits[0], ylim=limits[1], aspect='equal')
    belief = figure.add_subplot(grid[2 * row + 1, column])
    _draw_belief(belief, group, num_trajectories)
    belief.set(ylim=(-belief_limit, belief_limit), xlim=(0.4, num_trajectories + 0.6))
    if column:
      plane.tick_params(labelleft=False)
      belief.tick_params(labelleft=False)
    else:
      plane.set_ylabel('y position', color=plot_style.INK, fontsize=9)
      belief.set_ylabel('latent belief', color=plot_style.INK, fontsize=9)
  _add_legend(figure, by_task, goal_radius, belief_positions, num_trajectories, columns)
  plot_style.save(figure, output)
  return figure


def _select(trajectories, *, repeat: int, max_tasks: int) -> dict[int, list]:
  """Groups the trajectories of one repeat by task, each in the order they were made."""
  chosen = [trajectory for trajectory in trajectories if trajectory.repeat == repeat]
  if not chosen:
    raise ValueError(
      f'no trajectory of repeat {repeat} among {len(trajectories)}; '
      f'repeats present: {sorted({trajectory.repeat for trajectory in trajectories})}'
    )
  by_task: dict[int, list] = {}
  for trajectory in sorted(chosen, key=lambda one: (one.task.index, one.index)):
    if trajectory.observations.ndim != 2 or trajectory.observations.shape[1] != 2:
      raise ValueError(
        'observations must be positions of shape [S + 1, 2], got '
        f'{trajectory.observations.shape}; this picture is for point robots'
      )
    by_task.setdefault(trajectory.task.index, []).append(trajectory)
  return dict(list(by_task.items())[:max_tasks])


def _num_columns(num_tasks: int) -> int:
  """Returns a number of columns that fills the last row, where there is one of at least 3."""
  if num_tasks <= _MAX_COLUMNS:
    return num_tasks
  return max(range(3, _MAX_COLUMNS + 1), key=lambda columns: (num_tasks % columns == 0, columns))


def _draw_plane(
  axes: mpl_axes.Axes,
  group: Sequence[meta_testing.ScoredEpisode],
  goal: np.ndarray | None,
  goal_radius: float | None,
  belief_positions: Mapping[tuple[int, int], np.ndarray] | None,
  num_trajectories: int,
) -> None:
  from matplotlib import patches

  plot_style.decorate(axes)
  axes.locator_params(nbins=5)
  if goal is not None:
    if goal_radius is not None:
      axes.add_patch(
        patches.Circle(goal, goal_radius, color=plot_style.GOAL_COLOR, alpha=0.15, zorder=1, lw=0)
      )
    axes.plot(*goal, **_GOAL_STYLE, zorder=6)
  for order, trajectory in enumerate(group):
    color = _color(trajectory.index, num_trajectories)
    x, y = trajectory.observations.T
    axes.plot(x, y, color=color, **_line_style(trajectory.adapted), zorder=3 + 0.01 * order)
    axes.plot(x[0], y[0], color=color, **_START_STYLE, zorder=4)
    axes.plot(x[-1], y[-1], 'o', color=color, markersize=4.5, zorder=4)
    positions = (belief_positions or {}).get((trajectory.task.index, trajectory.index))
    if positions is not None:
      axes.scatter(*np.transpose(positions), s=7, color=color, alpha=0.35, lw=0, zorder=2)
  axes.set_xlabel('x position', color=plot_style.INK, fontsize=9)
  first, last = plot_style.format_returns(group[0].episode_return, group[-1].episode_return)
  axes.set_title(
    f'task {group[0].task.index}: return {first} $\\rightarrow$ {last}',
    fontsize=10,
    color=plot_style.INK,
  )


def _draw_belief(
  axes: mpl_axes.Axes, group: Sequence[meta_testing.ScoredEpisode], num_trajectories: int
) -> None:
  """Draws a bar per latent dimension, from mean - std to mean + std, beside each trajectory."""
  from matplotlib import ticker

  plot_style.decorate(axes)
  axes.grid(visible=False)
  axes.axhline(0, color='#D5D5D5', linewidth=0.8, zorder=0)
  thickness = 2.2 if num_trajectories <= _MAX_LEGEND_ENTRIES else 1.0
  for trajectory in group:
    color = _color(trajectory.index, num_trajectories)
    mean = np.asarray(trajectory.posterior.mean)
    std = np.sqrt(np.asarray(trajectory.posterior.variance))
    x = trajectory.index + 1 + np.linspace(-0.3, 0.3, len(mean) + 2)[1:-1]
    axes.vlines(x, mean - std, mean + std, color=color, linewidth=thickness, alpha=0.55)
    axes.plot(x, mean, 'o', color=color, markersize=thickness + 0.8)
  axes.set_xlabel('trajectory', color=plot_style.INK, fontsize=9)
  axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def _plane_limits(by_task, goals, goal_radius) -> tuple[tuple[float, float], tuple[float, float]]:
  points = [trajectory.observations for group in by_task.values() for trajectory in group]
  radius = goal_radius or 0.0
  shown = [np.asarray(goals[task])[np.newaxis] for task in by_task if task in goals]
  points += [goal + offset for goal in shown for offset in (-radius, radius)]
  points = np.concatenate(points)
  lower, upper = points.min(axis=0), points.max(axis=0)
  margin = 0.07 * float(np.max(upper - lower)) or 1.0
  return (lower[0] - margin, upper[0] + margin), (lower[1] - margin, upper[1] + margin)


def _belief_limit(by_task) -> float:
  """Returns the largest |mean| + std, at least the prior's 1, with a margin."""
  posteriors = [trajectory.posterior for group in by_task.values() for trajectory in group]
  extents = [np.abs(one.mean) + np.sqrt(one.variance) for one in posteriors]
  return 1.1 * max(1.0, float(np.max(extents)))


def _color(index: int, num_trajectories: int):
  """Returns the colour of a trajectory: from pale orange, the first, to deep violet, the last."""
  return _color_map()(index / max(num_trajectories - 1, 1))


def _color_map():
  import matplotlib
  from matplotlib import colors

  # The ends of the map, nearly white and nearly black, would be lost on the page.
  return colors.ListedColormap(matplotlib.colormaps['plasma_r'](np.linspace(0.15, 0.95, 256)))


_GOAL_STYLE = {
  'marker': '*',
  'markersize': 15,
  'color': plot_style.GOAL_COLOR,
  'markeredgecolor': 'white',
  'linestyle': 'none',
}
_START_STYLE = {'marker': 'o', 'markersize': 5, 'markerfacecolor': 'white', 'linestyle': 'none'}


def _line_style(adapted: bool) -> dict:
  return {'linewidth': 2.0} if adapted else {'linewidth': 1.3, 'linestyle': (0, (3, 1.2))}


def _add_legend(
  figure, by_task, goal_radius, belief_positions, num_trajectories: int, columns: int
) -> None:
  from matplotlib import lines, patches

  longest = max(by_task.values(), key=len)
  handles = []
  if num_trajectories <= _MAX_LEGEND_ENTRIES:
    for trajectory in longest:
      source = 'posterior' if trajectory.adapted else 'prior'
      handles.append(
        lines.Line2D(
          [],
          [],
          color=_color(trajectory.index, num_trajectories),
          label=f'trajectory {trajectory.index + 1} (from the {source})',
          **_line_style(trajectory.adapted),
        )
      )
  else:
    _add_color_bar(figure, num_trajectories)
    for adapted, label in ((False, 'latent from the prior'), (True, 'latent from the posterior')):
      handles.append(lines.Line2D([], [], color='#777777', label=label, **_line_style(adapted)))
  handles.append(lines.Line2D([], [], color='#777777', label='start', **_START_STYLE))
  label = 'goal (never shown to the agent)'
  handles.append(lines.Line2D([], [], label=label, **_GOAL_STYLE))
  if goal_radius is not None:
    label = f'rewarded within {goal_radius:g} of it'
    handles.append(patches.Patch(color=plot_style.GOAL_COLOR, alpha=0.15, lw=0, label=label))
  if belief_positions:
    label = 'where samples of the belief lead'
    style = {'marker': 'o', 'markersize': 3, 'linestyle': 'none', 'alpha': 0.5}
    handles.append(lines.Line2D([], [], color='#777777', label=label, **style))
  label = 'belief: mean ± std, a bar per latent dimension'
  style = {'marker': '|', 'markersize': 11, 'markeredgewidth': 2, 'linestyle': 'none'}
  handles.append(lines.Line2D([], [], color='#777777', label=label, **style))
  figure.legend(
    handles=handles,
    loc='outside lower center',
    ncols=3 if columns >= 4 else 2,
    frameon=False,
    fontsize=9,
  )


def _add_color_bar(figure, num_trajectories: int) -> None:
  from matplotlib import cm, colors

  mappable = cm.ScalarMappable(colors.Normalize(1, num_trajectories), _color_map())
  bar = figure.colorbar(mappable, ax=figure.axes, shrink=0.6, aspect=30, pad=0.015)
  bar.set_label('trajectory', color=plot_style.INK)
  bar.set_ticks(np.unique(np.linspace(1, num_trajectories, 5).round()))
  bar.outline.set_visible(False)
