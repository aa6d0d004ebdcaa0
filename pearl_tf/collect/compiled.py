"""Functions of arrays, compiled once and called without TensorFlow's checks of every argument.

Acting on a few rows takes less time than finding out which trace of a `tf.function` its arguments
belong to; here there is one trace.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


class Compiled:
  """A function of a fixed signature, traced at its first call."""

  def __init__(self, function: Callable[..., Any], signature: Sequence[Any]):
    """Traces nothing yet.

    Args:
      function: takes and returns nests of tensors.
      signature: one nest of `tf.TensorSpec` an argument.
    """
    self._function = tf.function(function, input_signature=signature)

  @functools.cached_property
  def _concrete(self):
    return self._function.get_concrete_function()

  def __call__(self, *arguments: Any) -> Any:
    """Returns the nest of arrays for nests of arrays with the types of the signature."""
    outputs = self._concrete(*tf.nest.map_structure(tf.convert_to_tensor, arguments))
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), outputs)
