"""The memory that rows lie in: reserved at once, taken from the machine as it is filled.

A pool that grows is copied at each step, and TensorFlow's allocator keeps every size that it once
had: measured, seven times the rows. Memory that was never written costs nothing, so it grows only
where more comes than was foreseen.
"""

import numpy as np
import tensorflow as tf


class RowPool(tf.train.experimental.PythonState):
  """Rows by slot, of which the first so many are filled; a checkpoint holds these alone.

  Attributes:
    rows: `[reserved, W] float32` variable; what was not written yet is undefined. Read it sparsely:
      as a whole it is copied.
  """

  def __init__(self, reserved: int, width: int, num_filled: tf.Variable):
    """Reserves the memory.

    Args:
      reserved: slots.
      width: `W`.
      num_filled: `[] int32`, how many of the slots are filled, the first ones; kept by the owner.

    Raises:
      MemoryError: if the machine could not hold as many rows.
    """
    self._num_filled = num_filled
    with tf.device('/CPU:0'):
      # With this shape, or the initial value would be the zeros of all slots.
      self.rows = tf.Variable(
        tf.zeros([0, width]),
        shape=tf.TensorShape([None, width]),
        trainable=False,
        name='pool',
      )
      try:
        self.rows.assign(_undefined(reserved, width))
      except tf.errors.ResourceExhaustedError as error:
        raise MemoryError(
          f'a replay of {reserved:,} transitions takes {4e-9 * reserved * width:.1f} GB when it is '
          'full, which is more than this machine has; lower PearlTraining.replay_capacity'
        ) from error

  def reserve(self, needed: tf.Tensor) -> None:
    """Makes room for so many rows; where there was less, for twice as many as there was.

    Args:
      needed: `[] int32`.
    """
    # Not by the shape of the value, which would read, that is copy, all of it.
    reserved = tf.raw_ops.VariableShape(input=self.rows.handle, out_type=tf.int32)[0]
    tf.cond(
      needed > reserved,
      lambda: self._grow(tf.maximum(needed, 2 * reserved) - reserved),
      lambda: None,
    )

  def _grow(self, num_more: tf.Tensor) -> None:
    self.rows.assign(tf.concat([self.rows, _undefined(num_more, self.rows.shape[1])], axis=0))

  def serialize(self) -> bytes:
    """Returns the filled rows."""
    return tf.gather(self.rows, tf.range(self._num_filled)).numpy().tobytes()

  def deserialize(self, string_value: bytes) -> None:
    """Takes back what `serialize` returned."""
    filled = np.frombuffer(string_value, np.float32).reshape(-1, self.rows.shape[1])
    self.reserve(tf.constant(len(filled)))
    self.rows.scatter_update(tf.IndexedSlices(filled, tf.range(len(filled))))


def _undefined(num_rows: tf.Tensor | int, width: int) -> tf.Tensor:
  """Returns `[num_rows, width] float32` whose memory nothing was written to."""
  return tf.raw_ops.Empty(shape=tf.stack([num_rows, width]), dtype=tf.float32, init=False)
