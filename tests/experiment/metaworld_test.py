"""Meta-World's tasks in an experiment; needs the extra `metaworld`."""

import numpy as np
from absl.testing import absltest

from pearl_tf.environments import registry
from pearl_tf.experiment import local_loop, metrics, task_split
from pearl_tf.testing import small_run, test_case


def parameters(some_tasks):
  return np.stack([task.parameters for task in some_tasks])


class SplitTest(test_case.TestCase):
  def test_is_taken_from_both_sets_of_the_benchmark(self):
    env = registry.make('pearl/MetaWorldML1-v0')
    own = env.sample_task_split(num_train=50, num_test=50, seed=3)
    split = task_split.sample_task_split(env, default_seed=3, num_train=3, num_test=2)
    self.assertAllEqual(parameters(split.train), parameters(own[0][:3]))
    self.assertAllEqual(parameters(split.test), parameters(own[1][:2]))
    self.assertEqual([task.index for task in split.train + split.test], [0, 1, 2, 3, 4])
    on_train = task_split.sample_task_split(env, default_seed=3, num_train=3)
    self.assertIs(on_train.test, on_train.train)
    self.assertAllEqual(parameters(on_train.train), parameters(own[0][:3]))


class TrainingTest(test_case.TestCase):
  def test_a_run_reports_the_success_rate(self):
    root = self.temp_dir() / 'run'
    gin_file = small_run.ROOT / 'trainers' / 'configs' / 'metaworld_ml1.gin'
    finished = local_loop.train(
      root,
      gin_files=[str(gin_file)],
      gin_bindings=(
        *small_run.SMALL,
        "registry.make.env_name = 'drawer-close-v3'",
        'Training.num_iterations = 1',
        'PearlTraining.gradient_steps_per_iteration = 10',
        'Training.max_episode_steps = 10',
        'PearlTraining.replay_capacity = 1000',
        'MetaTest.steps_per_repeat = 20',
      ),
    )
    self.assertTrue(finished)
    (record,) = metrics.read(root)
    for name in ('test', 'train'):
      self.assertBetween(record[f'{name}/success_rate'], 0.0, 1.0)
      self.assertTrue(np.isfinite(record[f'{name}/final_return']))


if __name__ == '__main__':
  absltest.main()
