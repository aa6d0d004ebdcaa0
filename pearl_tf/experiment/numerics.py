"""Determinism of TensorFlow's operations: a switch of the whole process."""

import gin
import tensorflow as tf


@gin.configurable
def set_op_determinism(enabled: bool = False) -> None:
  """Makes every TensorFlow operation deterministic, at some cost in speed.

  Call it before the first network is built.

  Args:
    enabled: with True, a resumed run reports exactly the metrics of an uninterrupted one.
  """
  if enabled:
    tf.config.experimental.enable_op_determinism()
    # From then on TensorFlow refuses unseeded draws. All of ours carry a seed; TF-Agents makes up
    # an example input without one whenever it builds a network, and only its shape matters.
    tf.random.set_seed(0)
