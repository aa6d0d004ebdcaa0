"""Every domain of the paper trains: collection, gradient steps, meta-test and checkpoint."""

import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.experiment import checkpoints, local_loop, metrics, trained
from pearl_tf.testing import small_run, test_case

CONFIGS = small_run.ROOT / 'trainers' / 'configs'
# Name of the gin file: size of the observation, whether its tasks are a fixed list of two.
DOMAINS = {
  'point_robot': (2, False),
  'sparse_point_robot': (2, False),
  'cheetah_dir': (20, True),
  'cheetah_vel': (20, False),
  'ant_dir': (27, True),
  'ant_rand_dir': (27, False),
  'ant_goal': (113, False),
  'humanoid_dir': (376, False),
  'walker_rand_params': (17, False),
  'hopper_rand_params': (11, False),
}
EPISODE_STEPS = 5
SHRUNKEN = (
  *small_run.SMALL,
  'Training.num_iterations = 1',
  'PearlTraining.gradient_steps_per_iteration = 4',
  'PearlTraining.steps_per_call = 2',
  f'Training.max_episode_steps = {EPISODE_STEPS}',
  'Training.num_environments = 2',
  'CollectSchedule.initial_steps = 10',
  'CollectSchedule.prior_steps = 10',
  'CollectSchedule.posterior_steps = 0',
  'CollectSchedule.extra_steps = 10',
  'MetaTest.num_repeats = 1',
  'MetaTest.steps_per_repeat = 15',
  'MetaTest.num_exploration_episodes = 2',
)
TWO_TASKS = ('sample_task_split.num_train = 2', 'sample_task_split.num_test = None')


class DomainsTest(test_case.TestCase):
  @parameterized.named_parameters((name, name) for name in DOMAINS)
  def test_trains(self, name):
    observation_size, has_two_tasks = DOMAINS[name]
    root = self.temp_dir() / 'run'
    self.assertTrue(
      local_loop.train(
        root,
        gin_files=[str(CONFIGS / f'{name}.gin')],
        gin_bindings=(*SHRUNKEN, *(TWO_TASKS if has_two_tasks else ())),
        seed=0,
      )
    )
    (record,) = metrics.read(root)
    num_tasks = 2 if has_two_tasks else 4
    # Walkers may fall within an episode, and a phase then ends with a whole one.
    at_least = 10 * num_tasks + 3 * 20
    self.assertBetween(record['env_steps'], at_least, at_least + (num_tasks + 6) * EPISODE_STEPS)
    self.assertEqual(record['gradient_steps'], 4)
    for value in ('loss/critic', 'loss/actor', 'loss/kl', 'test/final_return'):
      self.assertTrue(np.isfinite(record[value]), value)
    newest = checkpoints.Checkpoints(root / 'checkpoints', prefix='latest').latest()
    self.assertEqual(checkpoints.progress(newest)['iteration'], 1)
    builder, _ = trained.restore(root)
    self.assertEqual(builder.domain.observation_size, observation_size)


if __name__ == '__main__':
  absltest.main()
