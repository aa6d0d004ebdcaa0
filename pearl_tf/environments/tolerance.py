"""Which numbers of a simulator are taken, and how many of its episodes may be thrown away.

Simulators blow up once in a while: NaN in an observation, a velocity of 1e30. Such an episode must
not be learned from, and must not end a run either, which would only repeat it from the same seed.
"""

import math

import gin
import numpy as np
from absl import logging

_FLOAT32_MAX = float(np.finfo(np.float32).max)
# Fewer say nothing about the share of all.
_LEAST_DROPPED = 10


@gin.configurable
class Tolerance:
  """Counts the episodes of all environments of a run, and those thrown away.

  Attributes:
    largest_number: no observation or reward beyond it, on either side, is taken.
    num_episodes: begun, those thrown away included.
    num_dropped: thrown away.
  """

  def __init__(self, *, largest_number: float = 1e6, largest_share: float = 0.25):
    """Starts with no episode.

    Args:
      largest_number: the largest magnitude of a number in an observation or reward.
      largest_share: of the episodes that may be thrown away before the run ends; 0 ends it at the
        first.

    Raises:
      ValueError: if a number is impossible.
    """
    if not 0 < largest_number <= _FLOAT32_MAX:
      raise ValueError(
        f'Tolerance.largest_number must be positive and at most {_FLOAT32_MAX:.3g}, got '
        f'{largest_number!r}'
      )
    if not 0 <= largest_share <= 1:
      raise ValueError(f'Tolerance.largest_share must be in [0, 1], got {largest_share!r}')
    self.largest_number = float(largest_number)
    self._largest_share = largest_share
    self.num_episodes = self.num_dropped = 0

  def check(self, number: float) -> str | None:
    """Returns what is wrong with a number, None if nothing."""
    if not math.isfinite(number) or abs(number) > _FLOAT32_MAX:
      return f'{number}, not a finite float32'
    if abs(number) > self.largest_number:
      return f'{number:g}, beyond Tolerance.largest_number = {self.largest_number:g}'
    return None

  def drop(self, fault: Exception) -> None:
    """Counts an episode that is thrown away.

    Args:
      fault: why; raised where the episodes thrown away are too many.
    """
    self.num_dropped += 1
    too_many = self.num_dropped > self._largest_share * self.num_episodes
    if too_many and (self.num_dropped >= _LEAST_DROPPED or not self._largest_share):
      raise fault
    logging.log_first_n(
      logging.WARNING,
      '%s The episode is thrown away, and so are others like it, without a word: '
      'collect/dropped_episodes counts them, Tolerance in gin says what is too many.',
      1,
      fault,
    )
