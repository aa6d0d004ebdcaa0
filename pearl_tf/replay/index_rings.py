"""Rings of row numbers, one per task, that grow on demand.

`IndexRings` remembers which rows of a shared pool belong to which task, oldest first. It knows
nothing of what the rows hold; the replay cache owns the pool and decides what to add and to expire.
"""

import tensorflow as tf

_INITIAL_WIDTH = 256
_MAX_INT32 = 2**31 - 1


class IndexRings(tf.Module):
  """`num_rings` first-in-first-out rings of int32, kept in variables.

  All rings have the same allocated width, which doubles when one of them needs it, up to
  `capacity`; beyond that the oldest entry makes room. Allocating on demand costs a few megabytes
  where `num_rings * capacity` entries would cost gigabytes, and keeps checkpoints small.
  """

  def __init__(self, num_rings: int, *, capacity: int, name: str | None = None):
    """Makes empty rings.

    Args:
      num_rings: Number of rings, at least 1.
      capacity: Entries a ring may hold, at least 1.
      name: Name of the module.

    Raises:
      ValueError: If a number is not positive, or int32 cannot number all the entries.
    """
    super().__init__(name=name)
    if num_rings < 1:
      raise ValueError(f'num_rings must be positive, got {num_rings}.')
    if capacity < 1:
      raise ValueError(f'capacity must be positive, got {capacity}.')
    if num_rings * capacity > _MAX_INT32:
      raise ValueError(
        f'{num_rings} rings of {capacity} entries exceed {_MAX_INT32}: lower the capacity per ring.'
      )
    self._num_rings = num_rings
    self._capacity = capacity
    width = min(_INITIAL_WIDTH, capacity)
    with tf.device('/CPU:0'):
      self._width = tf.Variable(width, dtype=tf.int32, trainable=False, name='width')
      self._start = tf.Variable(tf.zeros([num_rings], tf.int32), trainable=False, name='start')
      self._size = tf.Variable(tf.zeros([num_rings], tf.int32), trainable=False, name='size')
      # Flat, so that one sparse read finds an entry without reading the variable as a whole.
      self._entries = tf.Variable(
        tf.zeros([num_rings * width], tf.int32),
        shape=tf.TensorShape([None]),
        trainable=False,
        name='entries',
      )

  @property
  def sizes(self) -> tf.Tensor:
    """`[num_rings] int32`, the number of entries of each ring."""
    return self._size.read_value()

  def append(self, ring: tf.Tensor, entries: tf.Tensor) -> None:
    """Appends entries to one ring, in order; the oldest go where there are too many.

    Args:
      ring: `[] int32`.
      entries: `[K] int32`; of more than `capacity`, the last ones stay.
    """
    entries = entries[tf.maximum(tf.size(entries) - self._capacity, 0) :]
    num_entries = tf.size(entries)
    needed = tf.minimum(self._size[ring] + num_entries, self._capacity)
    tf.cond(needed > self._width, lambda: self._grow(needed), lambda: None)
    width = self._width.read_value()
    start, size = self._start[ring], self._size[ring]
    positions = (start + size + tf.range(num_entries)) % width
    self._entries.scatter_update(tf.IndexedSlices(entries, ring * width + positions))
    num_dropped = tf.maximum(size + num_entries - width, 0)
    self._start.scatter_update(tf.IndexedSlices((start + num_dropped) % width, ring))
    self._size.scatter_update(tf.IndexedSlices(size + num_entries - num_dropped, ring))

  def clear(self, ring: tf.Tensor) -> None:
    """Empties one ring.

    Args:
      ring: `[] int32`.
    """
    self._size.scatter_update(tf.IndexedSlices(tf.zeros([], tf.int32), ring))

  def oldest(self, num_entries: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the oldest entries of every ring.

    Args:
      num_entries: `[] int32`, `K`.

    Returns:
      `[num_rings, K] int32` entries, oldest first, and `[num_rings, K] bool`, whether the ring has
      that many.
    """
    positions = tf.range(num_entries)
    entries = self._entries_at(tf.range(self._num_rings)[:, tf.newaxis], positions)
    return entries, positions < self._size[:, tf.newaxis]

  def drop_oldest(self, counts: tf.Tensor) -> None:
    """Removes entries from the old end of every ring.

    Args:
      counts: `[num_rings] int32`, how many of each; at most its size.
    """
    self._start.assign((self._start + counts) % self._width)
    self._size.assign_sub(counts)

  def ordered(self, ring: int) -> tf.Tensor:
    """Returns all entries of one ring, oldest first: `[size] int32`.

    Args:
      ring: The ring.
    """
    return self._entries_at(tf.constant(ring), tf.range(self._size[ring]))

  def sample(self, seed: tf.Tensor, rings: tf.Tensor, num_samples: int) -> tf.Tensor:
    """Draws entries uniformly with replacement; a pure function of contents and seed.

    Args:
      seed: `[2] int32`.
      rings: `[T] int32`; none of them may be empty.
      num_samples: `K`, draws per ring.

    Returns:
      `[T, K] int32` entries.
    """
    # 63 random bits modulo the size: the bias, size / 2^63, is below anything measurable. The
    # generator is named because the automatic choice depends on the device.
    bits = tf.random.stateless_uniform(
      [tf.size(rings), num_samples], seed, None, None, tf.int64, alg='philox'
    )
    sizes = tf.cast(tf.gather(self._size, rings), tf.int64)[:, tf.newaxis]
    positions = tf.cast(tf.math.floormod(bits, sizes), tf.int32)
    return self._entries_at(rings[:, tf.newaxis], positions)

  def _entries_at(self, rings: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Reads entries by ring and age rank (0 is the oldest); the arguments broadcast."""
    width = self._width.read_value()
    slots = (tf.gather(self._start, rings) + positions) % width
    return tf.gather(self._entries, rings * width + slots)

  def _grow(self, needed: tf.Tensor) -> None:
    """Doubles the width of all rings, or more if need be, and moves every start to slot 0."""
    width = self._width.read_value()
    new_width = tf.minimum(tf.maximum(needed, 2 * width), self._capacity)
    ordered = self._entries_at(tf.range(self._num_rings)[:, tf.newaxis], tf.range(width))
    padded = tf.pad(ordered, [[0, 0], [0, new_width - width]])
    self._entries.assign(tf.reshape(padded, [-1]))
    self._start.assign(tf.zeros([self._num_rings], tf.int32))
    self._width.assign(new_width)
