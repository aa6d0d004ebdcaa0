"""The memory that rows lie in: reserved at once, taken from the machine as it is filled.

A pool that grows is copied at each step, and TensorFlow's allocator keeps every size that it once
had: measured, seven times the rows. Memory that was never written costs nothing.
"""

import numpy as np
import tensorflow as tf


class RowPool(tf.train.experimental.PythonState):
  """Rows by slot, of which the first so many are filled; a checkpoint holds these alone.

  Attributes:
    rows: `[capacity, W] float32` variable; what was not written yet is undefined. Read it sparsely:
      as a whole it is copied.
  """

  def __init__(self, capacity: int, width: int, num_filled: tf.Variable):
    """Reserves the memory.

    Args:
      capacity: slots.
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
        self.rows.assign(tf.raw_ops.Empty(shape=[capacity, width], dtype=tf.float32, init=False))
      except tf.errors.ResourceExhaustedError as error:
        raise MemoryError(
          f'a replay of {capacity:,} transitions takes {4e-9 * capacity * width:.1f} GB when it is '
          'full, which is more than this machine has; lower PearlTraining.replay_capacity'
        ) from error

  def serialize(self) -> bytes:
    """Returns the filled rows."""
    return tf.gather(self.rows, tf.range(self._num_filled)).numpy().tobytes()

  def deserialize(self, string_value: bytes) -> None:
    """Takes back what `serialize` returned."""
    filled = np.frombuffer(string_value, np.float32).reshape(-1, self.rows.shape[1])
    self.rows.scatter_update(tf.IndexedSlices(filled, tf.range(len(filled))))
