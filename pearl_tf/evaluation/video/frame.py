"""What is written beside the picture of a video: task, trajectory, return and belief.

This module turns numbers into pixels; where they come from is the matter of `video`. Pillow is
imported inside the functions, because training needs none of it.
"""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import matplotlib
import numpy as np

from pearl_tf.data import types
from pearl_tf.evaluation import plot_style

if TYPE_CHECKING:
  from PIL import Image, ImageDraw, ImageFont

HEIGHT = 480
PANEL_WIDTH = 256
INK = plot_style.INK
PALE_INK = '#777777'
# Lines and dots are drawn so many times larger and averaged, which rounds their edges.
_OVERSAMPLING = 2
_MARGIN = 16
_BELIEF_TOP, _BELIEF_BOTTOM = 322, 438
_MIN_BELIEF_LIMIT = 2.0
_MAX_EARLIER = 4
_MAX_TASK_LINES = 3


class Caption(NamedTuple):
  """What a frame tells about a moment of a meta-test.

  Attributes:
    task: the task in words.
    trajectory: 0-based index of the trajectory.
    num_trajectories: how many are expected, which colours are spread over.
    source: what the latent was drawn from, such as 'prior'.
    step: transitions of this trajectory so far.
    episode_return: sum of rewards so far.
    earlier_returns: returns of the trajectories before this one.
    belief: mean and variance `[Z]` to show; None of a method that has none.
    belief_title: what this belief is given.
    belief_limit: the axis reaches from minus this to this; see `belief_limit`.
    latent: `[Z]`, the hypothesis acted on.
  """

  task: str
  trajectory: int
  num_trajectories: int
  source: str
  step: int
  episode_return: float
  earlier_returns: Sequence[float]
  belief: types.Posterior | None
  belief_title: str
  belief_limit: int
  latent: np.ndarray | None


def compose(scene: np.ndarray | Image.Image, caption: Caption) -> np.ndarray:
  """Sets a picture beside its caption.

  Args:
    scene: `[H, W, 3] uint8` or a Pillow image; scaled to a height of `HEIGHT`.
    caption: what to write.

  Returns:
    `[HEIGHT, W' + PANEL_WIDTH, 3] uint8`, W' even.
  """
  from PIL import Image

  picture = Image.fromarray(scene) if isinstance(scene, np.ndarray) else scene
  width = 2 * round(picture.width * HEIGHT / picture.height / 2)
  if picture.size != (width, HEIGHT):
    picture = picture.resize((width, HEIGHT), Image.Resampling.LANCZOS)
  frame = Image.new('RGB', (width + PANEL_WIDTH, HEIGHT), 'white')
  frame.paste(picture, (0, 0))
  frame.paste(_draw_panel(caption), (width, 0))
  return np.asarray(frame)


def belief_limit(belief: types.Posterior, latent: np.ndarray) -> int:
  """Returns half the length of an axis on which this belief `[Z]` and a latent `[Z]` fit."""
  reach = np.abs(belief.mean) + np.sqrt(belief.variance)
  return math.ceil(max(float(np.max(reach)), float(np.max(np.abs(latent))), _MIN_BELIEF_LIMIT))


def trajectory_color(index: int, num_trajectories: int) -> tuple[int, int, int]:
  """Returns the colour of a trajectory, from orange, the first, to deep violet, the last."""
  position = min(index / max(num_trajectories - 1, 1), 1.0)
  # The ends of the map, nearly white and nearly black, would be lost.
  color = matplotlib.colormaps['plasma_r'](0.25 + 0.65 * position)
  return tuple(round(255 * part) for part in color[:3])


@functools.cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
  """Returns DejaVu Sans, which comes with matplotlib, in a size of pixels."""
  from PIL import ImageFont

  name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
  return ImageFont.truetype(pathlib.Path(matplotlib.get_data_path(), 'fonts', 'ttf', name), size)


