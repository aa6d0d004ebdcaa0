from absl.testing import absltest, parameterized

from pearl_tf.agents.pearl import training
from pearl_tf.collect import schedule
from pearl_tf.testing import test_case


class PearlTrainingTest(test_case.TestCase):
  @parameterized.parameters(
    ({'context_sampling': 'rows'}, "context_sampling must be one of .*, got 'rows'"),
    ({'batch_sampling': 'rows'}, "batch_sampling must be one of .*, got 'rows'"),
    ({'context_source': 'disk'}, "context_source must be one of .*, got 'disk'"),
    ({'context_source': 'rl_batch'}, 'context_size must be batch_size = 256, got 64'),
  )
  def test_batches_that_cannot_be_drawn_are_refused(self, choices, message):
    with self.assertRaisesRegex(ValueError, message):
      training.PearlTraining(**choices)

  def test_an_encoder_that_depends_on_the_order_needs_trajectories(self):
    training.PearlTraining().check_order(False)
    training.PearlTraining(context_sampling='trajectories').check_order(True)
    training.PearlTraining(context_sampling='trajectories').check_order(False)
    with self.assertRaisesRegex(ValueError, "PearlTraining.context_sampling = 'transitions'"):
      training.PearlTraining().check_order(True)

  def test_a_context_must_be_collectable(self):
    # Whole episodes: 30 + 20 steps and up to 9 beyond. Draws are with replacement, hence twice.
    collect = schedule.CollectSchedule(initial_steps=10, prior_steps=30, posterior_steps=20)
    training.PearlTraining(context_size=118).check_context(collect, 10)
    with self.assertRaisesRegex(ValueError, 'context_size = 119 can never be collected.*most 59 '):
      training.PearlTraining(context_size=119).check_context(collect, 10)

  def test_the_authors_sparse_robot_is_accepted(self):
    collect = schedule.CollectSchedule(initial_steps=200, prior_steps=100, posterior_steps=900)
    training.PearlTraining(context_size=1024).check_context(collect, 20)

  def test_a_long_initial_pool_counts(self):
    collect = schedule.CollectSchedule(initial_steps=1000, prior_steps=1, posterior_steps=0)
    training.PearlTraining(context_size=1000).check_context(collect, 10)


if __name__ == '__main__':
  absltest.main()
