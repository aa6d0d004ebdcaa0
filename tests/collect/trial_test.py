import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.collect import schedule, trial
from pearl_tf.data import types
from pearl_tf.testing import test_case

TASK = types.Task(3, np.zeros(1, np.float32))


def episode(number: int, length: int = 4) -> types.Episode:
  """Returns an episode whose every entry tells its number and step."""
  column = (100 * number + np.arange(length)).astype(np.float32)
  return types.Episode(column[:, None], column[:, None], column, column, column, column[:, None])


def run(current: trial.Trial, lengths) -> list[tuple]:
  """Feeds episodes and returns, for each, phase, index, whether adapted, and what follows."""
  record = []
  for number, length in enumerate(lengths):
    before = (current.phase.name, current.episodes_in_phase, current.adapted)
    to_prior = current.finish_episode(episode(number, length))
    record.append((*before, to_prior))
  return record


class TrialTest(test_case.TestCase):
  def test_the_phases_of_a_visit(self):
    phases = schedule.CollectSchedule(
      prior_steps=8, posterior_steps=12, extra_steps=8
    ).visit_phases(context_size=5)
    current = trial.Trial(TASK, phases)
    self.assertEqual(
      run(current, [4] * 7),
      [
        # The prior phase never adapts; each later phase starts on the prior, then follows.
        ('prior', 0, False, False),
        ('prior', 1, False, True),
        ('posterior', 0, False, False),
        ('posterior', 1, True, False),
        ('posterior', 2, True, True),
        ('extra', 0, False, False),
        ('extra', 1, True, True),
      ],
    )
    self.assertIsNone(current.phase)
    self.assertFalse(current.needs_inference)

  def test_extra_does_not_join_the_context_and_posterior_does(self):
    phases = schedule.CollectSchedule(
      prior_steps=4, posterior_steps=4, extra_steps=12
    ).visit_phases(context_size=200)
    current = trial.Trial(TASK, phases)
    run(current, [4, 4, 4])  # One of each; the extra phase goes on.
    self.assertTrue(current.needs_inference)
    (drawn,) = current.context(np.random.default_rng(0))
    self.assertLen(drawn.reward, 200)
    self.assertEqual(
      set(drawn.context_reward.tolist()), {0.0, 1.0, 2.0, 3.0, 100.0, 101.0, 102.0, 103.0}
    )
    self.assertAllEqual(drawn.observation[:, 0], drawn.reward)  # Rows stay whole.

  def test_sub_samples_are_drawn_anew_with_replacement_and_uniform(self):
    phase = schedule.Phase('p', 100, 0, in_context=True, context_size=6)
    current = trial.Trial(TASK, [phase])
    current.finish_episode(episode(0, 3))
    random = np.random.default_rng(0)
    drawn = np.stack([current.context(random)[0].reward for _ in range(3000)])
    self.assertEqual(drawn.shape, (3000, 6))  # Six draws of three: with replacement.
    self.assertGreater(len(np.unique(drawn[:50], axis=0)), 25)
    counts = np.bincount(drawn.astype(int).ravel(), minlength=3)
    self.assertAllClose(counts / counts.sum(), [1 / 3] * 3, atol=0.02)

  @parameterized.parameters(2, 3, 5, 12)
  def test_whole_trajectories_are_drawn_uniformly_and_laid_end_to_end(self, size):
    phase = schedule.Phase(
      'p', 100, 0, in_context=True, context_size=size, context_sampling='trajectories'
    )
    current = trial.Trial(TASK, [phase])
    lengths = (3, 1, 6)
    for number, length in enumerate(lengths):
      current.finish_episode(episode(number, length))
    random = np.random.default_rng(0)
    counts = np.zeros([2, 3])  # Of the first and, where there is room, the second trajectory.
    for _ in range(1500):
      (drawn,) = current.context(random)
      self.assertAllEqual(drawn.observation[:, 0], drawn.reward)  # Rows stay whole.
      rewards, numbers = drawn.reward.astype(int), []
      self.assertLen(rewards, size)
      while len(rewards):
        number = rewards[0] // 100
        expected = episode(number, lengths[number]).reward[: len(rewards)]
        np.testing.assert_array_equal(rewards[: len(expected)], expected)
        rewards = rewards[len(expected) :]
        numbers.append(number)
      for place, number in enumerate(numbers[:2]):
        counts[place, number] += 1
    self.assertAllClose(counts[0] / 1500, [1 / 3] * 3, atol=0.04)
    if size == 12:
      self.assertAllClose(counts[1] / 1500, [1 / 3] * 3, atol=0.04)

  def test_the_whole_context_comes_once_and_in_order(self):
    phase = schedule.Phase('p', 100, 1, in_context=True)
    current = trial.Trial(TASK, [phase])
    run(current, [2, 3])
    whole = current.context(np.random.default_rng(0))
    self.assertEqual([one.reward.tolist() for one in whole], [[0, 1], [100, 101, 102]])

  def test_steps_are_counted_by_whole_episodes_of_any_length(self):
    phase = schedule.Phase('p', 10, None, in_context=True)
    current = trial.Trial(TASK, [phase])
    run(current, [4, 4, 1])
    self.assertIsNotNone(current.phase)  # Nine of ten steps: one more episode.
    run(current, [7])
    self.assertIsNone(current.phase)

  @parameterized.parameters(0, 1, 3)
  def test_the_first_episodes_of_a_phase_are_on_the_prior(self, num_prior):
    phase = schedule.Phase('p', 100, num_prior, in_context=True)
    current = trial.Trial(TASK, [phase])
    adapted = [adapted for _, _, adapted, _ in run(current, [2] * 5)]
    # Without any context there is nothing to infer from, so even 0 starts on the prior.
    self.assertEqual(adapted, [index >= max(num_prior, 1) for index in range(5)])

  def test_a_phase_without_prior_episodes_follows_the_context_at_once(self):
    first = schedule.Phase('first', 4, None, in_context=True)
    second = schedule.Phase('second', 4, 0, in_context=False)
    current = trial.Trial(TASK, [first, second])
    self.assertTrue(current.finish_episode(episode(0)))
    self.assertTrue(current.needs_inference)

  def test_the_same_episodes_are_not_inferred_from_again_but_sub_samples_are(self):
    for context_size, expected in ((None, [True, False, False]), (3, [True, True, True])):
      first = schedule.Phase('first', 4, None, in_context=True)
      second = schedule.Phase('second', 99, 0, in_context=False, context_size=context_size)
      current = trial.Trial(TASK, [first, second])
      current.finish_episode(episode(0))
      due = []
      for index in range(3):
        self.assertTrue(current.adapted)
        due.append(current.needs_inference)
        current.finish_episode(episode(index))
      self.assertEqual(due, expected)

  def test_every_phase_infers_anew(self):
    first = schedule.Phase('first', 4, None, in_context=True)
    later = schedule.Phase('later', 4, 0, in_context=False)
    current = trial.Trial(TASK, [first, later, later])
    for index in range(2):
      current.finish_episode(episode(index))
      self.assertTrue(current.needs_inference)  # The phase has put the prior in force.

  def test_phases_of_no_steps_are_skipped(self):
    phases = [
      schedule.Phase('none', 0, None, in_context=True),
      schedule.Phase('some', 1, None, in_context=True),
      schedule.Phase('none', 0, 1, in_context=True),
    ]
    current = trial.Trial(TASK, phases)
    self.assertEqual(current.phase.name, 'some')
    self.assertTrue(current.finish_episode(episode(0)))
    self.assertIsNone(current.phase)
    self.assertIsNone(trial.Trial(TASK, phases[:1]).phase)


if __name__ == '__main__':
  absltest.main()
