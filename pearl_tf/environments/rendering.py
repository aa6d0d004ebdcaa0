"""Pictures of the plane on which point robots move, drawn with numpy alone.

This module turns positions into small RGB arrays for videos; it knows no environment. The point
robots call it from `render`.
"""

from collections.abc import Sequence

import numpy as np

_BACKGROUND = (255, 255, 255)
_AXES = (225, 225, 225)
_GOAL = (200, 230, 200)
_GOAL_CENTER = (20, 130, 60)
_TRAIL = (150, 170, 220)
_ROBOT = (30, 60, 180)
# Half the width of the square that is shown, in the units of the plane.
_HALF_EXTENT = 1.5
_DOT_RADIUS = 0.035
_TRAIL_RADIUS = 0.018


def draw_plane(
  positions: Sequence[tuple[float, float]],
  goal: tuple[float, float],
  goal_radius: float,
  *,
  size: int = 240,
) -> np.ndarray:
  """Draws the path of a robot and its goal.

  Args:
    positions: The positions visited in this episode, oldest first; at least one.
    goal: The centre of the goal.
    goal_radius: Radius of the disc in which the goal counts as reached; 0 draws the centre only.
    size: Width and height of the picture in pixels.

  Returns:
    `[size, size, 3] uint8`; x grows to the right, y upwards.
  """
  image = np.full((size, size, 3), _BACKGROUND, dtype=np.uint8)
  image[size // 2, :] = _AXES
  image[:, size // 2] = _AXES
  if goal_radius > 0:
    _draw_disc(image, goal, goal_radius, _GOAL)
  _draw_disc(image, goal, _DOT_RADIUS, _GOAL_CENTER)
  for position in positions[:-1]:
    _draw_disc(image, position, _TRAIL_RADIUS, _TRAIL)
  _draw_disc(image, positions[-1], _DOT_RADIUS, _ROBOT)
  return image


def _draw_disc(
  image: np.ndarray, center: tuple[float, float], radius: float, color: tuple[int, int, int]
) -> None:
  """Fills the disc in place; what falls outside the picture is cut."""
  size = image.shape[0]
  grid = (np.arange(size) + 0.5) / size * (2 * _HALF_EXTENT) - _HALF_EXTENT
  inside = (grid[None, :] - center[0]) ** 2 + (-grid[:, None] - center[1]) ** 2 <= radius**2
  image[inside] = color
