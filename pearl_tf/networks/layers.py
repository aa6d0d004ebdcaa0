"""The fully connected layers of every PEARL network: initialisation and arithmetic.

This module owns how a layer is initialised (as in the reference implementation) and in which type
hidden layers multiply. The networks beside it compose these layers.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator, Sequence

import tensorflow as tf

HIDDEN_BIAS = 0.1

_hidden_dtype = contextvars.ContextVar('hidden_dtype', default=tf.float32)


@contextlib.contextmanager
def hidden_dtype(dtype: tf.DType) -> Iterator[None]:
  """Lets hidden layers that are traced or called inside compute in another type.

  Inputs, kernel and bias are cast inside the layer; variables and their gradients stay float32, as
  do the output layers and whatever is computed from them.

  Args:
    dtype: `tf.float32` or `tf.bfloat16`.
  """
  token = _hidden_dtype.set(dtype)
  try:
    yield
  finally:
    _hidden_dtype.reset(token)


class Dense(tf.keras.layers.Dense):
  """A Keras `Dense` that multiplies matrices, whatever the rank of its input.

  Attributes:
    is_hidden: whether it computes in the type of `hidden_dtype`.
  """

  is_hidden = False

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    """Maps `[..., features]` to `[..., units]`; float32 unless hidden."""
    dtype = _hidden_dtype.get() if self.is_hidden else tf.float32
    rows = tf.cast(tf.reshape(inputs, [-1, self.kernel.shape[0]]), dtype)
    outputs = tf.matmul(rows, tf.cast(self.kernel, dtype))
    outputs = self.activation(tf.nn.bias_add(outputs, tf.cast(self.bias, dtype)))
    outputs = tf.reshape(outputs, tf.concat([tf.shape(inputs)[:-1], [self.units]], axis=0))
    outputs.set_shape(inputs.shape[:-1] + [self.units])
    return outputs


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
  layer = Dense(
    units,
    activation='relu',
    kernel_initializer=_uniform(1.0 / math.sqrt(units), seed),
    bias_initializer=tf.keras.initializers.Constant(HIDDEN_BIAS),
    autocast=False,  # Keras would cast the output of the layer before back to float32.
    name=name,
  )
  layer.is_hidden = True
  return layer


def output(units: int, limit: float, seed: int, name: str) -> Dense:
  """Returns a linear layer with weights and biases U(+-limit)."""
  return Dense(
    units,
    kernel_initializer=_uniform(limit, seed),
    bias_initializer=_uniform(limit, seed + 1),
    autocast=False,
    name=name,
  )


def check_widths(network: tf.keras.layers.Layer, **widths: Sequence[int]) -> None:
  """Checks the widths of a network's hidden layers.

  Args:
    network: names the parameter in the message.
    **widths: by parameter.

  Raises:
    ValueError: if one is not positive or there is no layer.
  """
  for name, units in widths.items():
    if not units or min(units) < 1:
      raise ValueError(
        f'{type(network).__name__}.{name} must be positive and at least one, got {tuple(units)}'
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
      hidden_units: widths of the hidden layers, see `check_widths`.
      output_units: width of the linear output layer.
      output_limit: the output layer starts from U(+-output_limit).
      seed: seed of the initial weights; each layer gets its own stream.
      name: name of the layer stack.

    """
    super().__init__(name=name)
    self.hidden_layers = [
      hidden(units, seed=seed + 10 * i, name=f'hidden_{i}') for i, units in enumerate(hidden_units)
    ]
    self.output_layer = output(output_units, output_limit, seed + 5, name='output')

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    """Maps `[..., features] float32` to `[..., output_units] float32`."""
    for layer in self.hidden_layers:
      inputs = layer(inputs)
    return self.output_layer(inputs)
