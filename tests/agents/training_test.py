import dataclasses

from absl.testing import absltest, parameterized

from pearl_tf.agents import training
from pearl_tf.collect import schedule
from pearl_tf.testing import test_case

COUNTS = [
  field.name for field in dataclasses.fields(training.Training) if field.type in (int, 'int')
]


class TrainingTest(test_case.TestCase):
  @parameterized.product(name=COUNTS, value=[0, -3, 2.5, '7', None])
  def test_every_count_is_a_positive_integer(self, name, value):
    with self.assertRaisesRegex(ValueError, f'Training.{name} must be a positive integer, got'):
      training.Training(**{name: value})

  @parameterized.parameters(
    ({'context_sampling': 'rows'}, "context_sampling must be one of .*, got 'rows'"),
    ({'batch_sampling': 'rows'}, "batch_sampling must be one of .*, got 'rows'"),
    ({'context_source': 'disk'}, "context_source must be one of .*, got 'disk'"),
    ({'context_source': 'rl_batch'}, 'context_size must be batch_size = 256, got 64'),
  )
  def test_batches_that_cannot_be_drawn_are_refused(self, choices, message):
    with self.assertRaisesRegex(ValueError, message):
      training.Training(**choices)

  def test_an_encoder_that_depends_on_the_order_needs_trajectories(self):
    training.Training().check_order(False)
    training.Training(context_sampling='trajectories').check_order(True)
    training.Training(context_sampling='trajectories').check_order(False)
    with self.assertRaisesRegex(ValueError, "Training.context_sampling = 'transitions'"):
      training.Training().check_order(True)

  @parameterized.parameters('replay_capacity', 'export_interval')
  def test_none_switches_off_and_zero_is_refused(self, name):
    self.assertIsNone(getattr(training.Training(**{name: None}), name))
    with self.assertRaisesRegex(ValueError, f'Training.{name} must be positive or None, got 0'):
      training.Training(**{name: 0})

  def test_exports_come_at_the_interval_and_at_the_end(self):
    def exports(interval):
      sizes = training.Training(num_iterations=7, export_interval=interval)
      return [iteration for iteration in range(1, 8) if sizes.exports_after(iteration)]

    self.assertEqual(exports(3), [3, 6, 7])
    self.assertEqual(exports(7), [7])
    self.assertEqual(exports(100), [7])
    self.assertEqual(exports(None), [])

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
