import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.experiment import run_folder
from pearl_tf.replay import local
from pearl_tf.testing import small_run, test_case


def build(*bindings, seed=0, folder=None):
  experiment = experiment_lib.load([small_run.GIN_FILE], (*small_run.LINE, *bindings), seed=seed)
  return builder_lib.Builder(experiment, folder)


class BuilderTest(test_case.TestCase):
  def test_sizes_come_from_the_environment(self):
    builder = build()
    self.assertEqual(builder.domain, (1, 1))
    self.assertEqual([task.index for task in builder.tasks.train], [0, 1, 2, 3])
    self.assertEqual([task.index for task in builder.tasks.test], [4, 5])

  def test_the_seed_decides_weights_and_tasks(self):
    def weights_and_tasks(seed):
      builder = build('sample_task_split.seed = None', seed=seed)
      weights = np.concatenate([v.numpy().ravel() for v in builder.agent.actor.variables])
      return weights, np.stack([task.parameters for task in builder.tasks.train])

    first, again, other = (weights_and_tasks(seed) for seed in (3, 3, 4))
    for index in range(2):
      self.assertAllEqual(first[index], again[index])
      self.assertNotAllClose(first[index], other[index])

  def test_a_date_is_a_fine_seed(self):
    builder = build(seed=20261122)
    self.assertTrue(all(np.isfinite(v.numpy()).all() for v in builder.agent.variables))

  def test_the_folder_keeps_the_tasks(self):
    folder = run_folder.RunFolder(self.temp_dir())
    first = build('sample_task_split.seed = None', seed=1, folder=folder)
    second = build('sample_task_split.seed = None', seed=2, folder=folder)
    for before, after in zip(first.tasks.train, second.tasks.train, strict=True):
      self.assertAllEqual(before.parameters, after.parameters)

  def test_environments_are_a_pool_with_the_time_limit(self):
    builder = build()
    three = builder.environments(3)
    self.assertLen({id(environment) for environment in three}, 3)
    self.assertEqual([e.max_episode_steps for e in three], [5] * 3)
    self.assertIs(builder.environments(5)[2], three[2])

  @parameterized.parameters(
    # train tasks, visits per iteration, environments configured, environments used
    (4, 3, 8, 4),
    (2, 5, 8, 5),
    (4, 3, 2, 2),
  )
  def test_no_more_environments_than_trials(self, num_train, visits, configured, used):
    builder = build(
      f'sample_task_split.num_train = {num_train}',
      f'CollectSchedule.tasks_per_iteration = {visits}',
      f'Training.num_environments = {configured}',
    )
    process = builder.make_process()
    self.addCleanup(process.close)
    self.assertLen(builder._environments, used)

  def test_the_replay_stops_when_it_cannot_be_built(self):
    # A Reverb server left to the garbage collector holds up the end of the process for minutes.
    builder = build()
    stopped = []
    original = local.server.ReplayServer.stop
    self.enter_context(
      absltest.mock.patch.object(
        local.server.ReplayServer,
        'stop',
        lambda server: (stopped.append(server), original(server)),
      )
    )
    self.enter_context(
      absltest.mock.patch.object(
        local.writer, 'ReplayWriter', side_effect=ValueError('no such number')
      )
    )
    with self.assertRaisesRegex(ValueError, 'no such number'):
      builder.make_process()
    self.assertLen(stopped, 1)


if __name__ == '__main__':
  absltest.main()