class Canvas:
  """A drawing in the pixels of the frame, done at a larger size and scaled down."""

  def __init__(self, width: int, height: int):
    """Starts with a white area of these pixels."""
    from PIL import Image, ImageDraw

    size = (width * _OVERSAMPLING, height * _OVERSAMPLING)
    self._image = Image.new('RGB', size, 'white')
    # This mode mixes colours that have an alpha with what is beneath.
    self._draw: ImageDraw.ImageDraw = ImageDraw.Draw(self._image, 'RGBA')

  def text(self, position, text: str, *, size: int, color=INK, bold=False, anchor='la') -> None:
    """Writes a line; `anchor` as in Pillow ('la': the position is its upper left corner)."""
    self._draw.text(
      _scaled(position), text, fill=color, font=font(size * _OVERSAMPLING, bold=bold), anchor=anchor
    )

  def line(self, points, *, color, width: float) -> None:
    """Draws a path through `[N, 2]` points with round corners."""
    self._draw.line(
      [_scaled(point) for point in points],
      fill=color,
      width=max(1, round(width * _OVERSAMPLING)),
      joint='curve',
    )

  def rectangle(self, corner, other_corner, *, color) -> None:
    """Fills a rectangle."""
    self._draw.rectangle([_scaled(corner), _scaled(other_corner)], fill=color)

  def disc(self, center, radius: float, *, color, edge=None, edge_width: float = 1.5) -> None:
    """Fills a disc, with an outline where `edge` is a colour."""
    self._draw.ellipse(
      [_scaled((center[0] + s * radius, center[1] + s * radius)) for s in (-1, 1)],
      fill=color,
      outline=edge,
      width=round(edge_width * _OVERSAMPLING) if edge else 0,
    )

  def star(self, center, radius: float, *, color) -> None:
    """Fills a star of five points with a white rim."""
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    for size, fill in ((radius + 2.5, 'white'), (radius, color)):
      radii = np.where(np.arange(10) % 2, 0.42, 1.0) * size
      points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1) + center
      self._draw.polygon([_scaled(point) for point in points], fill=fill)

  def finish(self) -> Image.Image:
    """Returns the picture in its own size."""
    return self._image.reduce(_OVERSAMPLING)


def _scaled(position) -> tuple[float, float]:
  return float(position[0]) * _OVERSAMPLING, float(position[1]) * _OVERSAMPLING


def wrap(text: str, *, size: int, width: int, bold: bool = False) -> list[str]:
  """Breaks a text at blanks into lines of at most `width` pixels."""
  lines = ['']
  for word in text.split():
    longer = f'{lines[-1]} {word}'.strip()
    if lines[-1] and font(size, bold=bold).getlength(longer) > width:
      lines.append(word)
    else:
      lines[-1] = longer
  return lines


def format_return(value: float) -> str:
  """Writes a return with one decimal and the sign a figure uses."""
  # Adding 0.0 turns the -0.0 that rounding leaves into 0.0.
  return f'{round(value, 1) + 0.0:,.1f}'.replace('-', plot_style.MINUS)


def _draw_panel(caption: Caption) -> Image.Image:
  canvas = Canvas(PANEL_WIDTH, HEIGHT)
  color = trajectory_color(caption.trajectory, caption.num_trajectories)
  top = _draw_task(canvas, caption.task)
  canvas.rectangle((_MARGIN, top + 3), (_MARGIN + 6, top + 35), color=color)
  canvas.text((_MARGIN + 14, top), f'Trajectory {caption.trajectory + 1}', size=17, bold=True)
  canvas.text((_MARGIN + 14, top + 23), f'acts on: {caption.source}', size=11, color=PALE_INK)
  right = PANEL_WIDTH - _MARGIN
  canvas.text((right, top + 4), f'step {caption.step}', size=12, color=PALE_INK, anchor='ra')
  top += 54
  canvas.text((_MARGIN, top), 'Return', size=12, color=PALE_INK)
  canvas.text((_MARGIN, top + 15), format_return(caption.episode_return), size=26, bold=True)
  _draw_earlier(canvas, caption, top + 50)
  if caption.belief is not None:
    _draw_belief(canvas, caption, color)
  return canvas.finish()


