"""Task families as gymnasium environments.

Importing this package registers `pearl/<Name>-v0` with gymnasium, by name only: a family's module,
and MuJoCo with it, is imported when the first environment of it is made. No time limit is attached;
`gymnasium_adapter.GymnasiumAdapter` applies the one of the experiment.
"""

import gymnasium

# What `gymnasium.make` and `registry.make` know of ours: id -> module and class.
FAMILIES = {
  'pearl/PointRobot-v0': 'pearl_tf.environments.point_robot:PointRobot',
  'pearl/SparsePointRobot-v0': 'pearl_tf.environments.point_robot:SparsePointRobot',
  'pearl/HalfCheetahDir-v0': 'pearl_tf.environments.half_cheetah:HalfCheetahDir',
  'pearl/HalfCheetahVel-v0': 'pearl_tf.environments.half_cheetah:HalfCheetahVel',
  'pearl/AntDir-v0': 'pearl_tf.environments.ant:AntDir',
  'pearl/AntRandDir-v0': 'pearl_tf.environments.ant:AntRandDir',
  'pearl/AntGoal-v0': 'pearl_tf.environments.ant:AntGoal',
  'pearl/HumanoidDir-v0': 'pearl_tf.environments.humanoid:HumanoidDir',
  'pearl/Walker2dRandParams-v0': 'pearl_tf.environments.rand_params:Walker2dRandParams',
  'pearl/HopperRandParams-v0': 'pearl_tf.environments.rand_params:HopperRandParams',
}
# Those that need an optional part; making one without it says which.
EXTRA_FAMILIES = {
  'pearl/MetaWorldML1-v0': 'pearl_tf.environments.metaworld:MetaWorldML1',
  'pearl/MetaWorldML10-v0': 'pearl_tf.environments.metaworld:MetaWorldML10',
  'pearl/MetaWorldML45-v0': 'pearl_tf.environments.metaworld:MetaWorldML45',
}

for _id, _entry_point in (FAMILIES | EXTRA_FAMILIES).items():
  # A reload of the package must not make gymnasium warn of overwriting.
  if _id not in gymnasium.registry:
    gymnasium.register(id=_id, entry_point=_entry_point)
