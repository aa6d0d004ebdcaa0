"""A task family whose simulator takes its time: what many actors are for, at no cost of CPU."""

import time

from pearl_tf.environments import point_robot


class SlowPointRobot(point_robot.PointRobot):
  """A `PointRobot` that sleeps in every step; see there."""

  def __init__(self, *, seconds_per_step: float = 0.002):
    """Makes the environment.

    Args:
      seconds_per_step: how long each step sleeps.
    """
    super().__init__()
    self._seconds = seconds_per_step

  def step(self, action):
    time.sleep(self._seconds)
    return super().step(action)
