import dataclasses

from absl.testing import absltest, parameterized

from pearl_tf.collect import schedule
from pearl_tf.experiment import training
from pearl_tf.testing import test_case

COUNTS = [
  field.name for field in dataclasses.fields(training.Training) if field.type in (int, 'int')
]


class TrainingTest(test_case.TestCase):
  @parameterized.product(name=COUNTS, value=[0, -3, 2.5, '7', None])
  def test_every_count_is_a_positive_integer(self, name, value):
    with self.assertRaisesRegex(ValueError, f'Training.{name} must be a positive integer, got'):
      training.Training(**{name: value})

  def test_the_sampler_is_one_of_two(self):
    for sampler in ('cache', 'direct'):
      self.assertEqual(training.Training(sampler=sampler).sampler, sampler)
    with self.assertRaisesRegex(ValueError, "got 'both'"):
      training.Training(sampler='both')

  def test_a_context_must_be_collectable(self):
    # Whole episodes: 30 + 20 steps and up to 9 beyond. Draws are with replacement, hence twice.
    collect = schedule.CollectSchedule(initial_steps=10, prior_steps=30, posterior_steps=20)
    training.Training(context_size=118, max_episode_steps=10).check_context(collect)
    with self.assertRaisesRegex(ValueError, 'context_size = 119 can never be collected.*most 59 '):
      training.Training(context_size=119, max_episode_steps=10).check_context(collect)

  def test_the_authors_sparse_robot_is_accepted(self):
    collect = schedule.CollectSchedule(initial_steps=200, prior_steps=100, posterior_steps=900)
    training.Training(context_size=1024, max_episode_steps=20).check_context(collect)

  def test_a_long_initial_pool_counts(self):
    collect = schedule.CollectSchedule(initial_steps=1000, prior_steps=1, posterior_steps=0)
    training.Training(context_size=1000, max_episode_steps=10).check_context(collect)


if __name__ == '__main__':
  absltest.main()
