"""Timing several activities in turns, so that a machine that wanders slows all of them alike.

A machine shared with others changes its speed by half within minutes. Activities that take turns
meet the same weather, so that their ratios are trustworthy where each figure alone is not.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Turns(NamedTuple):
  """The turns one activity took.

  Attributes:
    seconds: how long each took.
    work: how much each did, in the activity's own unit.
  """

  seconds: list[float]
  work: list[int]

  def add(self, *, seconds: float, work: int) -> None:
    """Adds a turn."""
    self.seconds.append(seconds)
    self.work.append(work)

  @property
  def number(self) -> int:
    """How many turns."""
    return len(self.seconds)

  def seconds_per_unit(self) -> np.ndarray:
    """Returns the duration of one unit of work, by turn: `[R] float64`."""
    return np.asarray(self.seconds) / np.asarray(self.work)

  def median_rate(self) -> float:
    """Returns units of work per second in the median turn."""
    return float(1 / np.median(self.seconds_per_unit()))

  def best_rate(self) -> float:
    """Returns units of work per second in the fastest turn."""
    return float(1 / np.min(self.seconds_per_unit()))

  def median_seconds(self) -> float:
    """Returns the duration of the median turn."""
    return float(np.median(self.seconds))


def take_turns(
  activities: Mapping[str, Callable[[], int]],
  *,
  seconds: float,
  min_rounds: int = 3,
  clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Turns]:
  """Lets activities take turns until the time is over; every other round is in reverse order.

  Each is called once before that, untimed: what a first call traces or allocates is no part of the
  figures.

  Args:
    activities: by name; each returns how much it did, at least 1.
    seconds: no round starts later than this, once `min_rounds` are done.
    min_rounds: the fewest rounds, at least 1.
    clock: seconds that never go back.

  Returns:
    The turns of each activity, as many for each.

  Raises:
    ValueError: if `min_rounds` is not positive.
    RuntimeError: if an activity did nothing.
  """
  if min_rounds < 1:
    raise ValueError(f'min_rounds must be positive, got {min_rounds}')
  for activity in activities.values():
    activity()
  turns = {name: Turns([], []) for name in activities}
  order = list(activities)
  started = clock()
  num_rounds = 0
  while num_rounds < min_rounds or clock() - started < seconds:
    for name in order:
      turn_started = clock()
      work = activities[name]()
      turns[name].add(seconds=clock() - turn_started, work=work)
      if work < 1:
        raise RuntimeError(f'{name!r} did nothing: its work was {work}')
    order.reverse()
    num_rounds += 1
  return turns


def extra_percent(turns: Turns, beside: Turns) -> float:
  """Returns by how much a unit of one activity takes longer than of another, in percent.

  The median over rounds of the ratio within a round: both met the same weather there.
  """
  ratios = turns.seconds_per_unit() / beside.seconds_per_unit()
  return 100 * (float(np.median(ratios)) - 1)
