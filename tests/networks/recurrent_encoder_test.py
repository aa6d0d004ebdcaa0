"""The recurrent encoder: its recurrence, order, padding and where its gradients stop."""

import gin
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.data import specs, types
from pearl_tf.networks import recurrent_encoder
from pearl_tf.testing import meta_batches, test_case

DOMAIN = specs.DomainSpec(observation_size=3, action_size=2)
UNITS = 6


def encoder_of(**arguments) -> recurrent_encoder.RecurrentEncoder:
  """Returns a small encoder whose outputs differ from zero by far."""
  arguments = {'hidden_units': (7, 5), 'recurrent_units': UNITS, 'latent_size': 4} | arguments
  network = recurrent_encoder.RecurrentEncoder(specs.context_spec(DOMAIN), **arguments)
  network.create_variables()
  for variable in network._output_layer.variables:
    variable.assign(300 * variable)
  return network


def random_context(num_context: int = 9, **arguments) -> types.ContextBatch:
  batch = meta_batches.random_meta_batch(
    DOMAIN, num_tasks=2, num_context=num_context, batch_size=1, **arguments
  )
  return batch.context


def first(context: types.ContextBatch, task: int, number: int) -> types.ContextBatch:
  return types.ContextBatch(*(column[task : task + 1, :number] for column in context))


def slow_posterior(network, context: types.ContextBatch, stop_before: int | None = None):
  """The textbook recurrence, one transition at a time in plain tensors.

  Args:
    network: gives the weights.
    context: `[T, N]` without padding.
    stop_before: gradients stop at the state that transition `stop_before` starts from.
  """
  columns = (context.observation, context.action, context.reward[..., np.newaxis])
  embedded = tf.constant(np.concatenate(columns, axis=-1))
  for layer in network._embedding_layers:
    embedded = tf.nn.relu(embedded @ layer.kernel + layer.bias)
  kernel, recurrent_kernel, bias = network._lstm.variables
  hidden = cell = tf.zeros([embedded.shape[0], UNITS])
  for step in range(embedded.shape[1]):
    if step == stop_before:
      hidden, cell = tf.stop_gradient(hidden), tf.stop_gradient(cell)
    gates = embedded[:, step] @ kernel + hidden @ recurrent_kernel + bias
    write, forget, candidate, read = tf.split(gates, 4, axis=-1)
    cell = tf.sigmoid(forget) * cell + tf.sigmoid(write) * tf.tanh(candidate)
    hidden = tf.sigmoid(read) * tf.tanh(cell)
  output = network._output_layer
  mean, raw = tf.split(hidden @ output.kernel + output.bias, 2, axis=-1)
  return types.Posterior(mean, tf.nn.softplus(raw))


def gradients_of(network, infer) -> list[np.ndarray]:
  with tf.GradientTape() as tape:
    belief = infer()
    loss = tf.reduce_sum(belief.mean**2) + tf.reduce_sum(tf.sin(belief.variance))
  return [np.asarray(gradient) for gradient in tape.gradient(loss, network.trainable_variables)]


