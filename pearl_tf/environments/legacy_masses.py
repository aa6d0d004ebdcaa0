"""Body masses as MuJoCo computed them before release 2.1.2, for comparison with results of that
time.

This module owns one function that rewrites the inertial properties of a compiled model; it chooses
nothing. `mujoco_meta_env.MujocoMetaEnv` calls it where `legacy_masses` is switched on.
"""

import warnings

import mujoco
import numpy as np

_INERTIAL_FIELDS = ('body_mass', 'body_inertia', 'body_ipos', 'body_iquat')


def apply(model: mujoco.MjModel, data: mujoco.MjData, xml_path: str) -> None:
  """Gives every body of the model the mass and inertia that old MuJoCo compilers gave it.

  The old compiler took a capsule for a cylinder that is longer by half a radius at each end; since
  2.1.2 it is computed exactly. So the same file is compiled again with such cylinders in place of
  capsules, the compiler's total-mass rules included, and the inertial fields are copied over. Geoms
  for collision stay capsules.

  Args:
    model: The compiled model, changed in place. Its derived constants are recomputed.
    data: Data of the model; left in the reference configuration.
    xml_path: The file the model was compiled from.

  References: MuJoCo changelog, version 2.1.2.
  """
  spec = mujoco.MjSpec.from_file(xml_path)
  geoms = [geom for body in spec.bodies for geom in body.geoms]
  for index, geom in enumerate(geoms):
    if model.geom_type[index] != mujoco.mjtGeom.mjGEOM_CAPSULE:
      continue
    radius, half_length = model.geom_size[index, :2]
    geom.type = mujoco.mjtGeom.mjGEOM_CYLINDER
    # End points may have been given instead of a frame; the compiled frame says the same.
    geom.fromto = np.full(6, np.nan)
    geom.pos = model.geom_pos[index]
    geom.quat = model.geom_quat[index]
    geom.size = [radius, half_length + radius / 2, 0.0]
  with warnings.catch_warnings():
    # About gymnasium's half-cheetah file, which nobody here can change.
    warnings.filterwarnings('ignore', message='.*settotalmass')
    legacy = spec.compile()
  for field in _INERTIAL_FIELDS:
    getattr(model, field)[:] = getattr(legacy, field)
  mujoco.mj_setConst(model, data)
  mujoco.mj_resetData(model, data)
