"""What a served row may be refused for, and the tests of rows that decide it.

A fault of one row must not fail its neighbours in a batch, so faults in data are reported by a code
per row and never by an assertion. The codes are the numbers of the gRPC status with that meaning.
"""

import tensorflow as tf

OK = 0
BAD_NUMBERS = 3  # INVALID_ARGUMENT
FOREIGN_LATENT_TAG = 9  # FAILED_PRECONDITION
NUM_TRANSITIONS_OUT_OF_RANGE = 11  # OUT_OF_RANGE


def finite_rows(values: tf.Tensor) -> tf.Tensor:
  """Tells which rows hold only finite numbers.

  Args:
    values: `[B, ...] float32`, of rank 2 at least.

  Returns:
    `[B] bool`.
  """
  return tf.reduce_all(tf.math.is_finite(values), axis=list(range(1, values.shape.rank)))


def fault(is_faulty: tf.Tensor, code: int) -> tf.Tensor:
  """Returns `code` where `is_faulty`, else `OK`, `[B] int32`."""
  return tf.where(is_faulty, code, OK)


def first(*statuses: tf.Tensor) -> tf.Tensor:
  """Returns per row the first status that is not `OK`.

  Args:
    *statuses: `[B] int32` each, the gravest first.
  """
  result = statuses[-1]
  for status in reversed(statuses[:-1]):
    result = tf.where(status != OK, status, result)
  return result


def keep_rows(is_kept: tf.Tensor, values: tf.Tensor, otherwise: float) -> tf.Tensor:
  """Replaces whole rows.

  Args:
    is_kept: `[B] bool`.
    values: `[B, D] float32`.
    otherwise: what the rows that are not kept hold.
  """
  return tf.where(is_kept[:, tf.newaxis], values, otherwise)
