"""Both samplers draw the same distribution from the same data, and never mix tasks.

Reverb draws by an unseeded generator, so a test of the direct sampler may fail by chance; the bound
makes that one run in a million. The cache's draws are fixed by their seeds.
"""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from scipy import stats

from pearl_tf.data import types
from pearl_tf.replay import cache as cache_lib
from pearl_tf.replay import direct_sampler, feeder, packing, server, writer
from pearl_tf.testing import test_case

_LAYOUT = packing.PackedLayout(2, 1)
_MIN_P_VALUE = 1e-6
# Of very different lengths: drawing trajectories uniformly would be far from uniform over rows.
# Those of the first list are context too.
_CONTEXT_LENGTHS = ((1, 2, 17), (9, 1), (30, 5, 1, 1))
_OTHER_LENGTHS = ((12, 1), (3, 25, 1), (1,))
_NUM_TASKS = len(_CONTEXT_LENGTHS)


def _episode(task: int, first: int, num_steps: int) -> types.Episode:
  """An episode whose observations name its task, and whose rewards number its transitions."""
  numbers = np.arange(first, first + num_steps, dtype=np.float32)
  observation = np.full([num_steps, 2], task, np.float32)
  return types.Episode(
    observation=observation,
    action=np.zeros([num_steps, 1], np.float32),
    reward=numbers,
    context_reward=-numbers,
    discount=np.ones([num_steps], np.float32),
    next_observation=observation,
  )


def _num_context(task: int) -> int:
  return sum(_CONTEXT_LENGTHS[task])


def _num_replay(task: int) -> int:
  return _num_context(task) + sum(_OTHER_LENGTHS[task])


