from absl.testing import absltest

from pearl_tf.experiment.benchmark import timing
from pearl_tf.testing import test_case


class _Clock:
  def __init__(self):
    self.seconds = 0.0

  def __call__(self) -> float:
    return self.seconds


class TimingTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.clock = _Clock()
    self.calls = []

  def activity(self, name: str, *durations: float, work: int = 1):
    """Returns an activity that takes the given times, the first of them for its warm-up."""
    waiting = list(durations)

    def run() -> int:
      self.calls.append(name)
      self.clock.seconds += waiting.pop(0)
      return work

    return run

  def take_turns(self, seconds: float, min_rounds: int, **activities) -> dict[str, timing.Turns]:
    return timing.take_turns(activities, seconds=seconds, min_rounds=min_rounds, clock=self.clock)

  def test_turns_alternate_after_an_untimed_first_call(self):
    turns = self.take_turns(
      0, 3, a=self.activity('a', 90, 1, 2, 3), b=self.activity('b', 80, 4, 5, 6)
    )
    self.assertEqual(self.calls, ['a', 'b', 'a', 'b', 'b', 'a', 'a', 'b'])
    self.assertEqual(turns['a'].seconds, [1, 2, 3])
    self.assertEqual(turns['b'].seconds, [4, 5, 6])

  def test_goes_on_until_the_time_is_over(self):
    turns = self.take_turns(5, 1, a=self.activity('a', 100, *[2.0] * 10))
    self.assertEqual(turns['a'].number, 3)

  def test_figures(self):
    turns = timing.Turns(seconds=[2.0, 4.0, 9.0], work=[10, 10, 10])
    self.assertAlmostEqual(turns.median_rate(), 2.5)
    self.assertAlmostEqual(turns.best_rate(), 5.0)
    self.assertAlmostEqual(turns.median_seconds(), 4.0)

  def test_drift_does_not_change_the_comparison(self):
    slower = timing.Turns(seconds=[1.1, 2.2, 4.4, 8.8], work=[1] * 4)
    faster = timing.Turns(seconds=[2.0, 4.0, 8.0, 16.0], work=[2] * 4)
    self.assertAlmostEqual(timing.extra_percent(slower, faster), 10.0)
    self.assertAlmostEqual(timing.extra_percent(faster, faster), 0.0)

  def test_idle_activity_is_named(self):
    with self.assertRaisesRegex(RuntimeError, "'a' did nothing: its work was 0"):
      self.take_turns(0, 1, a=self.activity('a', 1, 1, work=0))

  def test_no_round_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'min_rounds must be positive, got 0'):
      self.take_turns(1, 0, a=self.activity('a'))


if __name__ == '__main__':
  absltest.main()