def _draw_task(canvas: Canvas, task: str) -> int:
  """Writes the task; returns where the next thing may begin."""
  canvas.text((_MARGIN, 14), 'Task', size=12, color=PALE_INK)
  width = PANEL_WIDTH - 2 * _MARGIN
  for size, most in ((17, 1), (15, 1), (13, _MAX_TASK_LINES)):
    lines = wrap(task, size=size, width=width, bold=True)
    if len(lines) <= most:
      break
  if len(lines) > _MAX_TASK_LINES:
    lines = [*lines[: _MAX_TASK_LINES - 1], f'{lines[_MAX_TASK_LINES - 1]} ...']
  for number, line in enumerate(lines):
    canvas.text((_MARGIN, 30 + number * (size + 5)), line, size=size, bold=True)
  return 46 + len(lines) * (size + 5)


def _draw_earlier(canvas: Canvas, caption: Caption, top: int) -> None:
  """Lists the returns of the latest trajectories before this one."""
  first = max(len(caption.earlier_returns) - _MAX_EARLIER, 0)
  for row, value in enumerate(caption.earlier_returns[first:]):
    y, index = top + 18 * row, first + row
    color = trajectory_color(index, caption.num_trajectories)
    canvas.rectangle((_MARGIN, y + 2), (_MARGIN + 6, y + 12), color=color)
    canvas.text((_MARGIN + 14, y), f'trajectory {index + 1}', size=12, color=PALE_INK)
    right = PANEL_WIDTH - _MARGIN
    canvas.text((right, y), format_return(value), size=12, anchor='ra')


def _draw_belief(canvas: Canvas, caption: Caption, color: tuple[int, int, int]) -> None:
  """Draws a bar per latent dimension, from mean - std to mean + std, and the sample acted on."""
  mean = np.asarray(caption.belief.mean)
  std = np.sqrt(np.asarray(caption.belief.variance))
  limit = caption.belief_limit
  left, right = _MARGIN + 22, PANEL_WIDTH - _MARGIN

  def height(value: float) -> float:
    return _BELIEF_TOP + (limit - value) / (2 * limit) * (_BELIEF_BOTTOM - _BELIEF_TOP)

  canvas.text((_MARGIN, _BELIEF_TOP - 40), 'Belief', size=12, color=PALE_INK)
  canvas.text((_MARGIN, _BELIEF_TOP - 25), caption.belief_title, size=13, bold=True)
  canvas.rectangle((left, height(1)), (right, height(-1)), color='#EDEDED')
  for tick in (-limit, 0, limit):
    canvas.line([(left, height(tick)), (right, height(tick))], color='#CCCCCC', width=1)
    label = str(tick).replace('-', plot_style.MINUS)
    canvas.text((left - 5, height(tick)), label, size=10, color=PALE_INK, anchor='rm')
  spacing = (right - left) / len(mean)
  thickness = min(14.0, 0.55 * spacing)
  for dimension, (center, spread) in enumerate(zip(mean, std, strict=True)):
    x = left + (dimension + 0.5) * spacing
    bottom, top = height(center - spread) + 0.5, height(center + spread) - 0.5
    canvas.rectangle((x - thickness / 2, top), (x + thickness / 2, bottom), color=(*color, 130))
    y = height(center)
    canvas.line([(x - thickness / 2, y), (x + thickness / 2, y)], color=color, width=2)
    radius = min(4.0, 0.3 * spacing)
    canvas.disc((x, height(caption.latent[dimension])), radius, color='white', edge=INK)
  key = f'bar: mean ± std of {len(mean)} latent dim.' if len(mean) > 1 else 'bar: mean ± std'
  canvas.text((_MARGIN, _BELIEF_BOTTOM + 9), key, size=11, color=PALE_INK)
  canvas.disc((_MARGIN + 4, _BELIEF_BOTTOM + 30), 3.5, color='white', edge=INK)
  canvas.text((_MARGIN + 13, _BELIEF_BOTTOM + 23), 'sample acted on', size=11, color=PALE_INK)
  canvas.rectangle((148, _BELIEF_BOTTOM + 24), (160, _BELIEF_BOTTOM + 36), color='#E2E2E2')
  canvas.text((165, _BELIEF_BOTTOM + 23), 'prior ± std', size=11, color=PALE_INK)
