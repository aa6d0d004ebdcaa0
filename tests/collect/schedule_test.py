import dataclasses

from absl.testing import absltest, parameterized

from pearl_tf.collect import schedule
from pearl_tf.testing import test_case


class CollectScheduleTest(test_case.TestCase):
  def test_initial_pool_is_on_the_prior_and_is_context(self):
    (phase,) = schedule.CollectSchedule(initial_steps=123).initial_phases()
    self.assertEqual(phase.num_steps, 123)
    self.assertIsNone(phase.num_prior_episodes)
    self.assertTrue(phase.in_context)

  def test_a_visit_is_prior_posterior_extra(self):
    collect = schedule.CollectSchedule(prior_steps=10, posterior_steps=20, extra_steps=30)
    prior, posterior, extra = collect.visit_phases(context_size=7)
    self.assertEqual(
      [dataclasses.astuple(phase) for phase in (prior, posterior, extra)],
      [
        # name, num_steps, num_prior_episodes, in_context, context_size, context_sampling
        ('prior', 10, None, True, None, 'transitions'),
        ('posterior', 20, 1, True, 7, 'transitions'),
        ('extra', 30, 1, False, 7, 'transitions'),
      ],
    )
    _, posterior, extra = collect.visit_phases(7, 'trajectories')
    self.assertEqual([posterior.context_sampling, extra.context_sampling], ['trajectories'] * 2)

  @parameterized.parameters(
    ({'initial_steps': 0}, 'initial_steps.*must be positive, got 0'),
    ({'tasks_per_iteration': 0}, 'must be positive, got 2000 and 0'),
    ({'extra_steps': -1}, 'extra_steps must be an integer of at least 0, got -1'),
    ({'prior_steps': 2.5}, r'prior_steps must be an integer of at least 0, got 2\.5'),
    ({'prior_steps': 'many'}, "prior_steps must be an integer of at least 0, got 'many'"),
    ({'prior_steps': 0, 'posterior_steps': 0}, 'clears the task.s context and has to refill it'),
  )
  def test_refuses_with_value_and_remedy(self, numbers, message):
    with self.assertRaisesRegex(ValueError, message):
      schedule.CollectSchedule(**numbers)


class PhaseTest(test_case.TestCase):
  @parameterized.parameters(
    ({'num_steps': -1}, "'odd': num_steps must not be negative, got -1"),
    ({'num_prior_episodes': -2}, "'odd': num_prior_episodes must not be negative, got -2"),
    ({'context_size': 0}, "'odd': context_size must be positive, got 0"),
    ({'context_sampling': 'rows'}, "'odd': context_sampling must be one of .*, got 'rows'"),
  )
  def test_refuses_impossible_numbers(self, numbers, message):
    good = {'name': 'odd', 'num_steps': 1, 'num_prior_episodes': 1, 'in_context': True}
    with self.assertRaisesRegex(ValueError, message):
      schedule.Phase(**(good | numbers))


if __name__ == '__main__':
  absltest.main()
