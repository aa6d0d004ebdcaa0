"""The return of an agent that knows the goal: the ceiling that adaptation is measured against."""

from collections.abc import Sequence

import numpy as np

from pearl_tf.environments import point_robot
from pearl_tf.evaluation import meta_test


def point_robot_return(start: np.ndarray, goal: np.ndarray, num_steps: int) -> float:
  """Returns the dense return of walking straight to the goal.

  Args:
    start: `[2]` initial position.
    goal: `[2]` goal position.
    num_steps: length of the episode.
  """
  position = np.asarray(start, np.float64)
  total = 0.0
  for _ in range(num_steps):
    position = position + np.clip(goal - position, -point_robot.MAX_STEP, point_robot.MAX_STEP)
    total -= float(np.linalg.norm(position - goal))
  return total


def point_robot_oracle_return(trajectories: Sequence[meta_test.Trajectory]) -> float:
  """Returns the oracle's mean dense return from the very starts of a meta-test's trajectories."""
  return float(
    np.mean(
      [
        point_robot_return(one.observations[0], one.task.parameters, one.length)
        for one in trajectories
      ]
    )
  )
