"""The cache against a plain model of deques, and what its samples promise."""

import collections
import os
import pathlib

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.data import types
from pearl_tf.replay import cache as cache_lib
from pearl_tf.replay import packing
from pearl_tf.testing import test_case

_LAYOUT = packing.PackedLayout(2, 1)


def _rows(task: int, first: int, num_rows: int) -> np.ndarray:
  """Rows whose first observation is the task and whose rewards number them."""
  rows = np.zeros([num_rows, _LAYOUT.width], np.float32)
  rows[:, 0] = task
  rows[:, 3] = np.arange(first, first + num_rows)  # Reward.
  rows[:, 4] = -rows[:, 3]  # Context reward.
  return rows


class _Model:
  """What the cache should hold, as the numbers of the rows."""

  def __init__(self, num_tasks: int, capacity: int, per_task: int, context_per_task: int):
    self.pool = collections.deque(maxlen=capacity)
    self.replay = [collections.deque(maxlen=per_task) for _ in range(num_tasks)]
    self.context = [collections.deque(maxlen=context_per_task) for _ in range(num_tasks)]
    self.visit = [0] * num_tasks

  def add(self, task: int, numbers: list[int], in_context: bool, visit: int):
    if in_context and visit != self.visit[task]:
      self.context[task].clear()
      self.visit[task] = visit
    self.pool.extend(numbers)
    self.replay[task].extend(numbers)
    if in_context:
      self.context[task].extend(numbers)
    for numbers_of_task in (*self.replay, *self.context):
      while numbers_of_task and numbers_of_task[0] < self.pool[0]:
        numbers_of_task.popleft()


def _resident_bytes():
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


