"""The posterior of a point robot as seen in the plane, collapsing onto the goal.

A latent means nothing to the eye; where the policy would end up under it does
(`evaluation.calibration`). This module draws samples of the belief as the places they lead to, with
the paths and the goal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pearl_tf.collect import actor
from pearl_tf.data import types
from pearl_tf.evaluation import plot_style
from pearl_tf.evaluation.video import frame

if TYPE_CHECKING:
  from PIL import Image

SIZE = frame.HEIGHT
_LEGEND_HEIGHT = 46
_CENTER = (SIZE / 2, (SIZE - _LEGEND_HEIGHT) / 2)
_MIN_EXTENT = 1.4
_CLOUD_COLOR = (40, 90, 180, 105)
_MAX_LEGEND_ENTRIES = 5


class Path(NamedTuple):
  """A trajectory, or what there is of it yet.

  Attributes:
    positions: `[S + 1, 2]`.
    index: 0-based number of the trajectory.
  """

  positions: np.ndarray
  index: int


def beliefs_so_far(
  acting: actor.BelievingActor, earlier: Sequence[types.Episode], current: types.Episode
) -> list[types.Posterior]:
  """Infers what the agent would believe after every step of a trajectory.

  Args:
    acting: the compiled inference.
    earlier: the trajectories before it, all in the context.
    current: the trajectory, `S` transitions.

  Returns:
    `S + 1` beliefs `[Z]`, before the first step and after each; the prior where nothing was seen.
  """
  columns = zip(*earlier, current, strict=True)
  everything = types.Episode(*(np.concatenate(column) for column in columns))
  num_earlier = sum(len(episode.reward) for episode in earlier)
  sizes = num_earlier + np.arange(len(current.reward) + 1)
  contexts = [types.Episode(*(c[:size] for c in everything)) for size in sizes if size]
  inferred = acting.infer(contexts)
  beliefs = [types.Posterior(*row) for row in zip(*inferred, strict=True)]
  return beliefs if num_earlier else [acting.prior(), *beliefs]


def extent(goal: np.ndarray, positions: np.ndarray) -> float:
  """Returns half the width of a square around the origin that shows all of these positions."""
  farthest = max(np.max(np.abs(positions)), np.max(np.abs(goal)))
  return float(max(_MIN_EXTENT, np.ceil(farthest * 10.5) / 10))


def draw(
  goal: np.ndarray,
  paths: Sequence[Path],
  cloud: np.ndarray,
  *,
  half_width: float,
  num_trajectories: int,
  goal_radius: float = 0.0,
) -> Image.Image:
  """Draws a moment.

  Args:
    goal: `[2]`.
    paths: the trajectories so far, oldest first, the last one being walked.
    cloud: `[M, 2]`, where samples of the belief lead.
    half_width: half the side of the square that is shown.
    num_trajectories: how many are expected, which colours are spread over.
    goal_radius: radius within which the goal is rewarded; 0 draws no disc.

  Returns:
    `SIZE` x `SIZE` pixels; x grows to the right, y upwards.
  """
  scale = (SIZE - _LEGEND_HEIGHT - 8) / 2 / half_width

  def pixel(position) -> tuple[float, float]:
    return _CENTER[0] + scale * position[0], _CENTER[1] - scale * position[1]

  canvas = frame.Canvas(SIZE, SIZE)
  _draw_grid(canvas, pixel, half_width)
  if goal_radius > 0:
    canvas.disc(pixel(goal), scale * goal_radius, color=(209, 73, 91, 45))
  for path in paths[:-1]:
    color = frame.trajectory_color(path.index, num_trajectories)
    _draw_path(canvas, [pixel(point) for point in path.positions], (*color, 150), width=2)
  for point in cloud:
    canvas.disc(pixel(point), 3.2, color=_CLOUD_COLOR)
  color = frame.trajectory_color(paths[-1].index, num_trajectories)
  canvas.star(pixel(goal), 11, color=plot_style.GOAL_COLOR)
  points = [pixel(point) for point in paths[-1].positions]
  _draw_path(canvas, points, color, width=3.5)
  canvas.disc(points[-1], 7, color=color, edge='white', edge_width=2)
  _draw_legend(canvas, paths, num_trajectories)
  return canvas.finish()


def _draw_grid(canvas: frame.Canvas, pixel, half_width: float) -> None:
  reach = int(half_width)
  for tick in range(-reach, reach + 1):
    color = '#D0D0D0' if tick == 0 else '#ECECEC'
    canvas.line([pixel((tick, -half_width)), pixel((tick, half_width))], color=color, width=1)
    canvas.line([pixel((-half_width, tick)), pixel((half_width, tick))], color=color, width=1)
    label = str(tick).replace('-', plot_style.MINUS)
    x, y = pixel((tick, -half_width))
    canvas.text((x + 4, y - 14), label, size=11, color=frame.PALE_INK)
    if tick:
      x, y = pixel((-half_width, tick))
      canvas.text((x + 2, y + 2), label, size=11, color=frame.PALE_INK)


def _draw_path(canvas: frame.Canvas, points: list, color, *, width: float) -> None:
  if len(points) > 1:
    canvas.line(points, color=color, width=width)
  canvas.disc(points[0], 4, color='white', edge=color)


def _draw_legend(canvas: frame.Canvas, paths: Sequence[Path], num_trajectories: int) -> None:
  top = SIZE - _LEGEND_HEIGHT + 8
  canvas.disc((20, top + 7), 3.2, color=_CLOUD_COLOR)
  canvas.text((30, top), 'where samples of the belief lead', size=12)
  canvas.star((258, top + 7), 7, color=plot_style.GOAL_COLOR)
  canvas.text((270, top), 'goal (not shown to the agent)', size=12)
  shown = paths[-_MAX_LEGEND_ENTRIES:]
  canvas.text((14, top + 18), 'trajectory', size=12)
  for position, path in enumerate(shown):
    x = 90 + 56 * position
    color = frame.trajectory_color(path.index, num_trajectories)
    canvas.line([(x, top + 26), (x + 22, top + 26)], color=color, width=3)
    canvas.text((x + 27, top + 18), str(path.index + 1), size=12)
