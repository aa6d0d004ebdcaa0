"""Half-cheetahs with a direction or a velocity as the task.

This module owns `HalfCheetahDir` and `HalfCheetahVel`, on gymnasium's `HalfCheetah-v5` and its
reset distribution. Observation and reward are those of the published experiments: the position of
the torso is observed, absolute x included. An episode has 200 steps by convention, applied by
whoever steps it.
"""

import abc
from typing import Any

import mujoco
import numpy as np
from gymnasium.envs.mujoco import half_cheetah_v5

from pearl_tf.data import types
from pearl_tf.environments import mujoco_meta_env

_CONTROL_COST = 0.05


class HalfCheetah(mujoco_meta_env.MujocoMetaEnv, half_cheetah_v5.HalfCheetahEnv, abc.ABC):
  """What both families share: the body, the observation and the cost of control.

  Observation `[20] float32`: `qpos[1:]` (8), `qvel` (9), xyz of the torso (3). Action `[6]` in +-1.
  A step lasts 0.05 s. Never terminates.
  """

  def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model, data = super()._initialize_simulation()
    self._torso = data.body('torso').xpos
    return model, data

  def _get_obs(self) -> np.ndarray:
    observation = np.empty(20, dtype=np.float32)
    observation[:8] = self._qpos[1:]
    observation[8:17] = self._qvel
    observation[17:] = self._torso
    return observation

  def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
    """Advances by 0.05 s; `info` has `x_velocity` in m/s."""
    x_before = self._qpos.item(0)
    self._simulate(action)
    x_velocity = (self._qpos.item(0) - x_before) / self._step_seconds
    reward = self._reward_forward(x_velocity) - _CONTROL_COST * float(np.dot(action, action))
    return self._get_obs(), reward, False, False, {'x_velocity': x_velocity}

  @abc.abstractmethod
  def _reward_forward(self, x_velocity: float) -> float:
    """Returns what the task pays for a velocity in m/s; each of the two families says."""


class HalfCheetahDir(HalfCheetah):
  """Run forwards or backwards: reward direction * velocity - 0.05 * sum(action^2).

  Task parameter: `direction`, the fixed list [-1, +1] for training and testing. Default: +1.
  """

  parameter_names = ('direction',)
  default_parameters = (1.0,)
  fixed_task_count = 2
  _direction = 1.0

  def sample_parameters(self, num_tasks: int, random_state: np.random.RandomState) -> np.ndarray:
    """The fixed list, `[num_tasks, 1]`; nothing is drawn."""
    del random_state
    return np.array([[-1.0], [1.0]])[:num_tasks]

  def apply_task(self, parameters: np.ndarray) -> None:
    """Takes the direction.

    Raises:
      ValueError: If it is neither -1 nor +1.
    """
    direction = float(parameters[0])
    if direction not in (-1.0, 1.0):
      raise ValueError(f'The direction of HalfCheetahDir is -1 or +1, got {direction}.')
    self._direction = direction

  def describe_task(self, task: types.Task) -> str:
    return 'run forwards' if task.parameters[0] > 0 else 'run backwards'

  def _reward_forward(self, x_velocity: float) -> float:
    return self._direction * x_velocity


class HalfCheetahVel(HalfCheetah):
  """Run at a velocity: reward -abs(velocity - target) - 0.05 * sum(action^2).

  Task parameter: `velocity` in m/s, uniform in [0, 3]. Default: 1.5. With seed 1337 and 130 tasks
  the first 100 are the published training tasks and the last 30 the test tasks.
  """

  parameter_names = ('velocity',)
  default_parameters = (1.5,)
  _velocity = 1.5

  def sample_parameters(self, num_tasks: int, random_state: np.random.RandomState) -> np.ndarray:
    """Velocities uniform in [0, 3], `[num_tasks, 1]`."""
    return random_state.uniform(0.0, 3.0, size=(num_tasks, 1))

  def apply_task(self, parameters: np.ndarray) -> None:
    """Takes the target velocity."""
    self._velocity = float(parameters[0])

  def describe_task(self, task: types.Task) -> str:
    return f'target velocity {task.parameters[0]:.2f} m/s'

  def _reward_forward(self, x_velocity: float) -> float:
    return -abs(x_velocity - self._velocity)
