"""The common look of the figures, and the way they are made and saved.

Figures are built through matplotlib's object-oriented interface: no `pyplot`, hence no global
state, no display and no figure that stays in memory. matplotlib is imported inside the functions,
because training needs none of it.
"""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from pearl_tf.data import files

if TYPE_CHECKING:
  from matplotlib import axes as mpl_axes
  from matplotlib import figure as mpl_figure

# Okabe and Ito's palette, which colour-blind readers can tell apart too.
RUN_COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
REFERENCE_COLORS = ('#9A9A9A', '#3C3C3C')
REFERENCE_DASHES = ((0, (5, 1.5)), (0, (1.2, 1.2)))
INK = '#333333'
GOAL_COLOR = '#D1495B'
MINUS = '\N{MINUS SIGN}'
_DOTS_PER_INCH = 160


def run_color(position: int) -> str:
  """Returns the colour of the run at this position; there are six, then they start over."""
  return RUN_COLORS[position % len(RUN_COLORS)]


def new_figure(width: float, height: float, *, title: str = '') -> mpl_figure.Figure:
  """Returns an empty figure of `width` by `height` inches with room made for all labels."""
  from matplotlib import figure
  from matplotlib.backends import backend_agg

  result = figure.Figure(figsize=(width, height), layout='constrained', facecolor='white')
  backend_agg.FigureCanvasAgg(result)
  result.get_layout_engine().set(h_pad=0.07, w_pad=0.05)
  if title:
    result.suptitle(title, fontsize=13, fontweight='bold', color=INK)
  return result


def save(figure: mpl_figure.Figure, output: str | os.PathLike | None) -> None:
  """Writes a figure to a file, whose folder is created; does nothing without a file."""
  if output is None:
    return
  path = pathlib.Path(output)
  with files.explained(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DOTS_PER_INCH)


def pixels(figure: mpl_figure.Figure) -> np.ndarray:
  """Returns a figure as `[H, W, 3] uint8`."""
  figure.canvas.draw()
  return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def decorate(axes: mpl_axes.Axes) -> None:
  """Gives axes the common look: two spines, a light grid behind the data, small grey ticks."""
  axes.set_axisbelow(True)
  axes.grid(color='#E6E6E6', linewidth=0.8)
  axes.tick_params(colors=INK, labelsize=9, length=3)
  for side in ('top', 'right'):
    axes.spines[side].set_visible(False)
  for side in ('left', 'bottom'):
    axes.spines[side].set_color('#AAAAAA')


def format_count(value: float, unused_position: int | None = None) -> str:
  """Writes a count as people read it: 950, 12k, 1.5M; also a matplotlib tick format."""
  for size, suffix in ((1e6, 'M'), (1e3, 'k')):
    if abs(value) >= size:
      return f'{value / size:.3g}{suffix}'
  return f'{value:.3g}'


def format_returns(*values: float) -> list[str]:
  """Writes returns with as many digits as the largest deserves: -283, 53.4, -4.12.

  Returns:
    One text per value, all with the same number of decimals and with the sign a figure uses.
  """
  size = max(abs(value) for value in values)
  digits = 0 if size >= 100 else 1 if size >= 10 else 2
  # Adding 0.0 turns the -0.0 that rounding leaves into 0.0.
  texts = [f'{round(value, digits) + 0.0:,.{digits}f}' for value in values]
  return [text.replace('-', MINUS) for text in texts]


def outline():
  """Returns path effects that keep a text readable where lines run beneath it."""
  from matplotlib import patheffects

  return [patheffects.withStroke(linewidth=3, foreground='white')]
