"""Whole trajectories from the cache: in order, uniform, of one task, and only complete ones.

A plain model says at every moment which trajectories the cache should hold. All draws are fixed by
their seeds, so none of these tests fails by chance.
"""

import collections

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from scipy import stats

from pearl_tf.data import sampling_scheme
from pearl_tf.replay import cache as cache_lib
from pearl_tf.replay import packing
from pearl_tf.testing import test_case

_LAYOUT = packing.PackedLayout(2, 1)
_MIN_P_VALUE = 1e-3
_ORDERED = sampling_scheme.SamplingScheme('trajectories', 'trajectories')


def _rows(task: int, first: int, num_rows: int) -> np.ndarray:
  """Rows whose first observation is the task and whose rewards number them."""
  rows = np.zeros([num_rows, _LAYOUT.width], np.float32)
  rows[:, 0] = task
  rows[:, 3] = np.arange(first, first + num_rows)  # Reward.
  rows[:, 4] = -rows[:, 3]  # Context reward.
  return rows


class _Model:
  """Which trajectories are complete, as the numbers of their first and last rows."""

  def __init__(self, num_tasks: int, capacity: int, per_task: int, context_per_task: int):
    self.capacity, self.num_rows = capacity, 0
    self.limits = {'replay': per_task, 'context': context_per_task}
    self.rows = {
      kind: [collections.deque(maxlen=limit) for _ in range(num_tasks)]
      for kind, limit in self.limits.items()
    }
    self.trajectories = {kind: [[] for _ in range(num_tasks)] for kind in self.limits}
    self.visit = [0] * num_tasks

  def add(self, task: int, num_steps: int, in_context: bool, visit: int):
    numbers = range(self.num_rows, self.num_rows + num_steps)
    self.num_rows += num_steps
    if in_context and visit != self.visit[task]:
      self.visit[task] = visit
      self.rows['context'][task].clear()
    for kind in ('replay', 'context') if in_context else ('replay',):
      self.rows[kind][task].extend(numbers)
      self.trajectories[kind][task].append((numbers[0], numbers[-1]))
    for kind, rows_of_tasks in self.rows.items():
      for rows, trajectories in zip(rows_of_tasks, self.trajectories[kind], strict=True):
        while rows and rows[0] < self.num_rows - self.capacity:
          rows.popleft()
        present = set(rows)
        trajectories[:] = [t for t in trajectories if t[0] in present]


def _split(numbers: np.ndarray, trajectories: list[tuple[int, int]]) -> list[int]:
  """Returns which trajectories, in this order, a row of sampled numbers consists of.

  Raises:
    AssertionError: if it is anything but whole ones in order, the last one cut off.
  """
  by_first = {first: (index, last) for index, (first, last) in enumerate(trajectories)}
  drawn, at = [], 0
  while at < len(numbers):
    if numbers[at] not in by_first:
      raise AssertionError(f'{numbers[at]} begins none of {trajectories}: {numbers}')
    index, last = by_first[numbers[at]]
    expected = np.arange(numbers[at], last + 1)[: len(numbers) - at]
    np.testing.assert_array_equal(numbers[at : at + len(expected)], expected)
    drawn.append(index)
    at += len(expected)
  return drawn


