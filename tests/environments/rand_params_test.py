"""Random dynamics: what a task changes, that it can be undone bit for bit, and known figures."""

import gin
import mujoco
import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.data import types
from pearl_tf.environments import rand_params
from pearl_tf.testing import test_case

_BASES = {'body_mass': 1.5, 'body_inertia': 1.5, 'dof_damping': 1.3, 'geom_friction': 1.5}
_FAMILIES = (rand_params.Walker2dRandParams, rand_params.HopperRandParams)


def _fields(env):
  """All arrays of the model: those a task changes and all others."""
  model, result = env.model, {}
  for name in dir(model):
    if name.startswith('_') or callable(getattr(model, name)):
      continue
    value = getattr(model, name)
    if isinstance(value, np.ndarray):
      result[name] = value.copy()
  return result


def _nominal_task(env):
  return types.Task(0, np.ones(env.num_parameters, np.float32))


def _observations(env, num_steps=8):
  env.reset(seed=4)
  random = np.random.RandomState(1)
  size = env.action_space.shape[0]
  return np.stack([env.step(random.uniform(-1, 1, size))[0] for _ in range(num_steps)])


def _let_float(env):
  """Takes gravity and contacts away, so that a height stays where it is put."""
  env.model.opt.gravity[:] = 0.0
  env.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT


