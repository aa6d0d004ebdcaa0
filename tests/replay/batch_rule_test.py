import itertools

from absl.testing import absltest, parameterized

from pearl_tf.replay import batch_rule
from pearl_tf.testing import test_case


class BatchRuleTest(test_case.TestCase):
  @parameterized.parameters('context_sampling', 'batch_sampling', 'context_source')
  def test_unknown_values_are_refused(self, name):
    with self.assertRaisesRegex(ValueError, f"{name} must be one of .*, got 'shuffled'"):
      batch_rule.BatchRule(**{name: 'shuffled'})

  def test_the_rl_batch_as_context_is_drawn_as_the_rl_batch(self):
    for context, batch in itertools.permutations(batch_rule.SAMPLINGS):
      with self.assertRaisesRegex(ValueError, f"'{context}' must equal .*'{batch}'"):
        batch_rule.BatchRule(context, batch, batch_rule.RL_BATCH)
    rule = batch_rule.BatchRule(context_source=batch_rule.RL_BATCH)
    rule.check_sizes(context_size=7, batch_size=7)
    with self.assertRaisesRegex(ValueError, 'must be batch_size = 8, got 7'):
      rule.check_sizes(context_size=7, batch_size=8)
    batch_rule.BatchRule().check_sizes(context_size=7, batch_size=8)

  def test_needs_trajectories(self):
    self.assertFalse(batch_rule.BatchRule().needs_trajectories)
    self.assertTrue(batch_rule.BatchRule('trajectories').needs_trajectories)
    self.assertTrue(batch_rule.BatchRule(batch_sampling='trajectories').needs_trajectories)


if __name__ == '__main__':
  absltest.main()
