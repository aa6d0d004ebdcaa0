"""Ants with a direction or a goal position as the task.

This module owns `AntDir` (forwards or backwards, the published Ant-Fwd-Back), `AntRandDir` (any
direction) and `AntGoal`, on gymnasium's `Ant-v5` and its reset distribution. An episode has 200
steps by convention, applied by whoever steps it.
"""

import math
from typing import Any

import mujoco
import numpy as np
from gymnasium.envs.mujoco import ant_v5

from pearl_tf.data import types
from pearl_tf.environments import mujoco_meta_env

_CONTACT_COST = 5e-4
_CONTACT_FORCE_LIMIT = 1.0


class Ant(mujoco_meta_env.MujocoMetaEnv, ant_v5.AntEnv):
  """What the families share: the body, its torso and the cost of contacts.

  Action `[8]` in +-1. A step lasts 0.05 s. Velocities and positions are those of the torso's body
  frame, as in the reference, not of its centre of mass.
  """

  needs_contact_forces = True

  def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model, data = super()._initialize_simulation()
    self._torso = data.body('torso').xpos
    self._contact_forces = data.cfrc_ext
    return model, data

  def _clipped_contact_forces(self) -> np.ndarray:
    """`[84] float64`: force and torque on each of 14 bodies, the world (always 0) included."""
    forces = self._contact_forces.ravel()
    return np.minimum(np.maximum(forces, -_CONTACT_FORCE_LIMIT), _CONTACT_FORCE_LIMIT)


class AntRandDir(Ant):
  """Run in a direction; the episode ends when the torso is too low or too high.

  Reward: velocity along the direction - 0.5 * sum(action^2) - 5e-4 * sum(clip(contact forces)^2) +
  1, the last term on the terminating step too. Terminates when z of the torso leaves [0.2, 1.0] or
  the state is not finite. Observation `[27] float32`: `qpos[2:]` (13), `qvel` (14).

  Task parameter: `direction` in radians, uniform in [0, 2 pi). Default: 0, along x.
  """

  simulator_arguments = {'include_cfrc_ext_in_observation': False}
  parameter_names = ('direction',)
  default_parameters = (0.0,)
  _heading = (1.0, 0.0)

  def sample_parameters(self, num_tasks: int, random_state: np.random.RandomState) -> np.ndarray:
    """Directions uniform on the circle, `[num_tasks, 1]`."""
    return random_state.uniform(0.0, 2.0 * np.pi, size=(num_tasks, 1))

  def apply_task(self, parameters: np.ndarray) -> None:
    """Takes the direction as a unit vector."""
    direction = float(parameters[0])
    self._heading = (math.cos(direction), math.sin(direction))

  def describe_task(self, task: types.Task) -> str:
    return f'run at {math.degrees(task.parameters[0]):.0f}° to the x axis'

  def _get_obs(self) -> np.ndarray:
    observation = np.empty(27, dtype=np.float32)
    observation[:13] = self._qpos[2:]
    observation[13:] = self._qvel
    return observation

  def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
    """Advances by 0.05 s; `info` has `forward_velocity` in m/s along the direction."""
    x_before, y_before, _ = self._torso.tolist()
    self._simulate(action)
    x, y, _ = self._torso.tolist()
    along_x, along_y = self._heading
    velocity = ((x - x_before) * along_x + (y - y_before) * along_y) / self._step_seconds
    forces = self._clipped_contact_forces()
    reward = (
      velocity
      - 0.5 * float(np.dot(action, action))
      - _CONTACT_COST * float(np.dot(forces, forces))
      + 1.0
    )
    observation = self._get_obs()
    height = self._qpos.item(2)
    healthy = 0.2 <= height <= 1.0 and bool(np.isfinite(observation).all())
    return observation, reward, not healthy, False, {'forward_velocity': velocity}


class AntDir(AntRandDir):
  """Run forwards or backwards; else as `AntRandDir`.

  Task parameter: `direction` in radians, the fixed list [0, pi] for training and testing. Default:
  0.
  """

  fixed_task_count = 2

  def sample_parameters(self, num_tasks: int, random_state: np.random.RandomState) -> np.ndarray:
    """The fixed list, `[num_tasks, 1]`; nothing is drawn."""
    del random_state
    return np.array([[0.0], [np.pi]])[:num_tasks]

  def describe_task(self, task: types.Task) -> str:
    return 'run forwards' if math.cos(task.parameters[0]) > 0 else 'run backwards'


class AntGoal(Ant):
  """Go to a position.

  Reward: -(|x - goal_x| + |y - goal_y|) - 0.1 * sum(action^2) - 5e-4 * sum(clip(contact forces)^2),
  with x and y of the torso after the step. Never terminates. Observation `[113] float32`: `qpos`
  (15), `qvel` (14), contact forces clipped to +-1 (84, the first 6 of the world and always 0).

  Task parameters: `goal_x`, `goal_y` in m, uniform in the disc of radius 3. Default: (2, 0).
  """

  parameter_names = ('goal_x', 'goal_y')
  default_parameters = (2.0, 0.0)
  _goal = (2.0, 0.0)

  def sample_parameters(self, num_tasks: int, random_state: np.random.RandomState) -> np.ndarray:
    """Goals uniform in the disc of radius 3, `[num_tasks, 2]`; all angles are drawn first."""
    angle = random_state.random_sample(num_tasks) * 2.0 * np.pi
    radius = 3.0 * np.sqrt(random_state.random_sample(num_tasks))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

  def apply_task(self, parameters: np.ndarray) -> None:
    """Takes the goal."""
    self._goal = (float(parameters[0]), float(parameters[1]))

  def describe_task(self, task: types.Task) -> str:
    x, y = task.parameters
    return f'go to x = {x:.2f} m, y = {y:.2f} m'

  def _get_obs(self) -> np.ndarray:
    return self._observe(self._clipped_contact_forces())

  def _observe(self, forces: np.ndarray) -> np.ndarray:
    observation = np.empty(113, dtype=np.float32)
    observation[:15] = self._qpos
    observation[15:29] = self._qvel
    observation[29:] = forces
    return observation

  def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
    """Advances by 0.05 s; `info` has `goal_distance`, the L1 distance in m."""
    self._simulate(action)
    x, y, _ = self._torso.tolist()
    distance = abs(x - self._goal[0]) + abs(y - self._goal[1])
    forces = self._clipped_contact_forces()
    reward = (
      -distance
      - 0.1 * float(np.dot(action, action))
      - _CONTACT_COST * float(np.dot(forces, forces))
    )
    return self._observe(forces), reward, False, False, {'goal_distance': distance}
