"""Rings of whole trajectories, one ring per task, over a pool of rows that is itself a ring.

`TrajectoryRings` remembers where each trajectory begins and how long it is, so that rows can be
drawn in their order. The replay cache keeps it beside the rings of single rows, if it is asked to.
"""

import tensorflow as tf

from pearl_tf.replay import index_rings


class TrajectoryRings(index_rings.IndexRings):
  """First-in-first-out rings whose entries are pool slots of the first rows of trajectories.

  A trajectory lies in consecutive slots, and rows leave the pool and the rings of rows oldest
  first: as long as its first row is there, all of it is.
  """

  def __init__(self, num_rings: int, *, capacity: int, pool_size: int, name: str | None = None):
    """Makes empty rings.

    Args:
      num_rings: Number of rings.
      capacity: Trajectories a ring may hold.
      pool_size: Rows of the pool; slots are numbered modulo this.
      name: Name of the module.
    """
    super().__init__(num_rings, capacity=capacity, name=name)
    self._pool_size = pool_size
    with tf.device('/CPU:0'):
      # By the slot of the first row; shared by all rings, stale where no trajectory begins.
      self._lengths = tf.Variable(
        tf.zeros([0], tf.int32), shape=tf.TensorShape([None]), trainable=False, name='lengths'
      )

  def length(self, first: int) -> tf.Tensor:
    """Returns the number of rows of the trajectory that begins in a slot."""
    return self._lengths[first]

  def append(self, ring: tf.Tensor, entries: tf.Tensor) -> None:
    """Appends one trajectory to one ring.

    Args:
      ring: `[] int32`.
      entries: `[S] int32`, the consecutive slots of its rows, in time order, `S >= 1`.
    """
    super().append(ring, entries[:1])
    # Not by `tf.size`, which would read, that is copy, all of them.
    reserved = tf.raw_ops.VariableShape(input=self._lengths.handle, out_type=tf.int32)[0]
    needed = tf.minimum(entries[0] + 1, self._pool_size)
    tf.cond(needed > reserved, lambda: self._reserve(needed, reserved), lambda: None)
    self._lengths.scatter_update(tf.IndexedSlices(tf.size(entries), entries[0]))

  def _reserve(self, needed: tf.Tensor, reserved: tf.Tensor) -> None:
    """Makes room for the lengths of that many slots, and an eighth more than there was."""
    more = tf.minimum(tf.maximum(needed, reserved + reserved // 8), self._pool_size)
    self._lengths.assign(tf.pad(self._lengths, [[0, more - reserved]]))

  def drop_cut(
    self, rows: index_rings.IndexRings, *, cursor: tf.Tensor, num_appended: tf.Tensor
  ) -> None:
    """Removes the trajectories that have lost rows to the capacity of the rings of rows.

    Args:
      rows: The rings of single rows of the same tasks.
      cursor: `[] int32`, the slot that is written next: its distance from here is a row's age rank.
      num_appended: `[] int32`, rows appended since the last call, hence the most that were lost.
    """
    oldest_row, has_rows = rows.oldest(tf.constant(1))
    kept_from = tf.where(has_rows, (oldest_row - cursor) % self._pool_size, self._pool_size)
    starts, present = self.oldest(num_appended)
    cut = tf.logical_and(present, (starts - cursor) % self._pool_size < kept_from)
    self.drop_oldest(tf.reduce_sum(tf.cast(cut, tf.int32), axis=1))

  def sample(self, seed: tf.Tensor, rings: tf.Tensor, num_samples: int) -> tf.Tensor:
    """Draws whole trajectories uniformly with replacement and lays them end to end.

    Args:
      seed: `[2] int32`.
      rings: `[T] int32`; none of them may be empty.
      num_samples: `K`, rows per ring.

    Returns:
      `[T, K] int32` slots of rows; the last trajectory of each task is cut off.
    """
    # As many as are needed if all have one row.
    starts = super().sample(seed, rings, num_samples)
    # More than K rows of one are never seen, and the sum must fit int32.
    lengths = tf.minimum(tf.gather(self._lengths, starts), num_samples)
    ends = tf.cumsum(lengths, axis=1)
    positions = tf.broadcast_to(tf.range(num_samples), tf.shape(starts))
    which = tf.searchsorted(ends, positions, side='right')
    begins = tf.gather(ends - lengths, which, batch_dims=1)
    starts = tf.gather(starts, which, batch_dims=1)
    return tf.ensure_shape(
      (starts + positions - begins) % self._pool_size, [rings.shape[0], num_samples]
    )
