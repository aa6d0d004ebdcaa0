"""A humanoid that runs in a direction.

This module owns `HumanoidDir`, on gymnasium's `Humanoid-v5` and its reset distribution, with the
hip's range and the observation of the published experiments. An episode has 200 steps by
convention, applied by whoever steps it.
"""

import math
from typing import Any

import mujoco
import numpy as np
from gymnasium.envs.mujoco import humanoid_v5

from pearl_tf.data import types
from pearl_tf.environments import mujoco_meta_env

# The range of this joint in the model file of 2019, in degrees; the file has -110 to 20 now.
_LEFT_HIP_Y_DEGREES = (-120.0, 20.0)
_MAX_IMPACT_COST = 10.0


class HumanoidDir(mujoco_meta_env.MujocoMetaEnv, humanoid_v5.HumanoidEnv):
  """Run in a direction; the episode ends when the root is too low or too high.

  Reward: 0.25 * (displacement of the centre of mass along the direction) / 0.003 s - 0.1 *
  sum(control^2) - min(5e-7 * sum(contact forces^2), 10) + 5, the last term on the terminating step
  too. Terminates when z of the root leaves [1, 2]. A step lasts 0.015 s.

  Observation `[376] float32`: `qpos[2:]` (22), `qvel` (23), `cinert` (140), `cvel` (84),
  `qfrc_actuator` (23), `cfrc_ext` (84). 28 entries are always 0 (the rows of the world, the
  unactuated root) and are kept, as gymnasium's version 5 does not. Action `[17]` in +-0.4.

  Task parameter: `direction` in radians, uniform in [0, 2 pi). Default: 0, along x.
  """

  needs_contact_forces = True
  parameter_names = ('direction',)
  default_parameters = (0.0,)
  _heading = (1.0, 0.0)

  def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model, data = super()._initialize_simulation()
    self._body_positions = data.xipos
    self._body_weights = model.body_mass / model.body_mass.sum()
    self._contact_forces = data.cfrc_ext
    self._observed_tail = (data.cinert, data.cvel, data.qfrc_actuator, data.cfrc_ext)
    return model, data

  def _modify_model(self, model: mujoco.MjModel) -> None:
    model.joint('left_hip_y').range[:] = np.deg2rad(_LEFT_HIP_Y_DEGREES)

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
    parts = [self._qpos[2:], self._qvel, *(part.ravel() for part in self._observed_tail)]
    return np.concatenate(parts, dtype=np.float32)

  def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
    """Advances by 0.015 s; `info` has `forward_velocity` in m/s along the direction."""
    x_before, y_before, _ = self._body_weights.dot(self._body_positions).tolist()
    self._simulate(action)
    x, y, _ = self._body_weights.dot(self._body_positions).tolist()
    along_x, along_y = self._heading
    displacement = (x - x_before) * along_x + (y - y_before) * along_y
    forces = self._contact_forces.ravel()
    reward = (
      0.25 * displacement / self.model.opt.timestep
      - 0.1 * float(np.dot(self._control, self._control))
      - min(5e-7 * float(np.dot(forces, forces)), _MAX_IMPACT_COST)
      + 5.0
    )
    height = self._qpos.item(2)
    terminated = height < 1.0 or height > 2.0
    info = {'forward_velocity': displacement / self._step_seconds}
    return self._get_obs(), reward, terminated, False, info