class _SamplersTestCase(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.server = server.ReplayServer(_LAYOUT, _NUM_TASKS)
    self.addCleanup(self.server.stop)
    self.writer = writer.ReplayWriter(self.server.client, _LAYOUT)
    for task in range(_NUM_TASKS):
      first = 0
      for length in _CONTEXT_LENGTHS[task]:
        self.writer.write(task, _episode(task, first, length), in_context=True)
        first += length
      for length in _OTHER_LENGTHS[task]:
        self.writer.write(task, _episode(task, first, length), in_context=False)
        first += length
    self.writer.flush()

  def _sampler(self, kind: str, **kwargs):
    if kind == 'cache':
      cache = cache_lib.ReplayCache(_LAYOUT, _NUM_TASKS, capacity=1000)
      feeder.Feeder(cache, self.server.address).drain()
      sampler = cache_lib.CacheSampler(cache, **kwargs)
    else:
      sampler = direct_sampler.DirectSampler(
        self.server.address, _LAYOUT, _NUM_TASKS, timeout_seconds=5, **kwargs
      )
    sampler.check_ready()
    return sampler

  def _draw(self, sampler, num_batches: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns tasks `[K, T]`, context `[K, T, N]` and replay numbers `[K, T, B]`; checks tasks."""
    sample = tf.function(sampler.sample)
    tasks, context, replay = [], [], []
    for i in range(num_batches):
      batch = sample(tf.constant([i, 5]))
      task = batch.task.numpy()
      for observations in (
        batch.context.observation,
        batch.context.next_observation,
        batch.transitions.observation,
        batch.transitions.next_observation,
      ):
        expected = np.broadcast_to(task[:, np.newaxis, np.newaxis], observations.shape)
        self.assertAllEqual(observations, expected)
      tasks.append(task)
      context.append(-batch.context.reward.numpy())
      replay.append(batch.transitions.reward.numpy())
    return np.stack(tasks), np.stack(context).astype(int), np.stack(replay).astype(int)

  def _assert_uniform(self, values: np.ndarray, num_values: int):
    counts = np.bincount(values.reshape(-1), minlength=num_values)
    self.assertLen(counts, num_values)
    self.assertGreater(stats.chisquare(counts).pvalue, _MIN_P_VALUE, counts)


class BothSamplersTest(_SamplersTestCase):
  @parameterized.parameters('cache', 'direct')
  def test_uniform_and_unmixed(self, kind):
    sampler = self._sampler(kind, meta_batch_size=8, context_size=40, batch_size=60)
    tasks, context, replay = self._draw(sampler, 12)
    self._assert_uniform(tasks, _NUM_TASKS)
    for task in range(_NUM_TASKS):
      self._assert_uniform(context[tasks == task], _num_context(task))
      self._assert_uniform(replay[tasks == task], _num_replay(task))

  @parameterized.parameters('cache', 'direct')
  def test_tasks_of_a_batch_are_independent(self, kind):
    # With replacement: all pairs are equally likely, a task beside itself too.
    sampler = self._sampler(kind, meta_batch_size=40, context_size=1, batch_size=1)
    tasks, _, _ = self._draw(sampler, 4 if kind == 'direct' else 40)
    tasks = tasks.reshape(-1)
    self._assert_uniform(tasks[::2] * _NUM_TASKS + tasks[1::2], _NUM_TASKS**2)
    self._assert_uniform(tasks[1:-1:2] * _NUM_TASKS + tasks[2::2], _NUM_TASKS**2)

  @parameterized.parameters('cache', 'direct')
  def test_draws_of_a_batch_are_independent(self, kind):
    sampler = self._sampler(kind, meta_batch_size=30, context_size=32, batch_size=32)
    tasks, context, replay = self._draw(sampler, 3)
    # Rows in quarters of the range, so that every pair has enough counts.
    context = 4 * context[tasks == 1] // _num_context(1)
    replay = 4 * replay[tasks == 1] // _num_replay(1)
    pairs = {
      'context': (context[:, ::2], context[:, 1::2]),
      'replay': (replay[:, ::2], replay[:, 1::2]),
      'context and replay': (context, replay),
      'context of two draws of the task': (context[:-1], context[1:]),
      'replay of two draws of the task': (replay[:-1], replay[1:]),
    }
    for name, (first, second) in pairs.items():
      table = np.zeros([4, 4])
      np.add.at(table, (first.reshape(-1), second.reshape(-1)), 1)
      p_value = stats.chi2_contingency(table).pvalue
      self.assertGreater(p_value, _MIN_P_VALUE, f'{name}: {table}')

  def test_uniformity_test_would_notice_trajectories_drawn_uniformly(self):
    generator = np.random.default_rng(0)
    lengths = np.array(_CONTEXT_LENGTHS[0])
    trajectory = generator.integers(len(lengths), size=2000)
    row = generator.integers(lengths[trajectory])
    values = np.concatenate([[0], np.cumsum(lengths)])[trajectory] + row
    with self.assertRaises(AssertionError):
      self._assert_uniform(values, _num_context(0))


class DirectSamplerTest(_SamplersTestCase):
  def test_several_rows_per_trajectory_stay_uniform(self):
    sampler = self._sampler(
      'direct', meta_batch_size=8, context_size=100, batch_size=130, rows_per_trajectory=3
    )
    tasks, context, replay = self._draw(sampler, 12)
    self.assertEqual(context.shape, (12, 8, 100))
    self.assertEqual(replay.shape, (12, 8, 130))
    # Rows of one trajectory are correlated, so that the test takes one of each.
    for task in range(_NUM_TASKS):
      self._assert_uniform(context[tasks == task][:, ::3], _num_context(task))
      self._assert_uniform(replay[tasks == task][:, 2::3], _num_replay(task))

  def test_cleared_context_is_followed(self):
    sampler = self._sampler(
      'direct', meta_batch_size=4, context_size=2, batch_size=2, num_parallel_tasks=1
    )
    self._draw(sampler, 3)
    for task in range(_NUM_TASKS):
      self.writer.begin_context(task)
      self.writer.write(task, _episode(task, 900, 3), in_context=True)
    self.writer.flush()
    self._draw(sampler, 2)  # What was prefetched before the clearing.
    _, context, _ = self._draw(sampler, 10)
    self.assertEqual(set(context.reshape(-1).tolist()), {900, 901, 902})

  def test_empty_table_is_an_error_not_a_skipped_task(self):
    sampler = direct_sampler.DirectSampler(
      self.server.address,
      _LAYOUT,
      _NUM_TASKS,
      meta_batch_size=8,
      context_size=2,
      batch_size=2,
      timeout_seconds=0.2,
    )
    self.writer.begin_context(1)
    with self.assertRaisesRegex(RuntimeError, r"1 tables .* are empty .*\['context/1'\]"):
      sampler.check_ready()
    with self.assertRaisesRegex(tf.errors.InvalidArgumentError, 'context/1'):
      for _ in range(20):
        sampler.sample()

  def test_numbers_are_checked(self):
    sizes = {'meta_batch_size': 1, 'context_size': 1, 'batch_size': 1}
    for name in (*sizes, 'rows_per_trajectory', 'num_parallel_tasks', 'timeout_seconds'):
      with self.assertRaisesRegex(ValueError, f'{name} must be positive, got 0'):
        direct_sampler.DirectSampler(self.server.address, _LAYOUT, _NUM_TASKS, **{**sizes, name: 0})


if __name__ == '__main__':
  absltest.main()
