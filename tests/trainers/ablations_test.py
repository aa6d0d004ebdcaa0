"""The ablations of the paper: each file says what it is and trains."""

import contextlib

import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.data import sampling_scheme
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import config, local_loop, metrics
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.networks import encoder, recurrent_encoder
from pearl_tf.testing import small_run, test_case

FOLDER = small_run.ROOT / 'trainers' / 'configs' / 'ablations'
# By file: encoder, how context and RL batch are drawn, where the context comes from, environment.
RULES = {
  'cheetah_vel_recurrent': ('Recurrent', 'trajectories', 'transitions', 'recent', 'HalfCheetahVel'),
  'cheetah_vel_recurrent_trajectories': (
    ('Recurrent', 'trajectories', 'trajectories', 'recent', 'HalfCheetahVel')
  ),
  'cheetah_vel_context_replay': (
    ('Gaussian', 'transitions', 'transitions', 'replay', 'HalfCheetahVel')
  ),
  'cheetah_vel_context_rl_batch': (
    ('Gaussian', 'transitions', 'transitions', 'rl_batch', 'HalfCheetahVel')
  ),
  'sparse_point_robot_deterministic': (
    ('Deterministic', 'transitions', 'transitions', 'recent', 'SparsePointRobot')
  ),
}
ENCODERS = {
  'Gaussian': encoder.GaussianEncoder,
  'Deterministic': encoder.DeterministicEncoder,
  'Recurrent': recurrent_encoder.RecurrentEncoder,
}


def small_bindings(encoder_name: str) -> list[str]:
  """Returns what makes a run of seconds of any of the files."""
  bindings = [binding.replace('Gaussian', encoder_name) for binding in small_run.SMALL]
  bindings += [
    'CollectSchedule.posterior_steps = 0',
    'MetaTest.num_repeats = 1',
    'MetaTest.steps_per_repeat = 60',
    'MetaTest.num_exploration_episodes = 1',
    'Training.max_episode_steps = 20',
    'Training.num_iterations = 1',
    'PearlTraining.gradient_steps_per_iteration = 4',
    'PearlTraining.steps_per_call = 2',
  ]
  if encoder_name == 'Recurrent':
    bindings += ['RecurrentEncoder.recurrent_units = 8', 'PearlTraining.context_size = 30']
    bindings += ['RecurrentEncoder.backpropagation_steps = 10']
  return bindings


class AblationsTest(test_case.TestCase):
  def test_every_file_is_in_the_table(self):
    self.assertCountEqual([path.stem for path in FOLDER.glob('*.gin')], RULES)

  def test_includes_are_found_from_any_folder_and_after_other_files(self):
    with contextlib.chdir(small_run.ROOT):
      for name in ('cheetah_vel', 'ablations/cheetah_vel_recurrent_trajectories'):
        text = config.load([f'trainers/configs/{name}.gin'])
        self.assertIn('pearl/HalfCheetahVel-v0', text)
    self.assertIn('@RecurrentEncoder', text)

  @parameterized.parameters(*RULES)
  def test_is_what_it_says(self, name):
    encoder_name, *rule, environment = RULES[name]
    builder = builder_lib.Builder(experiment_lib.load([FOLDER / f'{name}.gin']))
    self.assertIsInstance(builder.agent.encoder, ENCODERS[encoder_name])
    self.assertEqual(builder.method.training.sampling_scheme, sampling_scheme.SamplingScheme(*rule))
    self.assertIn(environment, builder.environments(1)[0].name)

  @parameterized.parameters(*RULES)
  def test_trains(self, name):
    root = self.temp_dir() / 'run'
    finished = local_loop.train(
      root,
      gin_files=[str(FOLDER / f'{name}.gin')],
      gin_bindings=small_bindings(RULES[name][0]),
    )
    self.assertTrue(finished)
    (record,) = metrics.read(root)
    self.assertEqual(record['gradient_steps'], 4)
    for column in ('loss/critic', 'loss/actor', 'loss/kl', 'test/final_return'):
      self.assertTrue(np.isfinite(record[column]), column)


if __name__ == '__main__':
  absltest.main()
