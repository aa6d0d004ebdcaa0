"""The linear-Gaussian encoder against Bayesian linear regression written out in NumPy."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest

from pearl_tf.data import specs, types
from pearl_tf.networks import linear_gaussian_encoder
from pearl_tf.testing import meta_batches, test_case

DOMAIN = specs.DomainSpec(observation_size=3, action_size=2)
Z = 3


def encoder_of(**arguments) -> linear_gaussian_encoder.LinearGaussianEncoder:
  network = linear_gaussian_encoder.LinearGaussianEncoder(
    specs.context_spec(DOMAIN), latent_size=Z, hidden_units=(8,), **arguments
  )
  network.create_variables()
  return network


def random_context(num_context: int = 6, **arguments) -> types.ContextBatch:
  return meta_batches.random_meta_batch(
    DOMAIN, num_tasks=2, num_context=num_context, batch_size=1, **arguments
  ).context


def with_outputs(encoder, context: types.ContextBatch, outputs: np.ndarray) -> types.Posterior:
  """Returns the belief that would follow if the network said this of each transition."""
  encoder._mlp = lambda features: tf.constant(outputs, tf.float32)
  return encoder.infer_posterior(context)


class LinearGaussianEncoderTest(test_case.TestCase):
  def test_is_bayesian_linear_regression(self):
    encoder, context = encoder_of(), random_context(num_padding=2, padding=np.nan)
    features = np.concatenate(
      [context.observation, context.action, context.reward[..., np.newaxis]], axis=-1
    )
    kernel, bias, last_kernel, last_bias = (
      weights.astype(np.float64) for weights in encoder.get_weights()
    )
    hidden = np.maximum(np.nan_to_num(features) @ kernel + bias, 0)
    outputs = hidden @ last_kernel + last_bias
    belief = encoder.infer_posterior(context)
    for task in range(2):
      rows = outputs[task][context.mask[task] > 0]
      design, measured = rows[:, :Z], rows[:, Z]
      covariance = np.linalg.inv(np.eye(Z) + design.T @ design)
      self.assertAllClose(belief.mean[task], covariance @ design.T @ measured, rtol=1e-4)
      self.assertAllClose(belief.variance[task], np.diag(covariance), rtol=1e-4)

  def test_distances_from_three_places_give_the_place(self):
    # |p - g|^2 = |p|^2 - 2 p.g + |g|^2 is linear in (g, |g|^2), the latent here.
    goal, places = np.array([0.7, -0.4]), np.array([[0.0, 0.0], [1.0, 0.2], [-0.3, 0.8]])
    squared = np.sum((places - goal) ** 2, axis=1)
    rows = np.column_stack([-2 * places, np.ones(3), squared - np.sum(places**2, axis=1)])
    outputs = np.tile(300.0 * rows, [2, 1, 1])
    belief = with_outputs(encoder_of(), random_context(3), outputs)
    self.assertAllClose(belief.mean[0], [*goal, goal @ goal], atol=1e-3)
    self.assertLess(float(tf.reduce_max(belief.variance)), 1e-3)
    # Two of them leave one direction open.
    belief = with_outputs(encoder_of(), random_context(2), outputs[:, :2])
    self.assertGreater(float(tf.reduce_max(belief.variance)), 0.1)

  def test_statistics_add_up_and_nothing_is_the_prior(self):
    encoder, context = encoder_of(), random_context(7)
    whole = encoder.statistics(context)
    parts = [
      encoder.statistics(types.ContextBatch(*(column[:, rows] for column in context)))
      for rows in (slice(0, 3), slice(3, 7))
    ]
    for name, value in whole._asdict().items():
      added = getattr(parts[0], name) + getattr(parts[1], name)
      self.assertAllClose(added, value, rtol=1e-5, atol=1e-6)
    empty = context._replace(mask=np.zeros_like(context.mask))
    for belief in (encoder.infer_posterior(empty), encoder.prior([2])):
      self.assertAllClose(belief.mean, np.zeros([2, Z]))
      self.assertAllClose(belief.variance, np.ones([2, Z]))
    self.assertEqual(encoder.prior([]).mean.shape, [Z])

  def test_the_sharpest_measurements_neither_fail_nor_lose_their_gradient(self):
    encoder, context = encoder_of(), random_context(200)
    outputs = tf.Variable(np.full([2, 200, Z + 1], 1e6, np.float32))
    encoder._mlp = lambda features: outputs * 1e-4
    with tf.GradientTape() as tape:
      belief = encoder.infer_posterior(context)
      loss = tf.reduce_sum(belief.mean) + tf.reduce_sum(belief.variance)
    self.assertAllInRange(belief.variance, 0.0, 1.0)
    self.assertTrue(np.all(np.isfinite(tape.gradient(loss, outputs))))
    belief = with_outputs(encoder, context, np.full([2, 200, Z + 1], 1e30))  # Clipped.
    self.assertTrue(np.all(np.isfinite(belief.mean)))

  def test_knows_a_sum_of_squares(self):
    encoder = encoder_of()
    proper = encoder.statistics(random_context(2))
    self.assertAllEqual(encoder.is_proper(proper), [True, True])
    improper = proper._replace(precision=tf.constant([-np.eye(Z).ravel()] * 2, tf.float32))
    self.assertAllEqual(encoder.is_proper(improper), [False, False])


if __name__ == '__main__':
  absltest.main()
