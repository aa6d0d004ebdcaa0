"""The units of actions: [-1, 1] as the model has them, or the bounds of an environment."""

from __future__ import annotations

import numpy as np
from numpy import typing

from serving.client import errors, wire

# How far an action may lie outside its bounds: rounding, not another unit.
_TOLERANCE = 1e-3


class Bounds:
  """Maps the model's actions linearly to an environment's, as environments do in training."""

  def __init__(self, low: typing.ArrayLike, high: typing.ArrayLike):
    """Keeps the bounds.

    Args:
      low: lowest action, `[A]`, or -1 for the model's own units.
      high: highest action, `[A]`, or 1.

    Raises:
      ValueError: if these are not finite numbers, the lowest below the highest.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    is_fine = low.ndim < 2 and low.shape == high.shape
    if not is_fine or not (np.isfinite(high - low) & (low < high)).all():
      raise ValueError(
        'action_bounds must be two lists of A finite numbers, the lowest and the highest action, '
        f'got {low.tolist()} and {high.tolist()}'
      )
    self._low, self._high = low, high

  def check(self, action_size: int) -> None:
    """Refuses a model whose actions are not as many as the bounds.

    Raises:
      ModelMismatchError: if they are not.
    """
    if self._low.shape not in ((), (action_size,)):
      raise errors.ModelMismatchError(
        f'the model has actions of shape [{action_size}], action_bounds {list(self._low.shape)}'
      )

  def of_environment(self, action: np.ndarray) -> np.ndarray:
    """Returns a model's action in the units of the environment, `[A] float32`, never beyond."""
    share = (np.clip(action, -1, 1) + 1) / 2
    value = self._low + share * (self._high - self._low)
    return np.clip(value.astype(np.float32), self._low.astype('f4'), self._high.astype('f4'))

  def of_model(self, action: typing.ArrayLike, action_size: int) -> np.ndarray:
    """Returns an environment's action as the model has them, `[A] float32`.

    Raises:
      InvalidInputError: if it is out of bounds, or no action.
    """
    given = wire.floats('action', action, [action_size])
    share = ((given - self._low) / (self._high - self._low) * 2 - 1).astype(np.float32)
    outside = np.flatnonzero(np.abs(share) > 1 + _TOLERANCE)
    if outside.size:
      index = int(outside[0])
      raise errors.InvalidInputError(
        f'action[{index}] is {given[index]}, outside its bounds {self._low.tolist()} and '
        f'{self._high.tolist()}: give actions in the units in which `step` returns them; '
        'action_bounds of the session sets those'
      )
    return np.clip(share, -1, 1)
