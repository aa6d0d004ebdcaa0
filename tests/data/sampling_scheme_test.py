import itertools

from absl.testing import absltest, parameterized

from pearl_tf.data import sampling_scheme
from pearl_tf.testing import test_case


class SamplingSchemeTest(test_case.TestCase):
  @parameterized.parameters('context_sampling', 'batch_sampling', 'context_source')
  def test_unknown_values_are_refused(self, name):
    with self.assertRaisesRegex(ValueError, f"{name} must be one of .*, got 'shuffled'"):
      sampling_scheme.SamplingScheme(**{name: 'shuffled'})

  def test_the_rl_batch_as_context_is_drawn_as_the_rl_batch(self):
    for context, batch in itertools.permutations(sampling_scheme.SAMPLINGS):
      with self.assertRaisesRegex(ValueError, f"'{context}' must equal .*'{batch}'"):
        sampling_scheme.SamplingScheme(context, batch, sampling_scheme.RL_BATCH)
    scheme = sampling_scheme.SamplingScheme(context_source=sampling_scheme.RL_BATCH)
    scheme.check_sizes(context_size=7, batch_size=7)
    with self.assertRaisesRegex(ValueError, 'must be batch_size = 8, got 7'):
      scheme.check_sizes(context_size=7, batch_size=8)
    sampling_scheme.SamplingScheme().check_sizes(context_size=7, batch_size=8)

  def test_needs_trajectories(self):
    self.assertFalse(sampling_scheme.SamplingScheme().needs_trajectories)
    self.assertTrue(sampling_scheme.SamplingScheme('trajectories').needs_trajectories)
    self.assertTrue(
      sampling_scheme.SamplingScheme(batch_sampling='trajectories').needs_trajectories
    )


if __name__ == '__main__':
  absltest.main()
