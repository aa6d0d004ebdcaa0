"""Episodes into the replay: the only door through which data enters.

`ReplayWriter` owns the stream to the server. It neither collects episodes nor samples them; the
collection schedule calls it, and says which visit to a task an episode is of, so that any number of
writers, in any process, may write for one task.
"""

import numpy as np
import reverb

from pearl_tf.data import types
from pearl_tf.replay import packing, streams, tables


class ReplayWriter:
  """Writes whole episodes, each stored once and shared by its tables."""

  def __init__(
    self,
    client: reverb.Client,
    layout: packing.PackedLayout,
    *,
    flush_timeout_seconds: float = 120.0,
    max_pending_episodes: int = 64,
    number: int = 0,
    to_unsaved: bool = False,
  ):
    """Opens the stream.

    Args:
      client: Client of the server that holds the tables.
      layout: Layout of the rows; must be the one the tables were made with.
      flush_timeout_seconds: How long the server may take to confirm what was written.
      max_pending_episodes: Episodes written between two confirmations; bounds what is lost, and
        reported late, when the server dies.
      number: Of this writer, another one for each that writes at the same time, below
        `feeder.MAX_WRITERS`.
      to_unsaved: Whether the learner is another process, which may die alone.

    Raises:
      ValueError: If a number is not positive.
    """
    if flush_timeout_seconds <= 0:
      raise ValueError(f'flush_timeout_seconds must be positive, got {flush_timeout_seconds}.')
    if max_pending_episodes < 1:
      raise ValueError(f'max_pending_episodes must be positive, got {max_pending_episodes}.')
    self._client = client
    self._layout = layout
    self._flush_timeout_ms = int(flush_timeout_seconds * 1000)
    self._max_pending_episodes = max_pending_episodes
    self._stream: reverb.TrajectoryWriter | None = None
    self._stream_num_steps = 0
    self._num_pending = 0
    self._queues = (tables.UNSAVED, tables.FRESH) if to_unsaved else (tables.FRESH,)
    self._common = tables.Header(writer=number, sequence=1)

  def begin(self, *, sequence: int, policy_step: int, waited_ms: int) -> None:
    """Says how the next episodes come to be collected; see `tables.Header`.

    Args:
      sequence: Of the first of them, beyond all of this writer's number so far, those of former
        processes included; the others follow it.
      policy_step: Gradient steps of the policy that acts.
      waited_ms: What was waited for it.
    """
    self._common = self._common._replace(
      sequence=sequence, policy_step=policy_step, waited_ms=waited_ms
    )

  def count_dropped(self, number: int) -> None:
    """Adds episodes that were thrown away, of which the next one tells."""
    self._common = self._common._replace(dropped=self._common.dropped + number)

  def write(
    self,
    task_index: int,
    episode: types.Episode,
    *,
    in_context: bool,
    visit: int,
    phase: int = 0,
  ) -> None:
    """Stores one episode, all its transitions included.

    Args:
      task_index: The task it was collected on.
      episode: The episode; any length of at least one transition.
      in_context: Whether it also belongs to the task's context.
      visit: Number of the visit to the task, growing over the run. The first episode in the
        context of a later visit clears what an earlier one left.
      phase: Number of the phase of the visit.

    Raises:
      ValueError: If the episode does not fit the layout.
      TimeoutError: If the server does not confirm in time.
    """
    rows = self._layout.pack(episode)
    self.write_rows(task_index, rows, in_context=in_context, visit=visit, phase=phase)

  def write_rows(
    self,
    task_index: int,
    rows: np.ndarray,
    *,
    in_context: bool,
    visit: int,
    phase: int = 0,
    is_fresh: bool = True,
  ) -> None:
    """Stores the packed rows `[S, W] float32` of one episode, see `write`.

    Args:
      task_index: The task.
      rows: The rows.
      in_context: Whether they belong to the task's context.
      visit: Number of the visit.
      phase: Number of its phase.
      is_fresh: Whether the learner has yet to take it.
    """
    header = self._common._replace(
      task=task_index, in_context=int(in_context), visit=visit, phase=phase
    )
    stream = self._stream_for(len(rows))
    stream.append({'header': np.array(header, np.int64), 'rows': rows})
    item = {name: column[-1] for name, column in stream.history.items()}
    names = [tables.replay_name(task_index)]
    if is_fresh:
      names += self._queues  # `fresh` last: what the learner takes is already in the other tables.
    for name in names:
      stream.create_item(name, priority=1.0, trajectory=item)
    self._common = self._common._replace(sequence=header.sequence + 1, waited_ms=0, dropped=0)
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
        f'full because no learner drains it: drain more often or raise '
        f'make_tables.max_fresh_episodes.'
      ) from error
    self._num_pending = 0

  def close(self) -> None:
    """Confirms what is pending and closes the stream."""
    self.flush()
    if self._stream is not None:
      self._stream.close()
      self._stream = None

  def _stream_for(self, num_steps: int) -> reverb.TrajectoryWriter:
    """Returns a stream that takes episodes of this length.

    A whole episode is one appended step: appending its transitions one by one was measured several
    times slower, and gains nothing because items are always whole episodes. The price is that
    Reverb fixes the shape of a stream's columns at the first append, so that another length needs
    another stream. Closing the old one first keeps the order of the queue.
    """
    if self._stream is None or self._stream_num_steps != num_steps:
      self.close()
      self._stream = streams.open_stream(self._client, self._flush_timeout_ms / 1000)
      self._stream_num_steps = num_steps
    return self._stream
