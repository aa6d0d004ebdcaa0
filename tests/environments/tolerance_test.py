"""Which numbers are taken, and how many episodes may be thrown away."""

import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.environments import tolerance
from pearl_tf.testing import test_case


class ToleranceTest(test_case.TestCase):
  @parameterized.parameters(
    (1e6, None),
    (-1e6, None),
    (np.nan, 'nan, not a finite float32'),
    (-np.inf, '-inf, not a finite float32'),
    (1e39, '1e+39, not a finite float32'),
    (-2e6, '-2e+06, beyond Tolerance.largest_number = 1e+06'),
  )
  def test_says_what_is_wrong_with_a_number(self, number, problem):
    self.assertEqual(tolerance.Tolerance().check(number), problem)

  @parameterized.parameters((0.25, 100, 26), (0.25, 4, 10), (0.0, 100, 1))
  def test_too_many_end_the_run(self, share, num_episodes, expected):
    counts = tolerance.Tolerance(largest_share=share)
    counts.num_episodes = num_episodes
    with self.assertRaisesRegex(RuntimeError, 'blew up'):
      for _ in range(100):
        counts.drop(RuntimeError('blew up'))
    self.assertEqual(counts.num_dropped, expected)

  @parameterized.parameters(
    ({'largest_number': 0}, 'largest_number must be positive and at most 3.4e.38, got 0'),
    ({'largest_number': 1e39}, 'got 1e.39'),
    ({'largest_number': np.nan}, 'got nan'),
    ({'largest_share': 1.5}, r'largest_share must be in \[0, 1\], got 1.5'),
  )
  def test_refuses_impossible_numbers(self, numbers, message):
    with self.assertRaisesRegex(ValueError, message):
      tolerance.Tolerance(**numbers)


if __name__ == '__main__':
  absltest.main()
