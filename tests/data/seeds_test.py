import numpy as np
from absl.testing import absltest

from pearl_tf.data import seeds
from pearl_tf.testing import test_case


class SeedsTest(test_case.TestCase):
  def test_every_use_has_numbers_of_its_own(self):
    states = {
      tuple(seeds.sequence(seed, stream, counter).generate_state(4))
      for seed in (0, 1, 2**40)
      for stream in seeds.Stream
      for counter in range(5)
    }
    self.assertLen(states, 3 * len(seeds.Stream) * 5)

  def test_the_same_use_has_the_same_numbers(self):
    first, second = (
      np.random.default_rng(seeds.sequence(3, seeds.Stream.VISITS, 7)).random(5) for _ in range(2)
    )
    self.assertAllEqual(first, second)

  def test_the_values_of_streams_never_change(self):
    # They are in the checkpoints of others, so to speak: another number is another run.
    self.assertEqual(
      {stream.name: stream.value for stream in seeds.Stream},
      {
        'TASKS': 0,
        'INITIAL_POOL': 1,
        'VISITS': 2,
        'COLLECT': 3,
        'EVALUATE_TEST': 4,
        'EVALUATE_TRAIN': 5,
        'REPLAY': 6,
        'META_TEST': 7,
        'CALIBRATION': 8,
      },
    )

  def test_a_negative_seed_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'seed must not be negative, got -1'):
      seeds.sequence(-1, seeds.Stream.TASKS)


if __name__ == '__main__':
  absltest.main()