class TrajectoriesTest(test_case.TestCase):
  @parameterized.named_parameters(
    ('roomy', 5000, 5000, 5000, 40),
    ('pool_wraps', 150, 5000, 5000, 40),
    ('pool_wraps_and_rings_too', 300, 50, 45, 40),
    ('episodes_nearly_fill_the_pool', 45, 45, 45, 40),
    ('context_ring_wraps', 1000, 700, 50, 40),
  )
  def test_only_complete_trajectories_in_order(self, capacity, per_task, context_per_task, steps):
    generator = np.random.default_rng(capacity)
    num_tasks = 3
    cache = cache_lib.ReplayCache(
      _LAYOUT,
      num_tasks,
      capacity=capacity,
      capacity_per_task=per_task,
      context_capacity_per_task=context_per_task,
    )
    model = _Model(num_tasks, capacity, per_task, context_per_task)
    visits = [0] * num_tasks

    @tf.function
    def draw(seed, kind, task):
      return tf.gather(
        cache._pool.rows[:, 3], cache._rings(kind)[1].sample(seed, task[tf.newaxis], 60)[0]
      )

    num_checked = 0
    for step in range(80):
      task = int(generator.integers(num_tasks))
      if generator.random() < 0.1:
        visits[task] += 1
      in_context = bool(generator.random() < 0.7)
      num_steps = int(generator.integers(1, steps + 1))
      rows = _rows(task, model.num_rows, num_steps)
      cache.add(task, rows, in_context=in_context, visit=visits[task])
      model.add(task, num_steps, in_context, visits[task])
      for kind in ('replay', 'context'):
        expected = model.trajectories[kind]
        sizes = cache._rings(kind)[1].sizes
        self.assertAllEqual(sizes, [len(trajectories) for trajectories in expected])
        task = step % num_tasks
        if expected[task]:
          numbers = draw(tf.constant([step, 1]), kind, tf.constant(task)).numpy()
          _split(numbers, expected[task])
          num_checked += 1
    self.assertGreater(num_checked, 30)

  def _filled(self, lengths, *, wrap: bool) -> tuple[cache_lib.ReplayCache, list]:
    """Returns a cache whose task t has trajectories of `lengths[t]`, and where these are."""
    capacity = sum(map(sum, lengths))
    cache = cache_lib.ReplayCache(_LAYOUT, len(lengths), capacity=capacity)
    number = 0
    trajectories = [[] for _ in lengths]
    if wrap:  # The pool then begins in the middle of itself, within a trajectory.
      number = capacity // 2 + 1
      cache.add(0, _rows(0, 0, number), in_context=True, visit=0)
    for task, lengths_of_task in enumerate(lengths):
      for length in lengths_of_task:
        cache.add(task, _rows(task, number, length), in_context=True, visit=0)
        trajectories[task].append((number, number + length - 1))
        number += length
    return cache, trajectories

  @parameterized.product(
    wrap=(False, True),
    size=(5, 40),
    scheme=(_ORDERED, sampling_scheme.SamplingScheme('trajectories')),
  )
  def test_context_is_ordered_uniform_over_trajectories_and_unmixed(self, wrap, size, scheme):
    lengths = ((1, 2, 17), (9, 9), (30, 5, 1, 1))
    cache, trajectories = self._filled(lengths, wrap=wrap)
    cache.check_ready()
    sample = tf.function(
      lambda seed: cache.sample(
        seed, meta_batch_size=300, context_size=size, batch_size=size, scheme=scheme
      )
    )
    first, second = ([[] for _ in lengths] for _ in range(2))
    for seed in range(3):
      batch = sample(tf.constant([seed, 7]))
      for observation in (batch.context.observation, batch.transitions.observation):
        tasks = np.broadcast_to(batch.task.numpy()[:, np.newaxis], [300, size])
        self.assertAllEqual(observation[..., 0], tasks)
      self.assertAllEqual(batch.context.mask, np.ones([300, size]))
      for task, numbers in zip(batch.task.numpy(), -batch.context.reward.numpy(), strict=True):
        drawn = _split(numbers.astype(int), trajectories[task])
        first[task].append(drawn[0])
        second[task] += drawn[1:2]
    for task, draws in enumerate(first):
      counts = np.bincount(draws, minlength=len(lengths[task]))
      self.assertGreater(stats.chisquare(counts).pvalue, _MIN_P_VALUE, counts)
    if size == 40:  # Every first trajectory leaves room for a second, drawn alike.
      for task, draws in enumerate(second):
        counts = np.bincount(draws, minlength=len(lengths[task]))
        self.assertGreater(stats.chisquare(counts).pvalue, _MIN_P_VALUE, counts)

  def test_batches_of_whole_trajectories(self):
    cache, trajectories = self._filled(((7, 3), (4, 4, 11)), wrap=True)
    scheme = sampling_scheme.SamplingScheme(batch_sampling='trajectories')
    batch = cache.sample([1, 2], meta_batch_size=50, context_size=30, batch_size=30, scheme=scheme)
    independent = 0
    for task, numbers, context in zip(
      batch.task.numpy(),
      batch.transitions.reward.numpy(),
      batch.context.reward.numpy(),
      strict=True,
    ):
      _split(numbers.astype(int), trajectories[task])
      with self.assertRaises(AssertionError):  # Loose transitions: the test would notice them.
        _split(-context.astype(int), trajectories[task])
      independent += set(numbers) != set(-context)
    self.assertGreater(independent, 10)

  def test_context_and_batch_are_drawn_independently(self):
    cache, _ = self._filled(((6, 6, 6, 6),), wrap=False)
    batch = cache.sample([1, 2], meta_batch_size=800, context_size=6, batch_size=6, scheme=_ORDERED)
    context = (-batch.context.reward.numpy()[:, 0] / 6).astype(int)
    transitions = (batch.transitions.reward.numpy()[:, 0] / 6).astype(int)
    table = np.zeros([4, 4])
    np.add.at(table, (context, transitions), 1)
    self.assertGreater(stats.chi2_contingency(table).pvalue, _MIN_P_VALUE, table)

  @parameterized.parameters(*sampling_scheme.SAMPLINGS)
  def test_context_from_the_whole_replay(self, sampling):
    cache = cache_lib.ReplayCache(_LAYOUT, 1, capacity=100)
    cache.add(0, _rows(0, 0, 10), in_context=True, visit=0)
    cache.add(0, _rows(0, 10, 10), in_context=True, visit=1)
    seen = {}
    for source in ('recent', 'replay'):
      scheme = sampling_scheme.SamplingScheme(sampling, context_source=source)
      context = cache.sample_context([1, 2], [0, 0, 0], 50, scheme=scheme)
      seen[source] = set((-context.reward.numpy()).astype(int).reshape(-1).tolist())
    self.assertEqual(seen, {'recent': set(range(10, 20)), 'replay': set(range(20))})

  @parameterized.parameters(*sampling_scheme.SAMPLINGS)
  def test_context_that_is_the_rl_batch(self, sampling):
    cache, _ = self._filled(((7, 3), (4, 4, 11)), wrap=False)
    scheme = sampling_scheme.SamplingScheme(sampling, sampling, 'rl_batch')
    batch = cache.sample([1, 2], meta_batch_size=5, context_size=9, batch_size=9, scheme=scheme)
    self.assertAllEqual(batch.context.observation, batch.transitions.observation)
    self.assertAllEqual(batch.context.action, batch.transitions.action)
    self.assertAllEqual(batch.context.next_observation, batch.transitions.next_observation)
    # The encoder sees the context reward, here the negative, and the critics the dense one.
    self.assertAllEqual(batch.context.reward, -batch.transitions.reward)
    self.assertAllEqual(batch.context.mask, np.ones([5, 9]))

  def test_restored_cache_continues_identically(self):
    cache, _ = self._filled(((7, 3), (4, 4, 11)), wrap=True)
    restored = cache_lib.ReplayCache(_LAYOUT, 2, capacity=29)
    path = tf.train.Checkpoint(cache=cache).write(str(self.temp_dir() / 'cache'))
    tf.train.Checkpoint(cache=restored).read(path).assert_consumed()
    sizes = {'meta_batch_size': 4, 'context_size': 9, 'batch_size': 9, 'scheme': _ORDERED}
    for each in (cache, restored):
      each.add(0, _rows(0, 100, 5), in_context=True, visit=0)
    expected = cache.sample([3, 4], **sizes)
    tf.nest.map_structure(self.assertAllEqual, restored.sample([3, 4], **sizes), expected)

  def test_not_ready_where_no_whole_trajectory_is_left(self):
    cache = cache_lib.ReplayCache(_LAYOUT, 1, capacity=100, context_capacity_per_task=5)
    cache.add(0, _rows(0, 0, 6), in_context=True, visit=0)
    with self.assertRaisesRegex(RuntimeError, 'no whole trajectory of context for 1 of 1'):
      cache.check_ready()

  def test_trajectories_of_a_task_and_whether_they_are_context(self):
    cache, trajectories = self._filled(((7, 3), (4, 4, 11)), wrap=True)
    for task, expected in enumerate(trajectories):
      found = list(cache.trajectories(task))
      self.assertEqual([(rows[0, 3], rows[-1, 3]) for rows, _ in found], expected)
      self.assertEqual([in_context for _, in_context in found], [True] * len(expected))
    cache.add(1, _rows(1, 500, 2), in_context=False, visit=3)
    self.assertEqual([in_context for _, in_context in cache.trajectories(1)][-1], False)
    self.assertEqual((cache.visit(0), cache.visit(1)), (0, 0))  # Of what is in the context.

  def test_misuse_is_refused(self):
    cache = cache_lib.ReplayCache(_LAYOUT, 1, capacity=100)
    cache.add(0, _rows(0, 0, 6), in_context=True, visit=0)
    with self.assertRaisesRegex(ValueError, 'must be batch_size = 2, got 1'):
      cache_lib.CacheSampler(
        cache,
        meta_batch_size=1,
        context_size=1,
        batch_size=2,
        scheme=sampling_scheme.SamplingScheme(context_source='rl_batch'),
      )


if __name__ == '__main__':
  absltest.main()
