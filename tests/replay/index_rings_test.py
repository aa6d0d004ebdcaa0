"""Rings behave as bounded deques, whatever their allocated width."""

import collections

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.replay import index_rings
from pearl_tf.testing import test_case


class IndexRingsTest(test_case.TestCase):
  @parameterized.parameters(5, 300, 10_000)
  def test_matches_deques(self, capacity):
    generator = np.random.default_rng(capacity)
    rings = index_rings.IndexRings(3, capacity=capacity)
    append = tf.function(
      rings.append, input_signature=[tf.TensorSpec([], tf.int32), tf.TensorSpec([None], tf.int32)]
    )
    deques = [collections.deque(maxlen=capacity) for _ in range(3)]
    value = 0
    for _ in range(60):
      ring = int(generator.integers(3))
      action = generator.random()
      if action < 0.7:
        entries = np.arange(value, value + generator.integers(1, 400), dtype=np.int32)
        value += len(entries)
        append(ring, entries)
        deques[ring].extend(entries)
      elif action < 0.75:
        rings.clear(tf.constant(ring))
        deques[ring].clear()
      else:
        counts = [int(generator.integers(len(entries) + 1)) // 3 for entries in deques]
        rings.drop_oldest(tf.constant(counts, tf.int32))
        for entries, count in zip(deques, counts, strict=True):
          for _ in range(count):
            entries.popleft()
      self.assertAllEqual(rings.sizes, [len(entries) for entries in deques])
      for i, entries in enumerate(deques):
        self.assertAllEqual(rings.ordered(i), np.array(entries, np.int32))

  def test_oldest_of_every_ring(self):
    rings = index_rings.IndexRings(2, capacity=10)
    rings.append(tf.constant(0), tf.constant([7, 8, 9]))
    rings.append(tf.constant(1), tf.constant([5]))
    entries, present = rings.oldest(tf.constant(2))
    self.assertAllEqual(present, [[True, True], [True, False]])
    self.assertAllEqual(entries[0], [7, 8])
    self.assertEqual(int(entries[1, 0]), 5)

  def test_sampling_depends_on_contents_not_on_where_they_lie(self):
    contents = np.arange(100, dtype=np.int32)
    plain = index_rings.IndexRings(1, capacity=1000)
    plain.append(tf.constant(0), contents)
    moved = index_rings.IndexRings(1, capacity=1000)
    moved.append(tf.constant(0), np.full([900], -1, np.int32))  # Grows the ring, moves its start.
    moved.drop_oldest(tf.constant([900]))
    moved.append(tf.constant(0), contents)
    draws = [rings.sample([1, 2], tf.constant([0, 0]), 50) for rings in (plain, moved)]
    self.assertAllEqual(draws[0], draws[1])
    self.assertNotAllEqual(draws[0][0], draws[0][1])

  def test_little_is_allocated_ahead(self):
    rings = index_rings.IndexRings(100, capacity=1_000_000)
    rings.append(tf.constant(3), tf.range(10_000))
    num_bytes = sum(4 * int(tf.size(variable)) for variable in rings.variables)
    self.assertLess(num_bytes, 100 * 20_000 * 4)

  def test_numbers_are_checked(self):
    with self.assertRaisesRegex(ValueError, 'num_rings must be positive, got 0'):
      index_rings.IndexRings(0, capacity=1)
    with self.assertRaisesRegex(ValueError, 'capacity must be positive, got 0'):
      index_rings.IndexRings(1, capacity=0)
    with self.assertRaisesRegex(ValueError, 'lower the capacity per ring'):
      index_rings.IndexRings(3000, capacity=1_000_000)


if __name__ == '__main__':
  absltest.main()
