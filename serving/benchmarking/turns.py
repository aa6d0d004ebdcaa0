"""Contenders measured in turns, so that a machine that wanders slows all of them alike.

A machine shared with others changes its speed by half within minutes. Contenders that take turns
meet the same weather, so that their ratios can be trusted where each figure alone cannot.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Quantity = Callable[['Sample'], float]


class Sample(NamedTuple):
  """One turn.

  Attributes:
    seconds: how long it took.
    latencies: seconds of each call, `[N] float64`, N at least 1.
    cpu_seconds: processor time of the process that answered.
  """

  seconds: float
  latencies: np.ndarray
  cpu_seconds: float

  @property
  def rate(self) -> float:
    """Calls per second."""
    return len(self.latencies) / self.seconds

  @property
  def median_latency(self) -> float:
    """Seconds of the median call."""
    return float(np.median(self.latencies))


Contender = Callable[[float], Sample]


def take_turns(
  contenders: Mapping[str, Contender], *, seconds: float, num_rounds: int
) -> dict[str, list[Sample]]:
  """Lets contenders take turns; every other round is in reverse order.

  Each has a turn before that which does not count: connections, callables and buffers are made.

  Args:
    contenders: by name; each is told how long to go on.
    seconds: of all turns of one contender.
    num_rounds: number of turns of each.

  Returns:
    The turns of each contender, in the same rounds.

  Raises:
    ValueError: if seconds or number are not positive.
  """
  if seconds <= 0 or num_rounds < 1:
    raise ValueError(f'seconds and rounds must be positive, got {seconds} and {num_rounds}')
  turn_seconds = seconds / num_rounds
  for contender in contenders.values():
    contender(turn_seconds)
  samples = {name: [] for name in contenders}
  order = list(contenders)
  for _ in range(num_rounds):
    for name in order:
      samples[name].append(contenders[name](turn_seconds))
    order.reverse()
  return samples


def median(samples: Sequence[Sample], quantity: Quantity) -> float:
  """Returns a quantity of the median turn."""
  return float(np.median([quantity(sample) for sample in samples]))


def ratio(samples: Sequence[Sample], beside: Sequence[Sample], quantity: Quantity) -> float:
  """Returns the median over rounds of the ratio within a round: both met the same weather there."""
  pairs = zip(samples, beside, strict=True)
  return float(np.median([quantity(sample) / quantity(other) for sample, other in pairs]))


def quantile(samples: Sequence[Sample], share: float) -> float:
  """Returns the latency that a share of the calls of all turns stays below, in seconds."""
  return float(np.quantile(np.concatenate([sample.latencies for sample in samples]), share))
