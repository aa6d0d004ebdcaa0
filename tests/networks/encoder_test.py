"""Encoders: input widths of the reference, factors, masks and the variant without a bottleneck."""

import gin
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.data import specs, types
from pearl_tf.networks import encoder
from pearl_tf.testing import meta_batches, test_case

DOMAIN = specs.DomainSpec(observation_size=3, action_size=2)
BOTH = (encoder.GaussianEncoder, encoder.DeterministicEncoder)
WIDTHS = {
  'cheetah': (20, 6, False, 27),
  'ant_dir': (27, 8, False, 36),
  'ant_goal': (113, 8, False, 122),
  'humanoid': (376, 17, False, 394),
  'walker': (17, 6, True, 41),
  'hopper': (11, 3, True, 26),
  'point': (2, 2, False, 5),
}


def encoder_of(cls, domain: specs.DomainSpec = DOMAIN, **arguments) -> encoder.ContextEncoder:
  """Returns an encoder whose outputs differ from zero by far."""
  network = cls(specs.context_spec(domain), **arguments)
  network.create_variables()
  *hidden, kernel, bias = network.get_weights()
  network.set_weights([*hidden, 300 * kernel, 300 * bias])
  return network


def random_context(num_context: int = 6, **arguments) -> types.ContextBatch:
  batch = meta_batches.random_meta_batch(
    DOMAIN, num_tasks=2, num_context=num_context, batch_size=1, **arguments
  )
  return batch.context