class RecurrentEncoderTest(test_case.TestCase):
  def assertSameBelief(self, actual: types.Posterior, expected: types.Posterior):
    self.assertAllClose(actual.mean, expected.mean, rtol=1e-4, atol=1e-5)
    self.assertAllClose(actual.variance, expected.variance, rtol=1e-4, atol=1e-6)

  def assertSameGradients(self, actual, expected):
    for value, other in zip(actual, expected, strict=True):
      self.assertAllClose(value, other, rtol=1e-3, atol=1e-5)

  def test_sizes_of_half_cheetah(self):
    domain = specs.DomainSpec(observation_size=20, action_size=6)
    network = recurrent_encoder.RecurrentEncoder(specs.context_spec(domain))
    network.create_variables()
    # 27-200-200-200, LSTM of 4 x (200 + 200 + 1) x 200, 200-10.
    expected = 28 * 200 + 2 * 201 * 200 + 4 * 401 * 200 + 201 * 10
    self.assertEqual(sum(int(np.prod(v.shape)) for v in network.trainable_variables), expected)

  def test_initial_weights(self):
    network = recurrent_encoder.RecurrentEncoder(specs.context_spec(DOMAIN), seed=3)
    again = recurrent_encoder.RecurrentEncoder(specs.context_spec(DOMAIN), seed=3)
    other = recurrent_encoder.RecurrentEncoder(specs.context_spec(DOMAIN), seed=4)
    for each in (network, again, other):
      each.create_variables()
    limit = 1 / np.sqrt(200)
    for variable in network._lstm.variables:
      self.assertAllInRange(variable, -limit, limit)
      self.assertGreater(np.abs(variable.numpy()).max(), 0.95 * limit)
    self.assertAllEqual(network._lstm.variables[0], again._lstm.variables[0])
    self.assertNotAllClose(network._lstm.variables[0], other._lstm.variables[0])
    # An untrained belief says next to nothing, like one factor of the other encoder.
    belief = network.infer_posterior(random_context())
    self.assertAllClose(belief.mean, np.zeros([2, 5]), atol=0.01)
    self.assertAllClose(belief.variance, np.full([2, 5], np.log(2)), atol=0.01)

  @parameterized.parameters(None, 1, 3, 9, 50)
  def test_belief_is_that_of_the_textbook_recurrence(self, backpropagation_steps):
    network = encoder_of(backpropagation_steps=backpropagation_steps)
    context = random_context()
    self.assertSameBelief(network.infer_posterior(context), slow_posterior(network, context))

  @parameterized.parameters((None, None), (1, 8), (3, 6), (8, 1), (9, 0), (50, None))
  def test_gradients_are_those_of_the_truncated_recurrence(self, steps, stop_before):
    network = encoder_of(backpropagation_steps=steps)
    context = random_context()
    # What was embedded before the cut is reached through the state only.
    expected = gradients_of(network, lambda: slow_posterior(network, context, stop_before))
    actual = gradients_of(network, lambda: network.infer_posterior(context))
    self.assertSameGradients(actual, expected)

  def test_truncation_changes_gradients(self):
    gradients = []
    for steps in (None, 3):
      network = encoder_of(backpropagation_steps=steps)
      infer = lambda network=network: network.infer_posterior(random_context())  # noqa: E731
      gradients.append(gradients_of(network, infer))
    lstm_kernels = [value[-3] for value in gradients]
    self.assertNotAllClose(*lstm_kernels, rtol=0.05, atol=1e-3)

  @parameterized.parameters(1, 3, 5)
  def test_truncation_counts_from_the_last_transition_of_each_context(self, steps):
    network = encoder_of(backpropagation_steps=steps)
    context = random_context(num_padding=4, padding=np.nan)  # 5 of task 0, 9 of task 1.
    lengths = (5, 9)

    def one_by_one():
      parts = [
        slow_posterior(network, first(context, task, length), max(length - steps, 0))
        for task, length in enumerate(lengths)
      ]
      return types.Posterior(*(tf.concat(part, axis=0) for part in zip(*parts, strict=True)))

    self.assertSameBelief(network.infer_posterior(context), one_by_one())
    actual = gradients_of(network, lambda: network.infer_posterior(context))
    self.assertSameGradients(actual, gradients_of(network, one_by_one))

  @parameterized.parameters(None, 3)
  def test_order_matters(self, backpropagation_steps):
    network = encoder_of(backpropagation_steps=backpropagation_steps)
    self.assertTrue(network.order_matters)
    context = random_context()
    reverse = types.ContextBatch(*(column[:, ::-1] for column in context))
    self.assertNotAllClose(
      network.infer_posterior(context).mean, network.infer_posterior(reverse).mean, atol=1e-2
    )

  @parameterized.parameters(0, 5)
  def test_every_transition_counts_cut_or_not(self, position):
    network = encoder_of(backpropagation_steps=2)
    context = random_context()
    moved = context._replace(reward=context.reward.copy())
    moved.reward[:, position] += 5
    before, after = network.infer_posterior(context), network.infer_posterior(moved)
    self.assertGreater(np.abs(before.mean - after.mean).max(), 1e-4)

  @parameterized.parameters(None, 3)
  def test_nothing_is_remembered_between_inferences(self, backpropagation_steps):
    network = encoder_of(backpropagation_steps=backpropagation_steps)
    context = random_context()
    before = network.infer_posterior(context)
    network.infer_posterior(random_context(4, seed=5))
    self.assertAllEqual(network.infer_posterior(context).mean, before.mean)

  @parameterized.product(steps=(None, 3, 6), padding=(np.nan, 1e30))
  def test_padding_changes_nothing(self, steps, padding):
    network = encoder_of(backpropagation_steps=steps)
    context = random_context(num_padding=4, padding=padding)
    belief = network.infer_posterior(context)
    alone = network.infer_posterior(first(context, 0, 5))
    self.assertSameBelief(types.Posterior(belief.mean[:1], belief.variance[:1]), alone)
    for gradient in gradients_of(network, lambda: network.infer_posterior(context)):
      self.assertAllEqual(np.isfinite(gradient), np.ones(gradient.shape, bool))

  @parameterized.parameters(None, 3)
  def test_empty_context_is_exactly_the_prior(self, steps):
    network = encoder_of(backpropagation_steps=steps)
    empty = types.ContextBatch(*(column[:, :0] for column in random_context()))
    for context in (random_context(num_padding=9, padding=np.nan), empty):
      belief = network.infer_posterior(context)
      self.assertAllEqual(belief.mean[0], np.zeros(4))
      self.assertAllEqual(belief.variance[0], np.ones(4))
      for gradient in gradients_of(network, lambda c=context: network.infer_posterior(c)):
        self.assertAllEqual(np.isfinite(gradient), np.ones(gradient.shape, bool))

  def test_variance_is_floored(self):
    network = encoder_of()
    kernel, bias = network._output_layer.variables
    kernel.assign(tf.zeros_like(kernel))
    bias.assign([1, 1, 1, 1, -40, -40, -40, -40])
    belief = network.infer_posterior(random_context())
    self.assertAllClose(belief.variance, np.full([2, 4], 1e-7), rtol=1e-5, atol=0)
    self.assertAllClose(belief.mean, np.ones([2, 4]))

  def test_next_observation_is_seen_only_if_asked_for(self):
    context = random_context()
    moved = context._replace(next_observation=context.next_observation + 1.0)
    for use_next_observation in (False, True):
      network = encoder_of(use_next_observation=use_next_observation)
      change = network.infer_posterior(context).mean - network.infer_posterior(moved).mean
      self.assertEqual(bool(np.abs(change).max() > 0), use_next_observation)

  @parameterized.parameters(None, 3)
  def test_unknown_shapes(self, steps):
    network = encoder_of(backpropagation_steps=steps)
    spec = specs.with_leading(specs.context_spec(DOMAIN), None, None)
    infer = tf.function(network.infer_posterior, input_signature=[spec])
    for num_context in (0, 1, 6):
      context = random_context(num_context)
      self.assertSameBelief(infer(context), network.infer_posterior(context))
    self.assertEqual(infer.experimental_get_tracing_count(), 1)

  def test_survives_export(self):
    network = encoder_of(backpropagation_steps=3)
    module = tf.Module()
    module.variables_of_encoder = network.variables
    spec = specs.with_leading(specs.context_spec(DOMAIN), None, None)
    module.infer = tf.function(network.infer_posterior, input_signature=[spec], autograph=False)
    path = str(self.temp_dir() / 'model')
    tf.saved_model.save(module, path)
    context = random_context(num_padding=4, padding=np.nan)
    loaded = tf.saved_model.load(path)
    mean = loaded.infer(tf.nest.map_structure(tf.constant, context))[0]
    self.assertAllClose(mean, network.infer_posterior(context).mean)

  def test_gin(self):
    gin.parse_config("""
      RecurrentEncoder.latent_size = 3
      RecurrentEncoder.hidden_units = (4, 6)
      RecurrentEncoder.recurrent_units = 8
      RecurrentEncoder.backpropagation_steps = 2
      RecurrentEncoder.use_next_observation = True
    """)
    network = recurrent_encoder.RecurrentEncoder(specs.context_spec(DOMAIN))
    network.create_variables()
    self.assertEqual(network._embedding_layers[0].kernel.shape, (9, 4))
    self.assertEqual(network._lstm.variables[0].shape, (6, 32))
    self.assertEqual(network.prior([]).mean.shape, [3])

  def test_refuses_impossible_sizes(self):
    for name in ('backpropagation_steps', 'latent_size'):
      with self.assertRaisesRegex(ValueError, f'{name}.*got 0'):
        encoder_of(**{name: 0})
    with self.assertRaisesRegex(ValueError, r'recurrent_units must.*\(0,\)'):
      encoder_of(recurrent_units=0)
    with self.assertRaisesRegex(ValueError, r'hidden_units must.*\(3, 0\)'):
      encoder_of(hidden_units=(3, 0))
    with self.assertRaisesRegex(ValueError, r'hidden_units must.*\(\)'):
      encoder_of(hidden_units=())


if __name__ == '__main__':
  absltest.main()
