"""Meta-batches drawn straight from the Reverb tables, without a copy in the learner.

`DirectSampler` serves replay larger than the learner's memory, and is the oracle the cache is
tested against. It draws the same distribution as `cache.CacheSampler`, but costs far more than a
gradient step, because each transition travels inside its whole trajectory.
"""

import gin
import reverb
import tensorflow as tf

from pearl_tf.data import types
from pearl_tf.replay import packing, tables


@gin.configurable(allowlist=['rows_per_trajectory', 'num_parallel_tasks', 'timeout_seconds'])
class DirectSampler:
  """Draws meta-batches of fixed sizes from per-task tables.

  Each transition is a trajectory drawn in proportion to its length, then a row drawn uniformly
  inside it: independent uniform draws over the task's transitions. Reverb draws by a generator of
  its own, so batches do not depend on the seed, and a run with this sampler is not reproducible.
  """

  def __init__(
    self,
    server_address: str,
    layout: packing.PackedLayout,
    num_tasks: int,
    *,
    meta_batch_size: int,
    context_size: int,
    batch_size: int,
    rows_per_trajectory: int = 1,
    num_parallel_tasks: int = 2,
    timeout_seconds: float = 60.0,
  ):
    """Connects to the server; nothing is sampled before the first `sample`.

    Args:
      server_address: `host:port` of the replay server.
      layout: Layout of the rows.
      num_tasks: Number of training tasks.
      meta_batch_size: `T`, tasks per batch.
      context_size: `N`, context transitions per task.
      batch_size: `B`, RL transitions per task.
      rows_per_trajectory: Rows drawn, with replacement, from each drawn trajectory. 1 is exact;
        more is that much faster, and each row keeps its uniform distribution, but rows of one batch
        become correlated, which off-policy learning likes less.
      num_parallel_tasks: Tasks sampled ahead at the same time, two threads each. They may hold
        transitions of a context that is cleared meanwhile.
      timeout_seconds: How long an empty table may delay a batch.

    Raises:
      ValueError: If a number is not positive.
    """
    numbers = {
      'num_tasks': num_tasks,
      'meta_batch_size': meta_batch_size,
      'context_size': context_size,
      'batch_size': batch_size,
      'rows_per_trajectory': rows_per_trajectory,
      'num_parallel_tasks': num_parallel_tasks,
      'timeout_seconds': timeout_seconds,
    }
    for name, number in numbers.items():
      if number <= 0:
        raise ValueError(f'DirectSampler.{name} must be positive, got {number}.')
    self._server_address = server_address
    self._client = reverb.Client(server_address)
    self._layout = layout
    self._num_tasks = num_tasks
    self._meta_batch_size = meta_batch_size
    self._context_size = context_size
    self._batch_size = batch_size
    self._rows_per_trajectory = rows_per_trajectory
    self._num_parallel_tasks = num_parallel_tasks
    self._timeout_ms = int(timeout_seconds * 1000)
    self._iterator = None

  def check_ready(self) -> None:
    """Checks that every task can be sampled.

    Raises:
      RuntimeError: If a table is empty, naming the first such tables.
    """
    info = self._client.server_info()
    names = [tables.replay_name(task) for task in range(self._num_tasks)]
    names += [tables.context_name(task) for task in range(self._num_tasks)]
    empty = [name for name in names if not info[name].current_size]
    if empty:
      raise RuntimeError(
        f'{len(empty)} tables of {self._server_address} are empty (the first: {empty[:5]}). '
        f'Collect an initial pool for every task before training, and write context episodes '
        f'after each clearing of a context.'
      )

  def dataset(self) -> tf.data.Dataset:
    """Returns an endless dataset of `MetaBatch`."""
    # Random bits per task: the task itself, and the seeds of the two draws of rows. A stateful
    # random operation inside the inner datasets would restart with each of them.
    bits = tf.data.Dataset.random(rerandomize_each_iteration=True).batch(4, drop_remainder=True)
    # Each inner dataset yields one element, so the interleaving fixes no cycle of tasks, and both
    # halves of an element come from the same task whatever the order of arrival.
    draws = bits.interleave(
      self._task_dataset,
      cycle_length=self._num_parallel_tasks,
      num_parallel_calls=self._num_parallel_tasks,
    )
    return draws.batch(self._meta_batch_size, drop_remainder=True).map(self._to_meta_batch)

  def sample(self, seed: tf.Tensor | None = None) -> types.MetaBatch:
    """Returns the next batch; may be called inside a `tf.function`.

    Args:
      seed: Ignored: the interface of `cache.CacheSampler`.
    """
    del seed
    if self._iterator is None:
      with tf.init_scope():  # The iterator outlives the function whose tracing asks for it first.
        self._iterator = iter(self.dataset())
    return next(self._iterator)

  def _to_meta_batch(
    self, task: tf.Tensor, context: tf.Tensor, transitions: tf.Tensor
  ) -> types.MetaBatch:
    return types.MetaBatch(
      task=task,
      context=self._layout.unpack_context(context),
      transitions=self._layout.unpack_transition(transitions),
    )

  def _task_dataset(self, bits: tf.Tensor) -> tf.data.Dataset:
    """One element: the task, `[N, W]` context rows, `[B, W]` replay rows, by `[4]` random bits."""
    task = tf.math.floormod(bits[0], tf.constant(self._num_tasks, tf.int64))
    suffix = tf.strings.as_string(task)
    # The table's name is a tensor, so one dataset function serves all tasks; a dataset per task
    # takes a second to build for every few tasks.
    context = tf.strings.join([tables.CONTEXT_PREFIX, suffix])
    replay = tf.strings.join([tables.REPLAY_PREFIX, suffix])
    return tf.data.Dataset.zip(
      (
        tf.data.Dataset.from_tensors(task),
        self._rows_dataset(context, self._context_size, seed=bits[1:3]),
        self._rows_dataset(replay, self._batch_size, seed=bits[2:4]),
      )
    )

  def _rows_dataset(self, table: tf.Tensor, num_rows: int, *, seed: tf.Tensor) -> tf.data.Dataset:
    """One element: `[num_rows, W]` rows of a table."""
    num_trajectories = -(-num_rows // self._rows_per_trajectory)
    signature = tables.signature(self._layout)
    trajectories = reverb.TrajectoryDataset(
      server_address=self._server_address,
      table=table,
      dtypes={name: spec.dtype for name, spec in signature.items()},
      shapes={name: spec.shape for name, spec in signature.items()},
      max_in_flight_samples_per_worker=min(num_trajectories, 64),
      num_workers_per_iterator=1,
      # Not one more than needed: what is prefetched for later may have been cleared by then.
      max_samples=num_trajectories,
      rate_limiter_timeout_ms=self._timeout_ms,
    )
    width = self._layout.width
    # A table that stays empty ends its dataset. The second element makes that an error below; alone
    # it would only skip the task.
    missing = tf.data.Dataset.from_tensors(tf.zeros([0, self._rows_per_trajectory, width]))
    drawn = trajectories.enumerate().map(
      lambda index, sample: self._draw_rows(
        sample.data['rows'], tf.random.experimental.stateless_fold_in(seed, index)
      )
    )
    return (
      drawn.batch(num_trajectories)
      .concatenate(missing)
      .take(1)
      .map(lambda rows: self._checked_rows(rows, table, num_trajectories, num_rows))
    )

  def _draw_rows(self, rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns `[rows_per_trajectory, W]` of `[S, W]`."""
    num_steps = tf.shape(rows)[0]
    index = tf.random.stateless_uniform([self._rows_per_trajectory], seed, 0, num_steps, tf.int32)
    return tf.gather(rows, index)

  def _checked_rows(
    self, rows: tf.Tensor, table: tf.Tensor, num_trajectories: int, num_rows: int
  ) -> tf.Tensor:
    timeout = f'after {self._timeout_ms / 1000:g} s of waiting; is the table empty?'
    check = tf.debugging.Assert(
      tf.equal(tf.shape(rows)[0], num_trajectories),
      ['Table', table, 'gave', tf.shape(rows)[0], 'of', num_trajectories, 'trajectories', timeout],
    )
    with tf.control_dependencies([check]):
      rows = tf.reshape(rows, [-1, self._layout.width])[:num_rows]
    return tf.ensure_shape(rows, [num_rows, self._layout.width])
