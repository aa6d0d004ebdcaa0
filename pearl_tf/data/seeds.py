"""One seed, many independent streams: every use of randomness is a function of seed and counter.

Because a stream is named by what it is for and by how far the run has come, there is no generator
state to save: a resumed run draws what the uninterrupted one would have drawn.
"""

import enum

import numpy as np


class Stream(enum.IntEnum):
  """What a stream of random numbers is for. Values are part of the reproducibility contract."""

  TASKS = 0
  INITIAL_POOL = 1
  VISITS = 2
  COLLECT = 3
  EVALUATE_TEST = 4
  EVALUATE_TRAIN = 5
  REPLAY = 6
  META_TEST = 7
  CALIBRATION = 8


def sequence(seed: int, stream: Stream, counter: int = 0) -> np.random.SeedSequence:
  """Returns the seed sequence of one use of randomness.

  Args:
    seed: the run's seed, not negative.
    stream: what the numbers are for.
    counter: how often the stream was used before, for example the iteration.

  Raises:
    ValueError: if `seed` is negative.
  """
  if seed < 0:
    raise ValueError(f'seed must not be negative, got {seed}')
  return np.random.SeedSequence([seed, int(stream), counter])
