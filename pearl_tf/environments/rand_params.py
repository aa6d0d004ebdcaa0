"""Walkers and hoppers whose dynamics are the task.

This module owns `Walker2dRandParams` and `HopperRandParams`, on gymnasium's version 5 classes and
their reset distribution: the same reward for all tasks, but masses, inertias, joint damping and
friction of each task's own. An episode has 200 steps by convention, applied by whoever steps it.
"""

import abc
import math
from typing import Any

import gin
import mujoco
import numpy as np
from gymnasium.envs.mujoco import hopper_v5, walker2d_v5

from pearl_tf.data import types
from pearl_tf.environments import mujoco_meta_env

# Field of the model and base of its multiplier, in the order in which the reference draws them.
_FIELDS = (
  ('body_mass', 1.5),
  ('body_inertia', 1.5),
  ('dof_damping', 1.3),
  ('geom_friction', 1.5),
)
# What people call them.
_SHORT_NAMES = {
  'body_mass': 'mass',
  'body_inertia': 'inertia',
  'dof_damping': 'damping',
  'geom_friction': 'friction',
}
# Seconds of one step of the simulator: twice that of gymnasium's files, hence 0.016 s a step.
_TIMESTEP = 0.004


@gin.configurable
class RandParams(mujoco_meta_env.MujocoMetaEnv, abc.ABC):
  """What both families share: tasks that multiply fields of the model, and the reward.

  Reward: velocity + 1 - 1e-3 * sum(action^2), the 1 on the terminating step too. A step lasts 0.016
  s.

  Task parameters: a multiplier for each entry of `body_mass` [nbody], `body_inertia` [nbody, 3],
  `dof_damping` [nv] and `geom_friction` [ngeom, 3], in this order, flattened. Each is base^u with u
  uniform in +-`log_scale_limit` and base 1.5 (damping: 1.3). Default: all ones, the nominal model.

  The values are written into the compiled model and nothing derived from them is recomputed, as in
  the reference. Inertias may therefore be ones that no body can have.
  """

  def __init__(self, *, log_scale_limit: float = 3.0, **kwargs):
    """Makes the environment.

    Args:
      log_scale_limit: Largest exponent of a multiplier; the published tasks have 3.
      **kwargs: See `MujocoMetaEnv`.

    Raises:
      ValueError: If the limit is negative.
    """
    if not log_scale_limit >= 0:
      raise ValueError(f'RandParams.log_scale_limit must not be negative, got {log_scale_limit}.')
    self._log_scale_limit = log_scale_limit
    super().__init__(**kwargs)
    self._ezpickle_kwargs['log_scale_limit'] = log_scale_limit

  def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model, data = super()._initialize_simulation()
    # Copies: the bindings hand out views of the model that is about to change.
    self._nominal = {field: np.array(getattr(model, field)) for field, _ in _FIELDS}
    self._observation_size = model.nq - 1 + model.nv
    return model, data

  def _modify_model(self, model: mujoco.MjModel) -> None:
    model.opt.timestep = _TIMESTEP
    # The cameras of walker and hopper, of 45 degrees, cut off their feet.
    model.cam_fovy[:] = np.maximum(model.cam_fovy, 60.0)

  @property
  def num_parameters(self) -> int:
    """The number of entries of all fields."""
    return sum(values.size for values in self._nominal.values())

  @property
  def default_parameters(self) -> np.ndarray:
    """All ones."""
    return np.ones(self.num_parameters, dtype=np.float32)

  def sample_parameters(self, num_tasks: int, random_state: np.random.RandomState) -> np.ndarray:
    """Multipliers, `[num_tasks, P]`; task by task and field by field."""
    limit = self._log_scale_limit
    return np.stack(
      [
        np.concatenate(
          [
            base ** random_state.uniform(-limit, limit, size=self._nominal[field].size)
            for field, base in _FIELDS
          ]
        )
        for _ in range(num_tasks)
      ]
    )

  def apply_task(self, parameters: np.ndarray) -> None:
    """Writes nominal values times multipliers into the model.

    Raises:
      ValueError: If a multiplier is not positive.
    """
    if not (parameters > 0).all():
      raise ValueError(f'Multipliers of the dynamics must be positive, got {parameters}.')
    start = 0
    for field, nominal in self._nominal.items():
      multipliers = parameters[start : start + nominal.size].reshape(nominal.shape)
      getattr(self.model, field)[:] = nominal * multipliers
      start += nominal.size

  def multipliers(self, task: types.Task | None = None) -> dict[str, np.ndarray]:
    """The parameters of a task, by default the one in force, by field, in the shapes of the
    model."""
    parameters = (self.task if task is None else task).parameters
    result, start = {}, 0
    for field, nominal in self._nominal.items():
      result[field] = parameters[start : start + nominal.size].reshape(nominal.shape)
      start += nominal.size
    return result

  def describe_task(self, task: types.Task) -> str:
    """The typical multiplier of each field: the geometric mean of its entries."""
    typical = {
      field: math.exp(float(np.mean(np.log(values))))
      for field, values in self.multipliers(task).items()
    }
    parts = [f'{_SHORT_NAMES[field]} ×{typical[field]:.2f}' for field in typical]
    return f'dynamics, typically {", ".join(parts)}'

  def _get_obs(self) -> np.ndarray:
    observation = np.empty(self._observation_size, dtype=np.float32)
    num_positions = self._qpos.size - 1
    observation[:num_positions] = self._qpos[1:]
    observation[num_positions:] = np.minimum(np.maximum(self._qvel, -10.0), 10.0)
    return observation

  def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
    """Advances by 0.016 s; `info` has `x_velocity` in m/s."""
    x_before = self._qpos.item(0)
    self._simulate(action)
    x_velocity = (self._qpos.item(0) - x_before) / self._step_seconds
    reward = x_velocity + 1.0 - 1e-3 * float(np.dot(action, action))
    return self._get_obs(), reward, not self._is_upright(), False, {'x_velocity': x_velocity}

  @abc.abstractmethod
  def _is_upright(self) -> bool:
    """Returns whether the episode goes on; each of the two robots says."""


class Walker2dRandParams(RandParams, walker2d_v5.Walker2dEnv):
  """Walk forwards on legs of unknown dynamics.

  Observation `[17] float32`: `qpos[1:]` (8), `qvel` clipped to +-10 (9). Action `[6]` in +-1.
  Terminates unless 0.8 < z < 2 and abs(angle) < 1. Tasks: see `RandParams`.
  """

  # Its feet have the friction of the reference, 0.9 and 1.9; the file of version 5 has 1.9 for
  # both.
  simulator_arguments = {'xml_file': 'walker2d.xml'}

  def _is_upright(self) -> bool:
    return 0.8 < self._qpos.item(1) < 2.0 and -1.0 < self._qpos.item(2) < 1.0


class HopperRandParams(RandParams, hopper_v5.HopperEnv):
  """Hop forwards on a leg of unknown dynamics.

  Observation `[11] float32`: `qpos[1:]` (5), `qvel` clipped to +-10 (6). Action `[3]` in +-1.
  Terminates unless z > 0.7, abs(angle) < 0.2 and all other positions and velocities are below 100.
  Tasks: see `RandParams`.
  """

  def _is_upright(self) -> bool:
    if not (self._qpos.item(1) > 0.7 and -0.2 < self._qpos.item(2) < 0.2):
      return False
    # NaN compares false, so these say finite as well.
    return bool((np.abs(self._qpos[2:]) < 100.0).all() and (np.abs(self._qvel) < 100.0).all())
