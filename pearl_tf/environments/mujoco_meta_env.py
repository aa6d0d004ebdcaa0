"""What all MuJoCo families share: a simulator stepped without overhead, float32 and pickling.

This module owns `MujocoMetaEnv`, to be mixed into gymnasium's version 5 classes before them:
`class HalfCheetahVel(MujocoMetaEnv, HalfCheetahEnv)`. It defines no reward and no task; the modules
of the domains do.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import gin
import gymnasium
import mujoco
import numpy as np

from pearl_tf.environments import legacy_masses as legacy_masses_lib
from pearl_tf.environments import meta_env

# Shadows in full quality take half of the time where a processor draws.
_SHADOW_PIXELS = 1024


class SimulationDiverged(meta_env.Diverged):
  """The simulator met numbers it could not integrate and had silently started over."""


@contextlib.contextmanager
def _compiler_warnings() -> Iterator[None]:
  """Passes what MuJoCo's compiler says to `warnings`, while a model is loaded.

  By itself it prints and appends to a file MUJOCO_LOG.TXT in the working directory. Dropped is one
  message about gymnasium's half-cheetah file, which nobody here can change.
  """

  def handle(message: str) -> None:
    if 'settotalmass' not in message:
      warnings.warn(f'MuJoCo: {message}', stacklevel=2)

  previous = mujoco.get_mju_user_warning()
  mujoco.set_mju_user_warning(handle)
  try:
    yield
  finally:
    mujoco.set_mju_user_warning(previous)


@gin.configurable
class MujocoMetaEnv(meta_env.MetaEnv):
  """A mixin that turns one of gymnasium's MuJoCo classes into the base of task families.

  A domain sets the class attributes and implements `_get_obs` and `step` with `_simulate`. The
  reset distribution is that of the gymnasium class, which is the legacy one in all domains here.

  One switch serves all domains: `MujocoMetaEnv.legacy_masses = True` in gin.

  Attributes:
    simulator_arguments: What the domain passes to gymnasium's class.
    needs_contact_forces: Whether `cfrc_ext` is read. The simulator no longer computes it by itself,
      and it costs a fifth of a step.
  """

  simulator_arguments: dict[str, Any] = {}
  needs_contact_forces: bool = False
  has_picture_size = True
  steps_in_threads = True

  def __init__(self, *, legacy_masses: bool = False, **kwargs):
    """Makes the environment.

    Args:
      legacy_masses: Whether bodies weigh what they did before MuJoCo 2.1.2 (3 to 6 % less).
      **kwargs: Passed to gymnasium's class: `render_mode`, `width`, `height`, `camera_name` ...
    """
    self._legacy_masses = legacy_masses
    super().__init__(**{**self.simulator_arguments, **kwargs})
    # gymnasium has recorded the arguments of *its* constructor; a copy is made with those of ours.
    gymnasium.utils.EzPickle.__init__(self, legacy_masses=legacy_masses, **kwargs)
    # It describes the observation of gymnasium's class, not ours.
    del self.observation_structure
    self._step_seconds = self.dt
    self.observation_space = gymnasium.spaces.Box(
      -np.inf, np.inf, self._get_obs().shape, np.float32
    )

  @property
  def action_names(self) -> tuple[str, ...]:
    """The names of the actuators, in the order of an action."""
    return tuple(self.model.actuator(index).name for index in range(self.model.nu))

  def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
    with _compiler_warnings():
      model, data = super()._initialize_simulation()
      if self._legacy_masses:
        legacy_masses_lib.apply(model, data, self.fullpath)
    self._modify_model(model)
    model.vis.quality.shadowsize = min(model.vis.quality.shadowsize, _SHADOW_PIXELS)
    # Views into the simulator's memory: asking the bindings for them costs more than the reward.
    self._qpos = data.qpos
    self._qvel = data.qvel
    self._control = data.ctrl
    return model, data

  def _modify_model(self, model: mujoco.MjModel) -> None:
    """Called once with the compiled model; a domain restores here what has changed since."""

  def set_state(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
    """Sets positions and velocities, and contact forces where the domain reads them."""
    super().set_state(qpos, qvel)
    if self.needs_contact_forces:
      mujoco.mj_rnePostConstraint(self.model, self.data)

  def _simulate(self, action: np.ndarray) -> None:
    """Advances the simulation by one step of the environment.

    Raises:
      ValueError: If the action has a wrong shape, which numpy would broadcast.
      SimulationDiverged: If the simulator reset itself on its way.
    """
    if np.shape(action) != self._control.shape:
      raise ValueError(
        f'The action must have shape {self._control.shape}, got shape {np.shape(action)}.'
      )
    data = self.data
    started = data.time
    self._control[:] = action
    mujoco.mj_step(self.model, data, self.frame_skip)
    if self.needs_contact_forces:
      mujoco.mj_rnePostConstraint(self.model, data)
    # On bad numbers MuJoCo warns on a log file, puts the model back to its initial state, at time
    # 0, and goes on: an ordinary-looking observation of another trajectory.
    if data.time - started < 0.5 * self._step_seconds:
      raise SimulationDiverged(
        f'MuJoCo could not integrate on from {started:.3f} s and reset the simulation.'
      )
    if self.render_mode == 'human':
      self.render()

  def __getstate__(self) -> dict[str, Any]:
    state = super().__getstate__()
    return {**state, 'task': self._task, 'np_random': (self._np_random, self._np_random_seed)}

  def __setstate__(self, state: dict[str, Any]) -> None:
    super().__setstate__(state)
    self._np_random, self._np_random_seed = state['np_random']
    if state['task'] is not None:
      self.set_task(state['task'])
