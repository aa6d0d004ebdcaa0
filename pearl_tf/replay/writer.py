"""Episodes into the replay: the only door through which data enters.

`ReplayWriter` owns the stream to the server and the generation of each task's context. It neither
collects episodes nor samples them; the collection schedule calls it.
"""

import numpy as np
import reverb

from pearl_tf.data import types
from pearl_tf.replay import packing, tables


class ReplayWriter:
  """Writes whole episodes, each stored once and shared by up to three tables.

  One writer at a time may own a task: the generations it counts tell the learner where a context
  begins.
  """

  def __init__(
    self,
    client: reverb.Client,
    layout: packing.PackedLayout,
    *,
    feed_cache: bool = True,
    flush_timeout_seconds: float = 120.0,
    max_pending_episodes: int = 64,
  ):
    """Opens the stream.

    Args:
      client: Client of the server that holds the tables.
      layout: Layout of the rows; must be the one the tables were made with.
      feed_cache: Whether episodes also queue for the learner's cache; must be false where no
        learner drains the queue, as with the direct sampler, because a full queue blocks.
      flush_timeout_seconds: How long the server may take to confirm what was written.
      max_pending_episodes: Episodes written between two confirmations; bounds what is lost, and
        reported late, when the server dies.

    Raises:
      ValueError: If a number is not positive.
    """
    if flush_timeout_seconds <= 0:
      raise ValueError(f'flush_timeout_seconds must be positive, got {flush_timeout_seconds}.')
    if max_pending_episodes < 1:
      raise ValueError(f'max_pending_episodes must be positive, got {max_pending_episodes}.')
    self._client = client
    self._layout = layout
    self._feed_cache = feed_cache
    self._flush_timeout_ms = int(flush_timeout_seconds * 1000)
    self._max_pending_episodes = max_pending_episodes
    self._stream: reverb.TrajectoryWriter | None = None
    self._stream_num_steps = 0
    self._num_pending = 0
    self._generations: dict[int, int] = {}

  def begin_context(self, task_index: int) -> None:
    """Clears the context of a task; what is written next with `in_context` is its new context.

    The learner's cache clears its own window when the first episode of the new generation arrives.

    Args:
      task_index: The task.
    """
    self.flush()  # An unconfirmed episode of the old context would otherwise land after the reset.
    self._client.reset(tables.context_name(task_index))
    self._generations[task_index] = self._generations.get(task_index, 0) + 1

  def write(self, task_index: int, episode: types.Episode, *, in_context: bool) -> None:
    """Stores one episode, all its transitions included.

    Args:
      task_index: The task it was collected on.
      episode: The episode; any length of at least one transition.
      in_context: Whether it also belongs to the task's context.

    Raises:
      ValueError: If the episode does not fit the layout.
      TimeoutError: If the server does not confirm in time.
    """
    rows = self._layout.pack(episode)
    generation = self._generations.get(task_index, 0)
    header = np.array([task_index, int(in_context), generation], np.int64)
    stream = self._stream_for(len(rows))
    stream.append({'header': header, 'rows': rows})
    item = {name: column[-1] for name, column in stream.history.items()}
    names = [tables.replay_name(task_index)]
    if in_context:
      names.append(tables.context_name(task_index))
    if self._feed_cache:
      names.append(tables.FRESH)  # Last: what the learner takes is already in the other tables.
    for name in names:
      stream.create_item(name, priority=float(len(rows)), trajectory=item)
    self._num_pending += 1
    if self._num_pending >= self._max_pending_episodes:
      self.flush()

  def flush(self) -> None:
    """Waits until the server has confirmed every episode written so far.

    Raises:
      TimeoutError: If it does not in time.
    """
    if not self._num_pending:
      return
    try:
      self._stream.flush(timeout_ms=self._flush_timeout_ms)
    except reverb.errors.DeadlineExceededError as error:
      raise TimeoutError(
        f'The replay server did not confirm {self._num_pending} episodes within '
        f'{self._flush_timeout_ms / 1000:g} s. Either it is gone, or its table {tables.FRESH!r} is '
        f'full because no learner drains it: drain more often, raise '
        f'make_tables.max_fresh_episodes, or write with feed_cache=False.'
      ) from error
    self._num_pending = 0

  def close(self) -> None:
    """Confirms what is pending and closes the stream."""
    self.flush()
    if self._stream is not None:
      self._stream.close()
      self._stream = None

  def state(self) -> dict:
    """Returns the generations, as JSON-able data, for a checkpoint."""
    return {'generations': {str(task): count for task, count in self._generations.items()}}

  def restore(self, state: dict) -> None:
    """Takes back what `state` returned.

    Args:
      state: The value of `state()` at the checkpoint.

    Raises:
      ValueError: If it is not such a value.
    """
    try:
      generations = {int(task): int(count) for task, count in state['generations'].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
      raise ValueError(f'Not the state of a ReplayWriter: {state!r}.') from error
    self._generations = generations

  def _stream_for(self, num_steps: int) -> reverb.TrajectoryWriter:
    """Returns a stream that takes episodes of this length.

    A whole episode is one appended step: appending its transitions one by one was measured several
    times slower, and gains nothing because items are always whole episodes. The price is that
    Reverb fixes the shape of a stream's columns at the first append, so that another length needs
    another stream. Closing the old one first keeps the order of the queue.
    """
    if self._stream is None or self._stream_num_steps != num_steps:
      self.close()
      self._stream = self._client.trajectory_writer(num_keep_alive_refs=1)
      self._stream_num_steps = num_steps
    return self._stream