class ReplayCacheTest(test_case.TestCase):
  @parameterized.named_parameters(
    ('roomy', 5000, 5000, 5000, 40),
    ('pool_wraps', 100, 5000, 5000, 40),
    ('pool_wraps_and_rings_too', 300, 50, 20, 40),
    ('episodes_fill_the_pool', 40, 40, 40, 40),
    ('context_window', 1000, 700, 30, 40),
  )
  def test_matches_a_model(self, capacity, per_task, context_per_task, max_steps):
    generator = np.random.default_rng(capacity)
    num_tasks = 4
    cache = cache_lib.ReplayCache(
      _LAYOUT,
      num_tasks,
      capacity=capacity,
      capacity_per_task=per_task,
      context_capacity_per_task=context_per_task,
    )
    model = _Model(num_tasks, capacity, per_task, context_per_task)
    visits = [0] * num_tasks
    first = 0
    for _ in range(120):
      task = int(generator.integers(num_tasks))
      if generator.random() < 0.2:
        visits[task] += 1
      in_context = bool(generator.random() < 0.6)
      num_steps = int(generator.integers(1, max_steps + 1))
      rows = _rows(task, first, num_steps)
      cache.add(task, rows, in_context=in_context, visit=visits[task])
      model.add(task, list(range(first, first + num_steps)), in_context, visits[task])
      first += num_steps
      self.assertEqual(cache.num_rows, len(model.pool))
      for i in range(num_tasks):
        self.assertEqual(cache.num_transitions(i), len(model.replay[i]))
        self.assertEqual(cache.num_context_transitions(i), len(model.context[i]))
      self._check_rows(cache.replay_rows(task), task, model.replay[task])
      self._check_rows(cache.context_rows(task), task, model.context[task])
    for i in range(num_tasks):
      self._check_rows(cache.replay_rows(i), i, model.replay[i])
      self._check_rows(cache.context_rows(i), i, model.context[i])

  def _check_rows(self, rows: tf.Tensor, task: int, numbers: collections.deque):
    self.assertAllEqual(rows[:, 3], np.array(numbers, np.float32))
    self.assertAllEqual(rows[:, 0], np.full([len(numbers)], task))

  def test_samples_after_wrapping_are_of_their_task_and_present(self):
    cache = cache_lib.ReplayCache(_LAYOUT, 3, capacity=64)
    first = 0
    for i in range(60):
      cache.add(i % 3, _rows(i % 3, first, 5), in_context=i % 2 == 0, visit=i // 9)
      first += 5
    batch = cache.sample([3, 4], meta_batch_size=50, context_size=20, batch_size=30)
    expected = np.broadcast_to(batch.task.numpy()[:, np.newaxis], [50, 30])
    self.assertAllEqual(batch.transitions.observation[..., 0], expected)
    self.assertAllEqual(batch.context.observation[..., 0], expected[:, :20])
    self.assertGreaterEqual(float(tf.reduce_min(batch.transitions.reward)), first - 64)
    for task, reward in zip(batch.task.numpy(), -batch.context.reward.numpy(), strict=True):
      self.assertContainsSubset(reward, cache.context_rows(task)[:, 3].numpy())

  def test_a_later_visit_clears_with_its_first_rows_of_context(self):
    cache = cache_lib.ReplayCache(_LAYOUT, 2, capacity=100)
    cache.add(0, _rows(0, 0, 5), in_context=True, visit=0)
    cache.add(1, _rows(1, 5, 5), in_context=True, visit=0)
    cache.add(0, _rows(0, 10, 5), in_context=False, visit=0)
    self.assertEqual(cache.num_context_transitions(0), 5)
    cache.add(0, _rows(0, 15, 5), in_context=False, visit=1)
    self.assertEqual(cache.num_context_transitions(0), 5)  # There is a context at any time.
    cache.add(0, _rows(0, 20, 3), in_context=True, visit=1)
    self.assertEqual(cache.num_context_transitions(0), 3)
    self.assertEqual(cache.num_context_transitions(1), 5)
    self.assertEqual(cache.num_transitions(0), 18)

  def test_an_earlier_visit_that_arrives_late_adds_to_the_replay_alone(self):
    cache = cache_lib.ReplayCache(_LAYOUT, 1, capacity=100)
    cache.add(0, _rows(0, 0, 5), in_context=True, visit=7)
    cache.add(0, _rows(0, 5, 5), in_context=True, visit=6)
    cache.add(0, _rows(0, 10, 5), in_context=True, visit=7)
    self.assertAllEqual(cache.context_rows(0)[:, 3], [0, 1, 2, 3, 4, 10, 11, 12, 13, 14])
    self.assertEqual(cache.num_transitions(0), 15)

  def test_memory_and_checkpoints_grow_with_the_content(self):
    before = _resident_bytes()
    cache = cache_lib.ReplayCache(_LAYOUT, 3, reserved=30_000_000)
    for number in range(200):
      cache.add(number % 3, _rows(number % 3, 100 * number, 100), in_context=False, visit=0)
    # A tenth of what is reserved, and many times what else happens in this process meanwhile.
    self.assertLess(_resident_bytes() - before, 0.1 * 30_000_000 * 4 * _LAYOUT.width)
    path = pathlib.Path(tf.train.Checkpoint(cache=cache).write(str(self.temp_dir() / 'cache')))
    size = sum(file.stat().st_size for file in path.parent.iterdir())
    # The numbers of the rows come on top: 8 bytes of 40 in this narrow layout.
    self.assertLess(size, 1.6 * 4 * _LAYOUT.width * cache.num_rows)

  def test_specs_of_a_batch(self):
    cache = cache_lib.ReplayCache(_LAYOUT, 2, capacity=100)
    for task in range(2):
      cache.add(task, _rows(task, 0, 5), in_context=True, visit=0)
    sampler = cache_lib.CacheSampler(cache, meta_batch_size=4, context_size=3, batch_size=6)
    batch = tf.function(sampler.sample)(tf.constant([1, 2]))
    self.assertIsInstance(batch, types.MetaBatch)
    self.assertEqual(batch.task.dtype, tf.int64)
    shapes = {
      'task': [4],
      'context': [[4, 3, 2], [4, 3, 1], [4, 3], [4, 3, 2], [4, 3]],
      'transitions': [[4, 6, 2], [4, 6, 1], [4, 6], [4, 6], [4, 6, 2]],
    }
    self.assertEqual(batch.task.shape.as_list(), shapes['task'])
    self.assertEqual([x.shape.as_list() for x in batch.context], shapes['context'])
    self.assertEqual([x.shape.as_list() for x in batch.transitions], shapes['transitions'])
    self.assertAllEqual(batch.context.mask, np.ones([4, 3]))

  def test_sampling_is_a_function_of_the_seed(self):
    cache = cache_lib.ReplayCache(_LAYOUT, 5, capacity=1000)
    for task in range(5):
      cache.add(task, _rows(task, 100 * task, 100), in_context=True, visit=0)
    sampler = cache_lib.CacheSampler(cache, meta_batch_size=8, context_size=9, batch_size=9)
    graph = tf.function(sampler.sample)
    self.assertAllEqual(sampler.sample([1, 2]).transitions.reward, graph([1, 2]).transitions.reward)
    first, again, other = graph([1, 2]), graph([1, 2]), graph([1, 3])
    tf.nest.map_structure(self.assertAllEqual, first, again)
    for name in ('context', 'transitions'):
      self.assertNotAllEqual(getattr(first, name).reward, getattr(other, name).reward)
    self.assertNotAllEqual(-first.context.reward, first.transitions.reward)

  def test_context_of_given_tasks(self):
    cache = cache_lib.ReplayCache(_LAYOUT, 3, capacity=1000)
    for task in range(3):
      cache.add(task, _rows(task, 0, 10), in_context=True, visit=0)
    context = tf.function(cache.sample_context)([1, 2], tf.constant([2, 0], tf.int64), 4)
    self.assertAllEqual(context.observation[..., 0], [[2] * 4, [0] * 4])

  def test_restored_cache_continues_identically(self):
    def feed(cache: cache_lib.ReplayCache, first: int, num_episodes: int) -> list[types.MetaBatch]:
      generator = np.random.default_rng(first)
      visit = first
      batches = []
      for i in range(num_episodes):
        rows = _rows(i % 3, first, int(generator.integers(1, 90)))
        cache.add(i % 3, rows, in_context=i % 4 != 0, visit=visit)
        first += len(rows)
        if i > 12:
          seed = tf.constant([first, i])
          batches.append(cache.sample(seed, meta_batch_size=4, context_size=5, batch_size=6))
      return batches

    # Small enough to wrap, large enough for the rings of row numbers to have grown.
    cache = cache_lib.ReplayCache(_LAYOUT, 3, capacity=1500)
    feed(cache, 0, 60)
    path = tf.train.Checkpoint(cache=cache).write(str(self.temp_dir() / 'checkpoint'))
    restored = cache_lib.ReplayCache(_LAYOUT, 3, capacity=1500)
    status = tf.train.Checkpoint(cache=restored).read(path)
    status.assert_consumed()
    for variable, original in zip(restored.variables, cache.variables, strict=True):
      self.assertAllEqual(variable, original)
    for task in range(3):
      self.assertAllEqual(restored.replay_rows(task), cache.replay_rows(task))
    expected, actual = feed(cache, 10_000, 60), feed(restored, 10_000, 60)
    tf.nest.map_structure(self.assertAllEqual, expected, actual)

  def test_more_than_was_expected_is_kept_and_restored(self):
    expected = cache_lib.ReplayCache(_LAYOUT, 2, reserved=1000)
    cache = cache_lib.ReplayCache(_LAYOUT, 2, reserved=10)
    for number in range(30):
      for each in (expected, cache):
        each.add(number % 2, _rows(0, 7 * number, 7), in_context=number < 4, visit=0)
    self.assertEqual(cache.num_rows, 210)
    path = tf.train.Checkpoint(cache=cache).write(str(self.temp_dir() / 'checkpoint'))
    restored = cache_lib.ReplayCache(_LAYOUT, 2, reserved=20)
    tf.train.Checkpoint(cache=restored).read(path).assert_consumed()
    for each in (cache, restored):
      self.assertAllEqual(each.replay_rows(1), expected.replay_rows(1))
      each.add(1, _rows(0, 500, 300), in_context=False, visit=0)
    expected.add(1, _rows(0, 500, 300), in_context=False, visit=0)
    self.assertAllEqual(restored.replay_rows(1), expected.replay_rows(1))
    self.assertAllEqual(cache.replay_rows(1), expected.replay_rows(1))

  def test_says_what_a_checkpoint_takes(self):
    cache = cache_lib.ReplayCache(_LAYOUT, 2, capacity=10_000)
    cache.add(0, _rows(0, 0, 5000), in_context=False, visit=0)
    path = pathlib.Path(tf.train.Checkpoint(cache=cache).write(str(self.temp_dir() / 'cache')))
    size = sum(file.stat().st_size for file in path.parent.iterdir())
    self.assertBetween(cache.num_bytes / size, 0.95, 1.05)

  def test_the_pool_is_never_read_as_a_whole(self):
    # Reading the variable copies it, on every training step.
    cache = cache_lib.ReplayCache(_LAYOUT, 2, capacity=100)
    sampler = cache_lib.CacheSampler(cache, meta_batch_size=2, context_size=2, batch_size=2)
    graph = tf.function(sampler.sample).get_concrete_function(tf.TensorSpec([2], tf.int32)).graph
    names = {id(variable.handle): variable.name for variable in cache.variables}
    names[id(cache._pool.rows.handle)] = 'pool'
    consumers = collections.defaultdict(set)
    for outer, inner in graph.captures:
      consumers[names[id(outer)]].update(op.type for op in inner.consumers())
    self.assertEqual(consumers['pool'], {'ResourceGather'})
    self.assertEqual(consumers['entries:0'], {'ResourceGather'})

  def test_nothing_is_trainable(self):
    cache = cache_lib.ReplayCache(_LAYOUT, 2, capacity=100)
    self.assertEmpty(cache.trainable_variables)

  def test_not_ready_names_the_tasks(self):
    cache = cache_lib.ReplayCache(_LAYOUT, 3, capacity=100)
    cache.add(1, _rows(1, 0, 5), in_context=True, visit=0)
    with self.assertRaisesRegex(RuntimeError, r'no transitions for 2 of 3 tasks .*\[0, 2\]'):
      cache.check_ready()
    cache.add(0, _rows(0, 0, 5), in_context=True, visit=0)
    cache.add(2, _rows(2, 0, 5), in_context=False, visit=0)
    sampler = cache_lib.CacheSampler(cache, meta_batch_size=8, context_size=2, batch_size=2)
    with self.assertRaisesRegex(RuntimeError, r'no context for 1 of 3 tasks .*\[2\]'):
      sampler.check_ready()
    cache.add(2, _rows(2, 0, 5), in_context=True, visit=0)
    sampler.check_ready()

  def test_sampling_an_empty_task_fails(self):
    cache = cache_lib.ReplayCache(_LAYOUT, 1, capacity=100)
    with self.assertRaises(tf.errors.InvalidArgumentError):
      cache.sample([1, 2], meta_batch_size=1, context_size=1, batch_size=1)

  def test_bad_additions_are_refused_and_change_nothing(self):
    cache = cache_lib.ReplayCache(_LAYOUT, 2, capacity=10)
    cases = (
      (2, _rows(0, 0, 3), r'task_index must be in \[0, 2\), got 2'),
      (-1, _rows(0, 0, 3), r'task_index must be in \[0, 2\), got -1'),
      (0, _rows(0, 0, 0), r'rows must be \[S >= 1, 8\]'),
      (0, _rows(0, 0, 3)[:, :-1], r'rows must be \[S >= 1, 8\]'),
      (0, _rows(0, 0, 3)[0], r'rows must be \[S >= 1, 8\]'),
      (0, _rows(0, 0, 11), 'trajectory of 11 transitions does not fit a cache of 10'),
    )
    for task, rows, message in cases:
      with self.assertRaisesRegex(ValueError, message):
        cache.add(task, rows, in_context=True, visit=0)
    for task, num_rows in ((2, 3), (0, 11)):
      with self.assertRaises(tf.errors.InvalidArgumentError):
        cache.append(
          tf.constant(task), tf.constant(_rows(0, 0, num_rows)), tf.constant(True), tf.constant(0)
        )
    self.assertEqual(cache.num_rows, 0)

  def test_numbers_are_checked(self):
    with self.assertRaisesRegex(ValueError, 'num_tasks must be in .*, got 0'):
      cache_lib.ReplayCache(_LAYOUT, 0, capacity=10)
    with self.assertRaisesRegex(ValueError, 'capacity must be in .*, got 0'):
      cache_lib.ReplayCache(_LAYOUT, 1, capacity=0)
    with self.assertRaisesRegex(ValueError, 'capacity_per_task must be in .*, got -1'):
      cache_lib.ReplayCache(_LAYOUT, 1, capacity=10, capacity_per_task=-1)
    cache = cache_lib.ReplayCache(_LAYOUT, 1, capacity=10)
    with self.assertRaisesRegex(ValueError, 'batch_size must be positive, got 0'):
      cache_lib.CacheSampler(cache, meta_batch_size=1, context_size=1, batch_size=0)


if __name__ == '__main__':
  absltest.main()
