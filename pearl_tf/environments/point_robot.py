"""Point robots on a plane: the smallest families on which PEARL can be watched at work.

This module owns `PointRobot` (goals in a square, dense reward) and `SparsePointRobot` (goals on a
half circle, reward only near the goal). An episode has 20 steps by convention, which whoever steps
the environment applies. Task lists with seed 1337 are those of the published experiments.
"""

import math
from typing import Any

import gin
import gymnasium
import numpy as np

from pearl_tf.data import types
from pearl_tf.environments import meta_env, rendering

# The largest displacement per axis and step.
MAX_STEP = 0.1


class PointRobot(meta_env.MetaEnv):
  """A point that is moved by displacements towards an unknown goal.

  Observation `[2] float32`: position. Action `[2]` in +-0.1: displacement. Reward: minus the
  Euclidean distance to the goal after the step. Never terminates. Starts uniformly in [-1, 1]^2.

  Task parameters: `goal_x`, `goal_y`, uniform in [-1, 1]^2. Default goal: (0, 1).
  """

  metadata = {'render_modes': ['rgb_array'], 'render_fps': 6}
  is_plane = True
  parameter_names = ('goal_x', 'goal_y')
  default_parameters = (0.0, 1.0)
  action_names = ('dx', 'dy')
  observation_names = ('x', 'y')

  def __init__(self, *, render_mode: str | None = None):
    """Makes the environment.

    Args:
      render_mode: None, or 'rgb_array' for pictures of 240 x 240 pixels.

    Raises:
      ValueError: On another render mode.
    """
    if render_mode not in (None, 'rgb_array'):
      raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}.")
    self.render_mode = render_mode
    self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    self.action_space = gymnasium.spaces.Box(-MAX_STEP, MAX_STEP, (2,), np.float32)
    self._goal = self.default_parameters
    self._position = (0.0, 0.0)
    self._trail = [self._position]

  def sample_parameters(self, num_tasks: int, random_state: np.random.RandomState) -> np.ndarray:
    """Goals uniform in the square, `[num_tasks, 2]`."""
    return random_state.uniform(-1.0, 1.0, size=(num_tasks, 2))

  def apply_task(self, parameters: np.ndarray) -> None:
    """Keeps the goal as Python floats, which are fast to compute with."""
    self._goal = (float(parameters[0]), float(parameters[1]))

  def describe_task(self, task: types.Task) -> str:
    x, y = task.parameters
    return f'goal at ({x:.2f}, {y:.2f})'

  def oracle_return(self, task: types.Task, start: np.ndarray, num_steps: int) -> float:
    """Returns the dense return of walking straight to the goal."""
    position, goal = np.asarray(start, np.float64), task.parameters
    total = 0.0
    for _ in range(num_steps):
      position = position + np.clip(goal - position, -MAX_STEP, MAX_STEP)
      total -= float(np.linalg.norm(position - goal))
    return total

  def reset(
    self, *, seed: int | None = None, options: dict[str, Any] | None = None
  ) -> tuple[np.ndarray, dict[str, Any]]:
    """Starts an episode; `options` are not used."""
    super().reset(seed=seed, options=options)
    self._position = self._start()
    self._trail = [self._position]
    return self._observe(), {}

  def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
    """Moves the robot; the action is not clipped here, as in the reference."""
    x, y = self._position
    self._position = (x + float(action[0]), y + float(action[1]))
    if self.render_mode is not None:
      self._trail.append(self._position)
    distance = math.dist(self._position, self._goal)
    return self._observe(), -distance, False, False, self._info(distance)

  def render(self) -> np.ndarray | None:
    """The episode so far, `[240, 240, 3] uint8`, or None without a render mode."""
    if self.render_mode is None:
      return None
    return rendering.draw_plane(self._trail, self._goal, self.goal_radius)

  def _start(self) -> tuple[float, float]:
    x, y = self.np_random.uniform(-1.0, 1.0, size=2).tolist()
    return x, y

  def _observe(self) -> np.ndarray:
    return np.array(self._position, dtype=np.float32)

  def _info(self, distance: float) -> dict[str, Any]:
    del distance  # The dense robot has nothing to add.
    return {}


@gin.configurable
class SparsePointRobot(PointRobot):
  """A point that starts at the origin and is rewarded only near a goal on the unit half circle.

  `step` returns the dense reward (minus the distance), from which the critics learn;
  `info['sparse_reward']` is 1 - distance within `goal_radius` and 0 outside, which is what the
  encoder sees and what returns are reported in.

  Task parameters: `goal_x`, `goal_y`, on the half circle at equal angles from 0 to pi, shuffled;
  the list depends on `num_tasks`. Default goal: (0, 1).
  """

  has_sparse_reward = True

  def __init__(self, *, goal_radius: float = 0.2, render_mode: str | None = None):
    """Makes the environment.

    Args:
      goal_radius: Distance within which the sparse reward is paid; the paper has 0.2 and 0.8.
      render_mode: See `PointRobot`.

    Raises:
      ValueError: If `goal_radius` is not positive.
    """
    if not goal_radius > 0:
      raise ValueError(f'SparsePointRobot.goal_radius must be positive, got {goal_radius}.')
    super().__init__(render_mode=render_mode)
    self.goal_radius = goal_radius

  def sample_parameters(self, num_tasks: int, random_state: np.random.RandomState) -> np.ndarray:
    """Goals on the half circle in random order, `[num_tasks, 2]`."""
    angles = np.linspace(0.0, np.pi, num=num_tasks)
    goals = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    random_state.shuffle(goals)
    return goals

  def _start(self) -> tuple[float, float]:
    return 0.0, 0.0

  def _info(self, distance: float) -> dict[str, Any]:
    return {'sparse_reward': 1.0 - distance if distance <= self.goal_radius else 0.0}