class RandParamsTest(test_case.TestCase):
  @parameterized.parameters(
    (rand_params.Walker2dRandParams, 17, 6, 65), (rand_params.HopperRandParams, 11, 3, 41)
  )
  def test_sizes(self, family, observation, action, parameters):
    env = family()
    self.assertEqual(env.observation_space.shape, (observation,))
    self.assertEqual(env.action_space.shape, (action,))
    self.assertEqual(env.num_parameters, parameters)
    self.assertAlmostEqual(env.dt, 0.016)
    self.assertEqual(env.metadata['render_fps'], 62)

  def test_the_walker_s_feet_have_the_friction_of_the_reference(self):
    model = rand_params.Walker2dRandParams().model
    self.assertAlmostEqual(model.geom('foot_geom').friction[0], 0.9)
    self.assertAlmostEqual(model.geom('foot_left_geom').friction[0], 1.9)

  @parameterized.parameters(*_FAMILIES)
  def test_tasks_are_the_draws_of_the_reference(self, family):
    env = family()
    tasks = env.sample_tasks(3, 11)
    np.random.seed(11)
    for task in tasks:
      env.set_task(task)
      for field, multipliers in env.multipliers().items():
        drawn = _BASES[field] ** np.random.uniform(-3.0, 3.0, size=multipliers.shape)
        self.assertAllClose(multipliers, drawn, rtol=1e-6)

  @parameterized.parameters(*_FAMILIES)
  def test_multipliers_are_in_range_and_reach_far(self, family):
    env = family()
    drawn = {field: [] for field in _BASES}
    for task in env.sample_tasks(50, 0):
      env.set_task(task)
      for field, multipliers in env.multipliers().items():
        drawn[field].extend(multipliers.ravel())
    for field, values in drawn.items():
      limit = _BASES[field] ** 3
      self.assertAllInRange(np.array(values), 1 / limit * 0.999999, limit * 1.000001)
      self.assertLess(np.min(values), 1.1 / limit)
      self.assertGreater(np.max(values), limit / 1.1)

  @parameterized.parameters(*_FAMILIES)
  def test_a_task_writes_its_fields_and_no_other(self, family):
    env = family()
    nominal = _fields(env)
    task = env.sample_tasks(1, 0)[0]
    env.set_task(task)
    changed = _fields(env)
    for field, multipliers in env.multipliers().items():
      self.assertAllClose(changed[field], nominal[field] * multipliers, rtol=1e-6)
      self.assertEqual(
        np.count_nonzero(changed[field] != nominal[field]), np.count_nonzero(nominal[field])
      )
    # Damping of the root stays 0, and nothing derived is recomputed.
    np.testing.assert_array_equal(changed['dof_damping'][:3], np.zeros(3))
    for field in set(nominal) - set(_BASES):
      np.testing.assert_array_equal(changed[field], nominal[field], err_msg=field)

  @parameterized.parameters(*_FAMILIES)
  def test_back_to_nominal_bit_for_bit_whatever_came_between(self, family):
    env = family()
    nominal, trajectory = _fields(env), _observations(env)
    for task in env.sample_tasks(5, 0):
      env.set_task(task)
      self.assertGreater(np.abs(_observations(env) - trajectory).max(), 1e-3)
    env.set_task(_nominal_task(env))
    for field, values in _fields(env).items():
      np.testing.assert_array_equal(values, nominal[field], err_msg=field)
    np.testing.assert_array_equal(_observations(env), trajectory)

  @parameterized.product(family=_FAMILIES, field=tuple(_BASES))
  def test_each_field_alone_changes_the_motion(self, family, field):
    env = family()
    nominal = _observations(env, 40)
    parameters, start = np.ones(env.num_parameters, np.float32), 0
    for name, values in env.multipliers().items():
      if name == field:
        parameters[start : start + values.size] = 2.0
      start += values.size
    env.set_task(types.Task(0, parameters))
    self.assertGreater(np.abs(_observations(env, 40) - nominal).max(), 1e-4)

  @parameterized.parameters(*_FAMILIES)
  def test_two_environments_never_share_a_task(self, family):
    one, other = family(), family()
    trajectory = _observations(other)
    one.set_task(one.sample_tasks(1, 0)[0])
    np.testing.assert_array_equal(_observations(other), trajectory)
    self.assertGreater(np.abs(_observations(one) - trajectory).max(), 1e-3)

  @parameterized.parameters(*_FAMILIES)
  def test_reward_and_observation(self, family):
    env = family()
    env.set_task(env.sample_tasks(1, 0)[0])
    env.reset(seed=0)
    random = np.random.RandomState(0)
    for _ in range(10):
      action = random.uniform(-1, 1, env.action_space.shape[0])
      x = env.data.qpos[0]
      observation, reward, _, truncated, _ = env.step(action)
      expected = (env.data.qpos[0] - x) / 0.016 + 1 - 1e-3 * np.sum(action**2)
      self.assertAlmostEqual(reward, expected, places=6)
      velocity = np.clip(env.data.qvel, -10, 10)
      self.assertAllClose(observation, np.concatenate([env.data.qpos[1:], velocity]))
      self.assertFalse(truncated)

  def test_velocities_are_clipped(self):
    env = rand_params.HopperRandParams()
    env.reset(seed=0)
    env.set_state(env.init_qpos, np.full(6, 30.0))
    observation, *_ = env.step(np.zeros(3))
    self.assertEqual(observation[5:].max(), 10.0)
    self.assertGreater(env.data.qvel.max(), 10.0)

  @parameterized.parameters(
    (rand_params.Walker2dRandParams, 1.25, 0.0, False),
    (rand_params.Walker2dRandParams, 0.7, 0.0, True),
    (rand_params.Walker2dRandParams, 2.1, 0.0, True),
    (rand_params.Walker2dRandParams, 1.5, 0.9, False),
    (rand_params.Walker2dRandParams, 1.5, -1.1, True),
    (rand_params.HopperRandParams, 1.25, 0.0, False),
    (rand_params.HopperRandParams, 0.6, 0.0, True),
    (rand_params.HopperRandParams, 3.0, 0.0, False),
    (rand_params.HopperRandParams, 1.25, 0.25, True),
    (rand_params.HopperRandParams, 1.25, -0.15, False),
  )
  def test_ends_when_not_upright_and_is_still_paid_for_living(self, family, height, angle, ends):
    env = family()
    env.reset(seed=0)
    _let_float(env)
    qpos = env.init_qpos.copy()
    qpos[1:3] = height, angle
    env.set_state(qpos, np.zeros(env.model.nv))
    x = env.data.qpos[0]
    _, reward, terminated, _, _ = env.step(np.zeros(env.action_space.shape[0]))
    self.assertEqual(terminated, ends)
    self.assertAlmostEqual(reward, (env.data.qpos[0] - x) / 0.016 + 1, places=6)

  def test_the_hopper_ends_when_it_whirls(self):
    env = rand_params.HopperRandParams()
    env.reset(seed=0)
    qpos, qvel = env.init_qpos.copy(), np.zeros(6)
    qpos[1], qvel[1] = 2.0, 150.0
    env.set_state(qpos, qvel)
    self.assertTrue(env.step(np.zeros(3))[2])

  @parameterized.parameters(
    (rand_params.Walker2dRandParams, -0.4, 9), (rand_params.HopperRandParams, 6, 8)
  )
  def test_sanity_returns(self, family, known_return, known_length):
    env = family()
    env.reset(seed=0)
    random = np.random.RandomState(0)
    returns, lengths = [], []
    for _ in range(30):
      env.reset()
      total, terminated, length = 0.0, False, 0
      while not terminated and length < 200:
        action = random.uniform(-1, 1, env.action_space.shape[0])
        _, reward, terminated, _, _ = env.step(action)
        total, length = total + reward, length + 1
      returns.append(total)
      lengths.append(length)
    self.assertAlmostEqual(np.mean(returns), known_return, delta=4)
    self.assertAlmostEqual(np.mean(lengths), known_length, delta=2)

  @parameterized.parameters(*_FAMILIES)
  def test_reset_distribution(self, family):
    env = family()
    env.reset(seed=0)
    noise = []
    for _ in range(200):
      env.reset()
      noise.append(np.concatenate([env.data.qpos - env.init_qpos, env.data.qvel]))
    self.assertAllInRange(np.array(noise), -0.005, 0.005)
    self.assertAlmostEqual(np.std(noise), 0.005 / np.sqrt(3), delta=0.0002)

  def test_the_limit_is_configurable(self):
    gin.parse_config('RandParams.log_scale_limit = 0.0')
    env = rand_params.HopperRandParams()
    np.testing.assert_array_equal(env.sample_tasks(1, 0)[0].parameters, np.ones(41))
    with self.assertRaisesRegex(ValueError, 'got -1'):
      rand_params.HopperRandParams(log_scale_limit=-1.0)

  def test_refuses_multipliers_that_are_not_positive(self):
    env = rand_params.HopperRandParams()
    with self.assertRaisesRegex(ValueError, 'positive'):
      env.set_task(types.Task(0, np.zeros(41, np.float32)))


if __name__ == '__main__':
  absltest.main()
