"""What the MuJoCo families share: the switch of masses, pickles, faults of the simulator."""

import contextlib
import os
import pickle
import tempfile
import warnings

import gin
import mujoco
import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.environments import ant, half_cheetah, humanoid, mujoco_meta_env, rand_params
from pearl_tf.testing import test_case


class LegacyMassesTest(test_case.TestCase):
  @parameterized.parameters(
    (half_cheetah.HalfCheetahVel, 14.0, 14.0),
    (ant.AntGoal, 0.911, 0.879),
    (humanoid.HumanoidDir, 42.116, 39.646),
    (rand_params.Walker2dRandParams, 23.677, 22.698),
    (rand_params.HopperRandParams, 15.820, 15.265),
  )
  def test_totals_are_those_known(self, family, now, legacy):
    self.assertAlmostEqual(family().model.body_mass.sum(), now, places=3)
    self.assertAlmostEqual(family(legacy_masses=True).model.body_mass.sum(), legacy, places=3)

  def test_hopper_s_bodies_weigh_what_gym_s_did(self):
    masses = rand_params.HopperRandParams(legacy_masses=True).model.body_mass
    self.assertAllClose(masses, [0.0, 3.5343, 3.9270, 2.7143, 5.0894], atol=1e-4)

  def test_the_cheetah_s_torso_shifts_within_the_same_total(self):
    now, legacy = half_cheetah.HalfCheetahDir(), half_cheetah.HalfCheetahDir(legacy_masses=True)
    self.assertAlmostEqual(now.model.body('torso').mass[0], 6.250, places=3)
    self.assertAlmostEqual(legacy.model.body('torso').mass[0], 6.360, places=3)

  def test_inertia_is_that_of_the_longer_cylinder(self):
    model = rand_params.HopperRandParams(legacy_masses=True).model
    # Torso: radius 0.05, half-length 0.2, density 1000.
    mass, radius, height = 3.5343, 0.05, 0.4 + 0.05
    across, along = mass * (3 * radius**2 + height**2) / 12, mass * radius**2 / 2
    self.assertAllClose(np.sort(model.body_inertia[1]), np.sort([across, across, along]), rtol=1e-4)

  def test_constants_and_the_start_follow_the_masses(self):
    now, legacy = ant.AntDir(), ant.AntDir(legacy_masses=True)
    self.assertAlmostEqual(legacy.model.body_subtreemass[0], 0.879, places=3)
    np.testing.assert_array_equal(now.init_qpos, legacy.init_qpos)
    np.testing.assert_array_equal(now.model.geom_type, legacy.model.geom_type)
    np.testing.assert_array_equal(now.model.geom_size, legacy.model.geom_size)

  def test_one_line_of_gin_switches_all_domains(self):
    gin.parse_config('MujocoMetaEnv.legacy_masses = True')
    self.assertAlmostEqual(ant.AntDir().model.body_mass.sum(), 0.879, places=3)
    self.assertAlmostEqual(rand_params.HopperRandParams().model.body_mass.sum(), 15.265, places=3)


class MujocoMetaEnvTest(test_case.TestCase):
  def test_a_pickle_keeps_arguments_task_and_generator(self):
    env = rand_params.HopperRandParams(legacy_masses=True, log_scale_limit=1.0)
    env.set_task(env.sample_tasks(3, 0)[2])
    env.reset(seed=5)
    copy = pickle.loads(pickle.dumps(env))
    self.assertEqual(copy.task.index, 2)
    np.testing.assert_array_equal(copy.task.parameters, env.task.parameters)
    np.testing.assert_array_equal(copy.model.body_mass, env.model.body_mass)
    np.testing.assert_array_equal(
      copy.sample_tasks(1, 1)[0].parameters, env.sample_tasks(1, 1)[0].parameters
    )
    np.testing.assert_array_equal(copy.reset()[0], env.reset()[0])

  def test_a_pickle_before_the_first_task_and_reset(self):
    copy = pickle.loads(pickle.dumps(half_cheetah.HalfCheetahVel()))
    self.assertEqual(copy.task.index, -1)
    np.testing.assert_array_equal(
      copy.reset(seed=1)[0], half_cheetah.HalfCheetahVel().reset(seed=1)[0]
    )

  def test_a_simulation_that_was_reset_by_mujoco_is_an_error(self):
    env = half_cheetah.HalfCheetahVel()
    env.reset(seed=0)
    for _ in range(3):
      env.step(np.zeros(6))
    env.data.qvel[0] = np.nan
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    self.addCleanup(mujoco.set_mju_user_warning, previous)
    with self.assertRaisesRegex(mujoco_meta_env.SimulationDiverged, 'from 0.150 s'):
      env.step(np.zeros(6))

  def test_an_action_is_not_broadcast(self):
    env = half_cheetah.HalfCheetahVel()
    env.reset(seed=0)
    with self.assertRaisesRegex(ValueError, r'shape \(6,\), got shape \(1,\)'):
      env.step(np.zeros(1))

  def test_making_an_environment_says_and_writes_nothing(self):
    folder = self.enter_context(tempfile.TemporaryDirectory())
    self.enter_context(contextlib.chdir(folder))
    self.enter_context(warnings.catch_warnings())
    warnings.simplefilter('error')
    previous = mujoco.get_mju_user_warning()
    half_cheetah.HalfCheetahVel(legacy_masses=True)
    self.assertEqual(mujoco.get_mju_user_warning(), previous)
    # MuJoCo's own way to warn of gymnasium's file would be MUJOCO_LOG.TXT in the working directory.
    self.assertEmpty(os.listdir(folder))


if __name__ == '__main__':
  absltest.main()
