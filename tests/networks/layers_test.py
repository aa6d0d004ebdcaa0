"""Layers: how they start and that their product is the one of Keras."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.networks import layers
from pearl_tf.testing import test_case


def built(mlp: layers.Mlp, num_features: int) -> list[np.ndarray]:
  """Returns the initial weights: kernel, bias, kernel, ..."""
  mlp(tf.zeros([1, num_features]))
  return mlp.get_weights()


class DenseTest(test_case.TestCase):
  @parameterized.parameters(([6, 3],), ([2, 4, 3],), ([2, 4, 5, 3],), ([0, 3],), ([2, 0, 3],))
  def test_equals_keras(self, shape):
    inputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    ours, theirs = layers.Dense(7, activation='relu'), tf.keras.layers.Dense(7, activation='relu')
    ours.build(inputs.shape)
    theirs.build(inputs.shape)
    weights = [np.random.default_rng(1).normal(size=w.shape) for w in ours.get_weights()]
    ours.set_weights(weights)
    theirs.set_weights(weights)
    with tf.GradientTape(persistent=True) as tape:
      our_outputs, their_outputs = ours(inputs), theirs(inputs)
      our_sum, their_sum = tf.reduce_sum(our_outputs**2), tf.reduce_sum(their_outputs**2)
    self.assertEqual(our_outputs.shape, [*shape[:-1], 7])
    self.assertAllClose(our_outputs, their_outputs)
    our_gradients = tape.gradient(our_sum, ours.trainable_variables)
    their_gradients = tape.gradient(their_sum, theirs.trainable_variables)
    for gradient, expected in zip(our_gradients, their_gradients, strict=True):
      self.assertAllClose(gradient, expected, rtol=1e-5, atol=1e-5)

  def test_unknown_leading_dimensions_keep_the_static_ones(self):
    layer = layers.Dense(7)

    @tf.function(input_signature=[tf.TensorSpec([None, 4, None, 3], tf.float32)])
    def apply(inputs):
      outputs = layer(inputs)
      self.assertEqual(outputs.shape.as_list(), [None, 4, None, 7])
      return outputs

    inputs = np.random.default_rng(0).normal(size=[2, 4, 5, 3]).astype(np.float32)
    self.assertAllClose(apply(inputs), inputs @ layer.kernel.numpy(), atol=1e-5)

  def test_unknown_feature_size(self):
    # Functions that relax shapes to trace less often, as TF-Agents' eager policy does, lose it.
    layer = layers.Dense(7)
    layer.build([None, 3])
    apply = tf.function(layer, input_signature=[tf.TensorSpec([None, None], tf.float32)])
    inputs = np.random.default_rng(0).normal(size=[5, 3]).astype(np.float32)
    self.assertAllClose(apply(inputs), layer(inputs))


class HiddenDtypeTest(test_case.TestCase):
  def test_bfloat16_inside_float32_outside(self):
    mlp = layers.Mlp((64, 64), 3, output_limit=1.0, seed=0, name='mlp')
    inputs = tf.constant(np.random.default_rng(0).normal(size=[32, 6]), tf.float32)

    @tf.function
    def outputs_and_gradients():
      with tf.GradientTape() as tape:
        outputs = mlp(inputs)
        loss = tf.reduce_sum(outputs**2)
      return outputs, tape.gradient(loss, mlp.trainable_variables)

    mlp(inputs)
    exact, exact_gradients = outputs_and_gradients()
    traced = tf.function(outputs_and_gradients.python_function)
    with layers.hidden_dtype(tf.bfloat16):
      rounded, gradients = traced()
    self.assertEqual(rounded.dtype, tf.float32)
    self.assertNotAllClose(rounded, exact, rtol=1e-5, atol=1e-5)
    self.assertAllClose(rounded, exact, rtol=0.05, atol=0.05)
    for gradient, expected in zip(gradients, exact_gradients, strict=True):
      self.assertEqual(gradient.dtype, tf.float32)
      self.assertLess(tf.norm(gradient - expected), 0.05 * tf.norm(expected))
    again, _ = tf.function(outputs_and_gradients.python_function)()
    self.assertAllEqual(again, exact)


class MlpTest(test_case.TestCase):
  def test_initialisation_of_the_reference(self):
    weights = built(layers.Mlp((300, 200), 40, seed=0, name='mlp'), 25)
    shapes = [(25, 300), (300,), (300, 200), (200,), (200, 40), (40,)]
    self.assertEqual([array.shape for array in weights], shapes)
    # Hidden layers divide by their output width, the first included.
    for kernel, bias in [weights[:2], weights[2:4]]:
      limit = kernel.shape[1] ** -0.5
      self.assertBetween(kernel.max(), 0.99 * limit, limit)
      self.assertBetween(kernel.min(), -limit, -0.99 * limit)
      self.assertAllClose(kernel.std(), limit / 3**0.5, rtol=0.03)
      self.assertAllEqual(bias, np.full(bias.shape, 0.1, np.float32))
    for array in weights[4:]:
      self.assertBetween(array.max(), 0.8 * 3e-3, 3e-3)
      self.assertBetween(array.min(), -3e-3, -0.8 * 3e-3)

  def test_output_limit(self):
    *_, kernel, bias = built(layers.Mlp((50,), 30, output_limit=1e-3, seed=0, name='mlp'), 4)
    for array in (kernel, bias):
      self.assertBetween(np.abs(array).max(), 0.9e-3, 1e-3)

  def test_equal_seeds_equal_weights_whatever_the_global_seed(self):
    first = built(layers.Mlp((8, 8), 8, seed=3, name='mlp'), 8)
    tf.random.set_seed(77)
    for array, again in zip(first, built(layers.Mlp((8, 8), 8, seed=3, name='m'), 8), strict=True):
      self.assertAllEqual(array, again)
    other = built(layers.Mlp((8, 8), 8, seed=4, name='mlp'), 8)
    for array, different in zip(first[::2], other[::2], strict=True):
      self.assertNotAllClose(array, different)

  def test_no_two_layers_share_numbers(self):
    # Layers of one shape would be equal if they were drawn from one stream.
    hidden_units = (8,) * 12
    mlp = layers.Mlp(hidden_units, 8, seed=3, name='mlp')
    weights = built(mlp, 8)
    kernels = [kernel / np.abs(kernel).max() for kernel in weights[::2]]
    kernels.append(np.broadcast_to(weights[-1] / np.abs(weights[-1]).max(), [8, 8]))
    for i, kernel in enumerate(kernels):
      for j, other in enumerate(kernels[:i]):
        correlation = np.corrcoef(kernel.ravel(), other.ravel())[0, 1]
        self.assertLess(abs(correlation), 0.6, f'layers {j} and {i}')
        self.assertNotAllClose(kernel[0], other[0])

  def test_is_a_relu_network(self):
    mlp = layers.Mlp((4, 3), 2, seed=0, name='mlp')
    inputs = np.random.default_rng(0).normal(size=[5, 6]).astype(np.float32)
    features = inputs
    *hidden, kernel, bias = [10 * array for array in built(mlp, 6)]
    mlp.set_weights([*hidden, kernel, bias])
    for hidden_kernel, hidden_bias in zip(hidden[::2], hidden[1::2], strict=True):
      features = np.maximum(features @ hidden_kernel + hidden_bias, 0)
    self.assertAllClose(mlp(inputs), features @ kernel + bias, rtol=1e-5)

  @parameterized.parameters(((),), ((3, 0),), ((-1,),))
  def test_refuses_impossible_widths(self, *widths):
    with self.assertRaisesRegex(ValueError, 'Mlp.units must be positive and at least one, got'):
      layers.check_widths(layers.Mlp((3,), 1, seed=0, name='mlp'), units=widths[0])


if __name__ == '__main__':
  absltest.main()