class EncoderTest(test_case.TestCase):
  def assertSameBelief(self, first: types.Posterior, second: types.Posterior):
    self.assertAllClose(first.mean, second.mean, rtol=1e-5, atol=1e-6)
    self.assertAllClose(first.variance, second.variance, rtol=1e-5, atol=0)

  def test_parameter_count_of_half_cheetah(self):
    domain = specs.DomainSpec(observation_size=20, action_size=6)
    network = encoder_of(encoder.GaussianEncoder, domain)
    self.assertEqual(sum(int(np.prod(v.shape)) for v in network.trainable_variables), 88_010)

  @parameterized.named_parameters((name, *sizes) for name, sizes in WIDTHS.items())
  def test_input_width(self, observation_size, action_size, use_next_observation, width):
    domain = specs.DomainSpec(observation_size, action_size)
    for cls, outputs in zip(BOTH, (10, 5), strict=True):
      network = encoder_of(
        cls, domain, hidden_units=(4,), use_next_observation=use_next_observation
      )
      first_kernel, _, last_kernel, _ = network.get_weights()
      self.assertEqual(first_kernel.shape, (width, 4))
      self.assertEqual(last_kernel.shape, (4, outputs))

  def test_factors(self):
    network = encoder_of(encoder.GaussianEncoder, latent_size=4, hidden_units=(7, 6))
    context = random_context()
    factors, state = network(context)
    self.assertEqual(state, ())
    features = np.concatenate(
      [context.observation, context.action, context.reward[..., np.newaxis]], axis=-1
    )
    weights = network.get_weights()
    for kernel, bias in [weights[:2], weights[2:4]]:
      features = np.maximum(features @ kernel + bias, 0)
    outputs = features @ weights[4] + weights[5]
    self.assertAllClose(factors.mean, outputs[..., :4], rtol=1e-4, atol=1e-5)
    self.assertAllClose(factors.variance, np.logaddexp(0, outputs[..., 4:]), rtol=1e-4)

  def test_variance_of_a_factor_is_floored(self):
    network = encoder_of(encoder.GaussianEncoder, latent_size=2, hidden_units=(4,))
    *hidden, kernel, _ = network.get_weights()
    network.set_weights([*hidden, np.zeros_like(kernel), np.float32([1, 1, -40, -40])])
    factors, _ = network(random_context())
    self.assertAllClose(factors.variance, np.full([2, 6, 2], 1e-7), rtol=1e-6, atol=0)
    self.assertAllClose(network.infer_posterior(random_context()).mean, np.ones([2, 2]))

  def test_posterior_is_the_product_of_the_factors(self):
    network = encoder_of(encoder.GaussianEncoder, hidden_units=(7,))
    context = random_context()
    mean, variance = (np.float64(part) for part in network(context)[0])
    expected_variance = 1 / np.sum(1 / variance, axis=1)
    expected = types.Posterior(
      expected_variance * np.sum(mean / variance, axis=1), expected_variance
    )
    self.assertSameBelief(network.infer_posterior(context), expected)

  @parameterized.parameters(([],), ([4],), ([2, 3],))
  def test_prior(self, batch_shape):
    for cls, variance in ((encoder.GaussianEncoder, 1.0), (encoder.DeterministicEncoder, 0.0)):
      prior = encoder_of(cls, latent_size=5).prior(batch_shape)
      self.assertAllEqual(prior.mean, np.zeros([*batch_shape, 5], np.float32))
      self.assertAllEqual(prior.variance, np.full([*batch_shape, 5], variance, np.float32))
      self.assertEqual(encoder_of(cls).has_bottleneck, variance > 0)

  def test_prior_of_a_shape_that_is_a_tensor(self):
    network = encoder_of(encoder.GaussianEncoder, latent_size=3)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])
    def prior(like):
      return network.prior(tf.shape(like)[:1])

    self.assertEqual(prior(tf.zeros([6, 2])).variance.shape, [6, 3])

  @parameterized.parameters(*BOTH)
  def test_statistics_of_two_contexts_add_up(self, cls):
    network = encoder_of(cls)
    context = random_context(6)
    halves = [
      tf.nest.map_structure(lambda x, s=s: x[:, s], context) for s in (slice(2), slice(2, 6))
    ]
    parts = [network.statistics(half) for half in halves]
    total = tf.nest.map_structure(tf.add, *parts)
    self.assertSameBelief(network.belief(total), network.infer_posterior(context))

  def test_what_follows_from_the_two_steps_is_final(self):
    with self.assertRaisesRegex(TypeError, 'Own overrides infer_posterior.*statistics and belief'):

      class Own(encoder.GaussianEncoder):
        def infer_posterior(self, context):
          return self.prior([2])

  def test_is_built_as_it_is_called(self):
    ranks = []

    class Own(encoder.GaussianEncoder):
      def call(self, inputs, step_type=(), network_state=(), training=False):
        ranks.append(inputs.mask.shape.rank)
        return super().call(inputs)

    Own(specs.context_spec(DOMAIN)).create_variables()
    self.assertEqual(ranks, [2])
    self.assertEqual((Own.kind, encoder.GaussianEncoder.kind), ('Own', 'gaussian'))

  def test_deterministic_latent_is_the_mean_of_the_features(self):
    network = encoder_of(encoder.DeterministicEncoder, hidden_units=(7,))
    context = random_context(num_padding=2, padding=np.nan)
    features, _ = network(context)
    belief = network.infer_posterior(context)
    expected = [features[0, :4].numpy().mean(axis=0), features[1].numpy().mean(axis=0)]
    self.assertAllClose(belief.mean, expected)
    self.assertAllEqual(belief.variance, np.zeros([2, 5]))

  @parameterized.parameters(*BOTH)
  def test_order_of_the_context_does_not_matter(self, cls):
    network = encoder_of(cls, hidden_units=(7,))
    context = random_context(20)
    order = np.random.default_rng(1).permutation(20)
    shuffled = types.ContextBatch(*(column[:, order] for column in context))
    self.assertSameBelief(network.infer_posterior(context), network.infer_posterior(shuffled))

  @parameterized.parameters(*BOTH)
  def test_tasks_do_not_mix(self, cls):
    network = encoder_of(cls, hidden_units=(7,))
    context = random_context()
    alone = types.ContextBatch(*(column[1:] for column in context))
    both = network.infer_posterior(context)
    second = types.Posterior(both.mean[1:], both.variance[1:])
    self.assertSameBelief(network.infer_posterior(alone), second)
    self.assertNotAllClose(both.mean[0], both.mean[1])

  @parameterized.product(cls=BOTH, padding=(np.nan, np.inf, 1e30))
  def test_padding_changes_nothing(self, cls, padding):
    network = encoder_of(cls, hidden_units=(7,))
    context = random_context(num_padding=2, padding=padding)
    with tf.GradientTape() as tape:
      belief = network.infer_posterior(context)
      total = tf.reduce_sum(belief.mean**2) + tf.reduce_sum(belief.variance)
    gradients = tape.gradient(total, network.trainable_variables)
    short = types.ContextBatch(*(column[:1, :4] for column in context))
    first = types.Posterior(belief.mean[:1], belief.variance[:1])
    self.assertSameBelief(network.infer_posterior(short), first)
    zeros = random_context(num_padding=2, padding=0.0)
    with tf.GradientTape() as tape:
      belief = network.infer_posterior(zeros)
      total = tf.reduce_sum(belief.mean**2) + tf.reduce_sum(belief.variance)
    expected = tape.gradient(total, network.trainable_variables)
    for gradient, clean in zip(gradients, expected, strict=True):
      self.assertAllEqual(np.isfinite(gradient), np.ones(gradient.shape, bool))
      self.assertAllEqual(gradient, clean)

  @parameterized.parameters(*BOTH)
  def test_empty_context_is_exactly_the_prior(self, cls):
    network = encoder_of(cls, hidden_units=(7,))
    for context in (
      random_context(num_padding=6, padding=np.nan),
      types.ContextBatch(*(column[:, :0] for column in random_context())),
    ):
      belief, prior = network.infer_posterior(context), network.prior([2])
      self.assertAllEqual(belief.mean[0], prior.mean[0])
      self.assertAllEqual(belief.variance[0], prior.variance[0])

  @parameterized.parameters(*BOTH)
  def test_next_observation_is_seen_only_if_asked_for(self, cls):
    context = random_context()
    moved = context._replace(next_observation=context.next_observation + 1.0)
    for use_next_observation in (False, True):
      network = encoder_of(cls, hidden_units=(7,), use_next_observation=use_next_observation)
      before, after = network.infer_posterior(context), network.infer_posterior(moved)
      if use_next_observation:
        self.assertNotAllClose(before.mean, after.mean)
      else:
        self.assertAllEqual(before.mean, after.mean)

  @parameterized.parameters('observation', 'action', 'reward')
  def test_every_other_column_is_seen(self, column):
    network = encoder_of(encoder.GaussianEncoder, hidden_units=(30,))
    context = random_context()
    moved = context._replace(**{column: getattr(context, column) + 1.0})
    belief, other = network.infer_posterior(context), network.infer_posterior(moved)
    self.assertNotAllClose(belief.mean, other.mean)
    self.assertNotAllClose(belief.variance, other.variance)

  @parameterized.parameters(*BOTH)
  def test_unknown_shapes(self, cls):
    network = encoder_of(cls, hidden_units=(7,))
    spec = specs.with_leading(specs.context_spec(DOMAIN), None, None)
    infer = tf.function(network.infer_posterior, input_signature=[spec])
    for num_context in (1, 6):
      context = random_context(num_context)
      self.assertSameBelief(infer(context), network.infer_posterior(context))
    self.assertEqual(infer.experimental_get_tracing_count(), 1)

  @parameterized.parameters(*BOTH)
  def test_gin(self, cls):
    gin.parse_config(f"""
      {cls.__name__}.latent_size = 3
      {cls.__name__}.hidden_units = (4, 6)
      {cls.__name__}.use_next_observation = True
    """)
    network = encoder_of(cls)
    shapes = [array.shape for array in network.get_weights()[::2]]
    self.assertEqual(shapes[:2], [(9, 4), (4, 6)])
    self.assertEqual(network.prior([]).mean.shape, [3])

  @parameterized.parameters(*BOTH)
  def test_refuses_impossible_sizes(self, cls):
    with self.assertRaisesRegex(ValueError, 'latent_size.*got 0'):
      encoder_of(cls, latent_size=0)
    with self.assertRaisesRegex(ValueError, r'hidden_units must.*\(5, -2\)'):
      encoder_of(cls, hidden_units=(5, -2))


if __name__ == '__main__':
  absltest.main()
