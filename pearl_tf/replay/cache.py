"""The learner's copy of the replay, in variables, sampled inside the training step.

`ReplayCache` owns the rows the learner trains on and draws meta-batches from them; the feeder fills
it from Reverb. Sampling is a gather: drawing single transitions from Reverb instead costs as much
as the gradient step itself. All state is in variables, hence in the learner's checkpoint.
"""

import functools
from collections.abc import Iterator

import gin
import numpy as np
import tensorflow as tf

from pearl_tf.data import sampling_scheme, types
from pearl_tf.replay import index_rings, packing, row_pool, trajectory_rings

_MAX_INT32 = 2**31 - 1
MAX_CAPACITY = _MAX_INT32 // 2
_DEFAULT_RESERVED = 1_000_000
_PAPER = sampling_scheme.SamplingScheme()


@gin.configurable(denylist=['layout', 'num_tasks', 'capacity', 'reserved', 'name'])
class ReplayCache(tf.Module):
  """One pool of rows for all tasks, and for each task the rings of its replay and context rows.

  The pool is a ring: when it is full, the oldest rows of whichever task make room, and disappear
  from their task's rings. It lives on the CPU; the training step copies the sampled batch, not the
  pool, to its device. `sample`, `sample_context` and `append` may be called inside a `tf.function`.
  """

  def __init__(
    self,
    layout: packing.PackedLayout,
    num_tasks: int,
    *,
    capacity: int | None = None,
    reserved: int | None = None,
    capacity_per_task: int = 1_000_000,
    context_capacity_per_task: int = 1_000_000,
    name: str = 'replay_cache',
  ):
    """Makes an empty cache.

    Args:
      layout: Layout of the rows.
      num_tasks: Number of training tasks.
      capacity: Transitions of all tasks together, the oldest make room for more; None for all that
        come. Memory and checkpoints grow with what is there, `4 * num_rows * W` bytes and at most a
        fifth more.
      reserved: Transitions that are expected, at most `capacity`; more cost a copy of all.
      capacity_per_task: Transitions of one task; the default is the authors'.
      context_capacity_per_task: Context transitions of one task; the default is the authors'.
      name: Name of the module.

    Raises:
      ValueError: If a number is not positive or does not fit int32.
    """
    super().__init__(name=name)
    capacity = MAX_CAPACITY if capacity is None else capacity
    reserved = min(capacity, _DEFAULT_RESERVED) if reserved is None else reserved
    numbers = {
      'num_tasks': num_tasks,
      'capacity': capacity,
      'reserved': reserved,
      'capacity_per_task': capacity_per_task,
      'context_capacity_per_task': context_capacity_per_task,
    }
    for key, number in numbers.items():
      if not 1 <= number <= MAX_CAPACITY:
        raise ValueError(f'ReplayCache.{key} must be in [1, {MAX_CAPACITY}], got {number}.')
    self._layout = layout
    self._num_tasks = num_tasks
    self._capacity = capacity
    self._reserved = min(capacity, reserved)
    # int32 numbers all the entries of all tasks.
    largest = min(capacity, _MAX_INT32 // num_tasks)
    capacity_per_task = min(capacity_per_task, largest)
    context_capacity_per_task = min(context_capacity_per_task, largest)
    self._replay = index_rings.IndexRings(num_tasks, capacity=capacity_per_task, name='replay')
    self._context = index_rings.IndexRings(
      num_tasks, capacity=context_capacity_per_task, name='context'
    )
    self._replay_trajectories = trajectory_rings.TrajectoryRings(
      num_tasks, capacity=capacity_per_task, pool_size=capacity, name='replay_trajectories'
    )
    self._context_trajectories = trajectory_rings.TrajectoryRings(
      num_tasks, capacity=context_capacity_per_task, pool_size=capacity, name='context_trajectories'
    )
    with tf.device('/CPU:0'):
      self._visit = tf.Variable(tf.zeros([num_tasks], tf.int64), trainable=False, name='visit')
      self._cursor = tf.Variable(0, dtype=tf.int32, trainable=False, name='cursor')
      self._num_rows = tf.Variable(0, dtype=tf.int32, trainable=False, name='num_rows')
    self._pool = row_pool.RowPool(self._reserved, layout.width, self._num_rows)
    # One trace for all lengths.
    self._append = tf.function(
      self.append,
      input_signature=[
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([None, layout.width], tf.float32),
        tf.TensorSpec([], tf.bool),
        tf.TensorSpec([], tf.int64),
      ],
    )

  @property
  def layout(self) -> packing.PackedLayout:
    """Layout of the rows."""
    return self._layout

  @property
  def num_tasks(self) -> int:
    """Number of training tasks."""
    return self._num_tasks

  @property
  def num_rows(self) -> int:
    """Transitions in the pool, of all tasks together."""
    return int(self._num_rows)

  @property
  def max_bytes(self) -> int:
    """What the transitions that are expected take."""
    return 4 * self._reserved * self._layout.width

  @property
  def num_bytes(self) -> int:
    """What a checkpoint of it takes."""
    rings = sum(int(tf.size(variable)) * variable.dtype.size for variable in self.variables)
    return rings + 4 * self.num_rows * self._layout.width

  def num_transitions(self, task_index: int) -> int:
    """Returns the number of transitions from which a task's RL batch is drawn."""
    return int(self._replay.sizes[self._checked(task_index)])

  def num_context_transitions(self, task_index: int) -> int:
    """Returns the number of transitions from which a task's context is drawn."""
    return int(self._context.sizes[self._checked(task_index)])

  def replay_rows(self, task_index: int) -> tf.Tensor:
    """Returns a task's transitions, oldest first: `[num_transitions, W] float32`."""
    return tf.gather(self._pool.rows, self._replay.ordered(self._checked(task_index)))

  def context_rows(self, task_index: int) -> tf.Tensor:
    """Returns a task's context, oldest first: `[num_context_transitions, W] float32`."""
    return tf.gather(self._pool.rows, self._context.ordered(self._checked(task_index)))

  def check_ready(self) -> None:
    """Checks that every task can be sampled; call it before a round of training steps.

    Raises:
      RuntimeError: If a task has no transitions or no context, naming the first such tasks.
    """
    kinds = {
      'transitions': self._replay,
      'context': self._context,
      'whole trajectory': self._replay_trajectories,
      'whole trajectory of context': self._context_trajectories,
    }
    for what, rings in kinds.items():
      empty = tf.where(tf.equal(rings.sizes, 0))[:, 0].numpy().tolist()
      if empty:
        raise RuntimeError(
          f'The replay has no {what} for {len(empty)} of {self._num_tasks} tasks (the first: '
          f'{empty[:5]}). Collect an initial pool for every task before training, write context '
          f'episodes after each clearing of a context, and check that the cache is large enough: '
          f'it holds {self.num_rows} of at most {self._capacity} transitions.'
        )

  def add(self, task_index: int, rows: tf.Tensor, *, in_context: bool, visit: int) -> None:
    """Stores one trajectory; the oldest rows make room where there is none. A host call.

    Args:
      task_index: The task.
      rows: `[S, W] float32`, packed transitions, `1 <= S <= capacity`.
      in_context: Whether they belong to the task's context too.
      visit: Number of the visit to the task. The context is cleared by the first trajectory that
        joins it of a later one than so far; of an earlier one it takes nothing.

    Raises:
      ValueError: If the task does not exist or the rows have another shape.
    """
    task_index = self._checked(task_index)
    rows = tf.convert_to_tensor(rows, tf.float32)
    num_rows = rows.shape[0] if rows.shape.rank == 2 else 0
    if rows.shape.rank != 2 or rows.shape[1] != self._layout.width or num_rows < 1:
      raise ValueError(f'rows must be [S >= 1, {self._layout.width}], got {rows.shape}.')
    if num_rows > self._capacity:
      raise ValueError(
        f'A trajectory of {num_rows} transitions does not fit a cache of {self._capacity}: raise '
        f'ReplayCache.capacity.'
      )
    self._append(
      tf.constant(task_index, tf.int32),
      rows,
      tf.constant(bool(in_context)),
      tf.constant(int(visit), tf.int64),
    )

  def append(
    self, task: tf.Tensor, rows: tf.Tensor, in_context: tf.Tensor, visit: tf.Tensor
  ) -> None:
    """Stores one trajectory: `add` for use inside a `tf.function`.

    Args:
      task: `[] int32`.
      rows: `[S, W] float32`, `1 <= S <= capacity`; another number fails with
        `InvalidArgumentError`, as does a task that does not exist.
      in_context: `[] bool`.
      visit: `[] int64`.
    """
    with tf.device('/CPU:0'):
      num_rows = tf.shape(rows)[0]
      tf.debugging.assert_less(task, self._num_tasks, 'No such task in the replay cache.')
      tf.debugging.assert_less_equal(
        num_rows,
        self._capacity,
        'A trajectory exceeds the capacity of the replay cache.',
      )
      full = self._num_rows + num_rows > self._capacity
      tf.cond(full, lambda: self._expire(num_rows), lambda: None)
      slots = (self._cursor + tf.range(num_rows)) % self._capacity
      self._pool.reserve(tf.minimum(self._cursor + num_rows, self._capacity))
      self._pool.rows.scatter_update(tf.IndexedSlices(rows, slots))
      for rings in self._rings('replay'):
        rings.append(task, slots)
      # Not by one that does not join: there must be a context at any time.
      clears = tf.logical_and(in_context, visit > self._visit[task])
      joins = tf.logical_and(in_context, visit >= self._visit[task])
      self._visit.scatter_max(tf.IndexedSlices(tf.where(joins, visit, 0), task))
      for rings in self._rings('context'):
        tf.cond(clears, functools.partial(rings.clear, task), lambda: None)
        tf.cond(joins, functools.partial(rings.append, task, slots), lambda: None)
      self._cursor.assign((self._cursor + num_rows) % self._capacity)
      self._num_rows.assign(tf.minimum(self._num_rows + num_rows, self._capacity))
      for name in ('replay', 'context'):
        rows_of_task, trajectories = self._rings(name)
        trajectories.drop_cut(rows_of_task, cursor=self._cursor.read_value(), num_appended=num_rows)

  def sample(
    self,
    seed: tf.Tensor,
    *,
    meta_batch_size: int,
    context_size: int,
    batch_size: int,
    scheme: sampling_scheme.SamplingScheme = _PAPER,
  ) -> types.MetaBatch:
    """Draws one training batch: a pure function of contents and seed.

    Tasks are drawn uniformly with replacement among all tasks; then, for each, context and RL
    transitions are drawn. By the default scheme these are uniform, with replacement and independent
    of each other (algorithm 1 of the paper; the authors' code does the same).

    Args:
      seed: `[2] int32`.
      meta_batch_size: `T`.
      context_size: `N`, context transitions per task.
      batch_size: `B`, RL transitions per task.
      scheme: How context and RL transitions are drawn.

    Returns:
      A `MetaBatch`. Drawing from an empty task fails with `InvalidArgumentError` (division by
      zero); `check_ready` says which task it is.
    """
    with tf.device('/CPU:0'):
      seeds = tf.random.experimental.stateless_split(seed, 3, alg='philox')
      task = tf.random.stateless_uniform(
        [meta_batch_size], seeds[0], 0, self._num_tasks, tf.int32, alg='philox'
      )
      transitions = self._draw('replay', scheme.batch_sampling, seeds[2], task, batch_size)
      if scheme.context_source == sampling_scheme.RL_BATCH:
        context = self._layout.unpack_context(transitions)
      else:
        context = self.sample_context(seeds[1], task, context_size, scheme=scheme)
      return types.MetaBatch(
        task=tf.cast(task, tf.int64),
        context=context,
        transitions=self._layout.unpack_transition(transitions),
      )

  def sample_context(
    self,
    seed: tf.Tensor,
    task_indices: tf.Tensor,
    context_size: int,
    *,
    scheme: sampling_scheme.SamplingScheme = _PAPER,
  ) -> types.ContextBatch:
    """Draws context of given tasks, by the default scheme uniformly with replacement.

    Args:
      seed: `[2] int32`.
      task_indices: `[T]` integers.
      context_size: `N`.
      scheme: Its `context_sampling` says how to draw, its `context_source` where from.

    Returns:
      A `ContextBatch` of leading dimensions `[T, N]`.
    """
    with tf.device('/CPU:0'):
      tasks = tf.cast(task_indices, tf.int32)
      rings = 'context' if scheme.context_source == sampling_scheme.RECENT else 'replay'
      rows = self._draw(rings, scheme.context_sampling, seed, tasks, context_size)
      return self._layout.unpack_context(rows)

  def _rings(self, name: str) -> list[index_rings.IndexRings]:
    """Returns the rings of rows of 'replay' or 'context' and those of trajectories."""
    if name == 'replay':
      return [self._replay, self._replay_trajectories]
    return [self._context, self._context_trajectories]

  def _draw(
    self, name: str, sampling: str, seed: tf.Tensor, tasks: tf.Tensor, num_rows: int
  ) -> tf.Tensor:
    """Returns `[T, num_rows, W]` rows of the tasks."""
    rows, trajectories = self._rings(name)
    chosen = trajectories if sampling == sampling_scheme.TRAJECTORIES else rows
    return tf.gather(self._pool.rows, chosen.sample(seed, tasks, num_rows))

  def trajectories(self, task_index: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Yields each trajectory of a task, oldest first: rows `[S, W]`, and whether it is context."""
    task_index = self._checked(task_index)
    in_context = set(self._context_trajectories.ordered(task_index).numpy().tolist())
    for first in self._replay_trajectories.ordered(task_index).numpy().tolist():
      slots = (first + tf.range(self._replay_trajectories.length(first))) % self._capacity
      yield tf.gather(self._pool.rows, slots).numpy(), first in in_context

  def visit(self, task_index: int) -> int:
    """Returns the number of the visit to a task that its context is of."""
    return int(self._visit[self._checked(task_index)])

  def _checked(self, task_index: int) -> int:
    if not 0 <= int(task_index) < self._num_tasks:
      raise ValueError(f'task_index must be in [0, {self._num_tasks}), got {task_index}.')
    return int(task_index)

  def _expire(self, num_rows: tf.Tensor) -> None:
    """Forgets the entries whose rows are about to be overwritten.

    Rows and entries both leave oldest first, so these are the first entries of their rings. The age
    rank of a row is its distance from the cursor, where the oldest row is.
    """
    for rings in (*self._rings('replay'), *self._rings('context')):
      slots, present = rings.oldest(num_rows)
      rank = (slots - self._cursor) % self._capacity
      expired = tf.logical_and(present, rank < num_rows)
      rings.drop_oldest(tf.reduce_sum(tf.cast(expired, tf.int32), axis=1))


class CacheSampler:
  """Draws meta-batches of fixed sizes from a cache: the default sampler of the learner."""

  def __init__(
    self,
    cache: ReplayCache,
    *,
    meta_batch_size: int,
    context_size: int,
    batch_size: int,
    scheme: sampling_scheme.SamplingScheme = _PAPER,
  ):
    """Fixes the sizes.

    Args:
      cache: The cache.
      meta_batch_size: `T`, tasks per batch.
      context_size: `N`, context transitions per task.
      batch_size: `B`, RL transitions per task.
      scheme: How context and RL transitions are drawn.

    Raises:
      ValueError: If a size is not positive or contradicts the scheme.
    """
    self._sizes = {
      'meta_batch_size': meta_batch_size,
      'context_size': context_size,
      'batch_size': batch_size,
    }
    for key, size in self._sizes.items():
      if size < 1:
        raise ValueError(f'ReplayCache.{key} must be positive, got {size}.')
    scheme.check_sizes(context_size=context_size, batch_size=batch_size)
    self._scheme = scheme
    self._cache = cache

  def check_ready(self) -> None:
    """Checks that every task can be sampled; raises `RuntimeError` naming those that cannot."""
    self._cache.check_ready()

  def sample(self, seed: tf.Tensor) -> types.MetaBatch:
    """Returns the batch of a seed; may be called inside a `tf.function`.

    Args:
      seed: `[2] int32`.
    """
    return self._cache.sample(seed, scheme=self._scheme, **self._sizes)
