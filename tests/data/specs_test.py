"""Specs: their shapes, dtypes and bounds follow from two sizes."""

import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.data import specs, types
from pearl_tf.testing import meta_batches, test_case

DOMAIN = specs.DomainSpec(observation_size=3, action_size=2)


def shapes(nest):
  """Returns the nest with each spec replaced by its shape."""
  return tf.nest.map_structure(lambda spec: tuple(spec.shape.as_list()), nest)


class SpecsTest(test_case.TestCase):
  def test_domain(self):
    self.assertEqual(DOMAIN.observation.shape, [3])
    self.assertEqual(DOMAIN.action.shape, [2])
    self.assertAllEqual(DOMAIN.action.minimum, -1.0)
    self.assertAllEqual(DOMAIN.action.maximum, 1.0)
    self.assertEqual(DOMAIN.time_step.observation, DOMAIN.observation)
    self.assertEqual(DOMAIN.time_step.reward.shape, [])

  def test_context(self):
    self.assertEqual(
      shapes(specs.context_spec(DOMAIN)),
      types.ContextBatch(observation=(3,), action=(2,), reward=(), next_observation=(3,), mask=()),
    )

  def test_transition(self):
    self.assertEqual(
      shapes(specs.transition_spec(DOMAIN)),
      types.Transition(
        observation=(3,), action=(2,), reward=(), discount=(), next_observation=(3,)
      ),
    )

  def test_policy_state(self):
    self.assertEqual(
      shapes(specs.policy_state_spec(5)),
      types.PolicyState(latent=(5,), posterior=types.Posterior(mean=(5,), variance=(5,))),
    )

  @parameterized.parameters(((),), ((4,),), ((None, 7),), ((None, None),))
  def test_with_leading(self, dimensions):
    spec = specs.transition_spec(DOMAIN)
    prefixed = specs.with_leading(spec, *dimensions)
    self.assertIsInstance(prefixed, types.Transition)
    for before, after in zip(spec, prefixed, strict=True):
      self.assertEqual(after.shape.as_list(), [*dimensions, *before.shape.as_list()])
      self.assertEqual((after.dtype, after.name), (before.dtype, before.name))

  def test_everything_is_float32_but_the_task(self):
    batch = specs.meta_batch_spec(DOMAIN)
    self.assertEqual(batch.task, tf.TensorSpec([None], tf.int64, 'task'))
    for spec in [*batch.context, *batch.transitions]:
      self.assertEqual(spec.dtype, tf.float32)

  def test_meta_batch_accepts_any_number_of_tasks_and_transitions(self):
    spec = specs.meta_batch_spec(DOMAIN)
    for num_tasks, num_context, batch_size in [(1, 1, 1), (4, 6, 5)]:
      batch = meta_batches.random_meta_batch(
        DOMAIN, num_tasks=num_tasks, num_context=num_context, batch_size=batch_size
      )
      tf.nest.assert_same_structure(batch, spec)
      for array, leaf in zip(tf.nest.flatten(batch), tf.nest.flatten(spec), strict=True):
        self.assertTrue(leaf.is_compatible_with(tf.convert_to_tensor(array)), leaf)


if __name__ == '__main__':
  absltest.main()
