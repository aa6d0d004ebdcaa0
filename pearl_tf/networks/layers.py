"""The fully connected layers of every PEARL network: initialisation and matmul shape.

This module owns how a layer is initialised (as in the reference implementation) and how its product
is laid out so that oneDNN may use bf16 arithmetic. The networks beside it compose these layers.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

HIDDEN_BIAS = 0.1


class Dense(tf.keras.layers.Dense):
  """A Keras `Dense` whose product is a batch matmul of batch size one.

  oneDNN's reduced-precision mode (see `pearl_tf.experiment.numerics`) applies to rank-3 batch
  matmuls and not to rank-2 ones, so inputs of any rank are viewed as `[1, rows, features]`.
  """

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    """Maps `[..., features] float32` to `[..., units] float32`."""
    rows = tf.reshape(inputs, [1, -1, self.kernel.shape[0]])
    outputs = tf.matmul(rows, self.kernel[tf.newaxis])
    outputs = tf.reshape(outputs, tf.concat([tf.shape(inputs)[:-1], [self.units]], axis=0))
    outputs.set_shape(inputs.shape[:-1] + [self.units])
    return self.activation(tf.nn.bias_add(outputs, self.bias))


def _uniform(limit: float, seed: int) -> tf.keras.initializers.Initializer:
  return tf.keras.initializers.RandomUniform(-limit, limit, seed=seed)


def hidden(units: int, seed: int, name: str) -> Dense:
  """Returns a ReLU layer with weights U(+-1/sqrt(units)) and biases 0.1.

  The reference implementation divides by the *output* width for every hidden layer, the first
  included, whatever it calls it.

  Args:
    units: width of the layer.
    seed: seed of the initial weights.
    name: name of the layer.
  """
  return Dense(
    units,
    activation='relu',
    kernel_initializer=_uniform(1.0 / math.sqrt(units), seed),
    bias_initializer=tf.keras.initializers.Constant(HIDDEN_BIAS),
    name=name,
  )


def output(units: int, limit: float, seed: int, name: str) -> Dense:
  """Returns a linear layer with weights and biases U(+-limit)."""
  return Dense(
    units,
    kernel_initializer=_uniform(limit, seed),
    bias_initializer=_uniform(limit, seed + 1),
    name=name,
  )


class Mlp(tf.keras.layers.Layer):
  """ReLU hidden layers and one linear output layer."""

  def __init__(
    self,
    hidden_units: Sequence[int],
    output_units: int,
    *,
    output_limit: float = 3e-3,
    seed: int,
    name: str,
  ):
    """Builds the layers.

    Args:
      hidden_units: widths of the hidden layers; at least one, each positive.
      output_units: width of the linear output layer.
      output_limit: the output layer starts from U(+-output_limit).
      seed: seed of the initial weights; each layer gets its own stream.
      name: name of the layer stack.

    Raises:
      ValueError: if a width is not positive or there is no hidden layer.
    """
    super().__init__(name=name)
    if not hidden_units or min(hidden_units) < 1 or output_units < 1:
      raise ValueError(
        f'{name}: layer widths must be positive and there must be at least one hidden layer, '
        f'got hidden_units={list(hidden_units)}, output_units={output_units}'
      )
    self.hidden_layers = [
      hidden(units, seed=seed + 10 * i, name=f'hidden_{i}') for i, units in enumerate(hidden_units)
    ]
    self.output_layer = output(output_units, output_limit, seed + 5, name='output')

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    """Maps `[..., features] float32` to `[..., output_units] float32`."""
    for layer in self.hidden_layers:
      inputs = layer(inputs)
    return self.output_layer(inputs)
