import os
from unittest import mock

import gymnasium
import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.data import files
from pearl_tf.experiment import task_split
from pearl_tf.testing import fakes, test_case


def sample(**numbers):
  return task_split.sample_task_split(fakes.Line(), **({'default_seed': 5} | numbers))


def parameters(some):
  return np.stack([task.parameters for task in some])


class TasksTest(test_case.TestCase):
  def test_the_first_train_and_the_last_test(self):
    split = sample(num_train=3, num_test=2)
    everything = fakes.Line().sample_tasks(5, seed=5)
    self.assertEqual([task.index for task in split.train + split.test], [0, 1, 2, 3, 4])
    self.assertAllEqual(parameters(split.train + split.test), parameters(everything))

  def test_without_test_tasks_the_training_tasks_are_tested(self):
    split = sample(num_train=3, num_test=None)
    self.assertIs(split.train, split.test)

  def test_a_seed_of_its_own_overrides_that_of_the_run(self):
    fixed = [sample(num_train=3, seed=9, default_seed=seed) for seed in (0, 1)]
    self.assertAllEqual(parameters(fixed[0].train), parameters(fixed[1].train))
    free = [sample(num_train=3, default_seed=seed) for seed in (0, 1)]
    self.assertNotAllClose(parameters(free[0].train), parameters(free[1].train))

  def test_what_is_saved_is_loaded_exactly(self):
    path = self.temp_dir() / 'tasks.json'
    split = sample(num_train=3, num_test=2)
    task_split.save(split, path)
    loaded = task_split.load(path)
    for before, after in zip(split.train + split.test, loaded.train + loaded.test, strict=True):
      self.assertEqual(before.index, after.index)
      self.assertEqual(after.parameters.dtype, np.float32)
      self.assertAllEqual(before.parameters, after.parameters)

  def test_a_death_while_saving_leaves_no_half_file(self):
    path = self.temp_dir() / 'tasks.json'
    dying = mock.patch.object(os, 'replace', side_effect=KeyboardInterrupt)
    with dying, self.assertRaises(KeyboardInterrupt):
      task_split.save(sample(num_train=3), path)
    self.assertFalse(path.exists())

  @parameterized.parameters(
    '',
    '[]',
    '{}',
    '{"train": [], "test": []}',
    '{"train": [{"index": 0, "parameters": [1]}], "test": [{"index": 1, "parameters": [1, 2]}]}',
  )
  def test_a_damaged_file_is_named(self, text):
    path = self.temp_dir() / 'tasks.json'
    path.write_text(text)
    with self.assertRaisesRegex(files.FileError, 'tasks.json is damaged'):
      task_split.load(path)

  def test_a_split_of_the_family_s_own_is_checked(self):
    class Own(gymnasium.Wrapper):
      def sample_task_split(self, num_train, num_test, seed):
        drawn = self.env.sample_tasks(num_train + num_test, seed)
        return drawn[:num_train], drawn[num_train:][::-1]

    task_split.sample_task_split(Own(fakes.Line()), default_seed=5, num_train=2, num_test=1)
    with self.assertRaisesRegex(ValueError, 'Own.sample_task_split returned .* index 3 at'):
      task_split.sample_task_split(Own(fakes.Line()), default_seed=5, num_train=2, num_test=2)

  @parameterized.parameters(
    ({'num_train': 0}, 'num_train must be positive, got 0'),
    ({'num_train': 2, 'num_test': 0}, 'num_test must be positive, or None .*got 0'),
    ({'num_train': 2, 'seed': -1}, 'got -1'),
  )
  def test_refuses_impossible_numbers(self, numbers, message):
    with self.assertRaisesRegex(ValueError, message):
      sample(**numbers)


if __name__ == '__main__':
  absltest.main()
