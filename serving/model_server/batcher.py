"""Adaptive batching: a call runs at once if the model is idle, else with all that came meanwhile.

No timer: a lone client never waits, and the more clients there are, the larger the batches get.
The batcher belongs to one event loop; nothing here may be called from another thread.
"""

import asyncio
import collections
import itertools
import time
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent import futures
from typing import NamedTuple

import grpc
import numpy as np

from serving import errors
from serving.model_server import batch_layout, batching_config, patience, servable, signatures

Outputs = dict[str, np.ndarray]


class _Call:
  """A call that waits."""

  __slots__ = ('deadline', 'future', 'inputs', 'num_bytes', 'rows')

  def __init__(
    self,
    inputs: Mapping[str, np.ndarray],
    rows: int,
    num_bytes: int,
    deadline: float | None,
    future: asyncio.Future,
  ):
    self.inputs = inputs
    self.rows = rows
    self.num_bytes = num_bytes
    self.deadline = deadline
    self.future = future


class _Group:
  """Calls that may share a batch, oldest first; a dict, so that any of them can leave."""

  def __init__(
    self,
    key: Hashable,
    model: servable.Servable,
    signature: signatures.Signature,
    layout: batch_layout.BatchLayout,
    output_names: tuple[str, ...],
    max_rows: int,
  ):
    self.key = key
    self.model = model
    self.signature = signature
    self.layout = layout
    self.output_names = output_names
    self.max_rows = max_rows
    self.calls: dict[_Call, None] = {}


class _Done(NamedTuple):
  """What came of a batch: a result for each call, and the time it took."""

  results: list[Outputs | Exception]
  seconds: float
  cpu_seconds: float


class Batcher:
  """Runs calls of any number of models, a batch at a time in each of `num_threads` threads.

  A call must have passed `Signature.check_inputs`. Should a batch fail all the same, its calls run
  one by one, so that only the one at fault fails.
  """

  def __init__(
    self,
    config: batching_config.BatchingConfig | None = None,
    *,
    on_batch: Callable[[int, int, float], None] | None = None,
  ):
    """Makes a batcher.

    Args:
      config: Sizes and limits.
      on_batch: Told the rows, the calls and the seconds of each batch.
    """
    self._config = config or batching_config.BatchingConfig()
    self._on_batch = on_batch
    self._executor = futures.ThreadPoolExecutor(
      self._config.num_threads, thread_name_prefix='session'
    )
    # Groups in the order in which their oldest call came, or was last left behind.
    self._groups: collections.OrderedDict[Hashable, _Group] = collections.OrderedDict()
    self._layouts = weakref.WeakKeyDictionary()
    # Seconds of CPU that the last batch took, by signature, and by outputs, length and rows.
    self._costs = weakref.WeakKeyDictionary()
    self._alone = itertools.count()
    self._patience = patience.Patience()
    self._running = 0
    self._queued_bytes = 0
    self._is_scheduled = False
    self._is_closed = False
    self._idle = asyncio.Event()
    self._idle.set()
    self.queued = 0

  async def run(
    self,
    model: servable.Servable,
    signature: signatures.Signature | str,
    inputs: Mapping[str, np.ndarray],
    output_names: Sequence[str],
    *,
    deadline: float | None = None,
  ) -> Outputs:
    """Runs one call and returns its outputs, which may be views into those of its batch.

    Cancelling it takes it out of the queue; a graph that runs already is not interrupted, but the
    model stays in memory until it ends.

    Args:
      model: Borrowed by the caller for as long as this takes.
      signature: Or its name.
      inputs: Arrays by alias.
      output_names: Aliases that `Signature.select_outputs` gave.
      deadline: When the answer becomes useless, on the clock of `time.monotonic`, in seconds.

    Raises:
      ServingError: DEADLINE_EXCEEDED if it waited too long, RESOURCE_EXHAUSTED if too many wait,
        INVALID_ARGUMENT if the inputs' rows differ or are too many, UNAVAILABLE after `close`, or
        what the graph failed with.
    """
    if isinstance(signature, str):
      signature = model.signature(signature)
    if deadline is not None and deadline <= time.monotonic():
      raise _too_late()
    group = self._group(model, signature, inputs, tuple(output_names))
    rows = self._check_rows(group.layout, inputs)
    call = self._admit(inputs, rows, deadline)
    self._groups.setdefault(group.key, group).calls[call] = None
    self._patience.arrived()
    self._schedule()
    try:
      return await call.future
    finally:
      self._forget(self._groups.get(group.key), call)

  async def close(self) -> None:
    """Refuses what waits and waits for what runs."""
    self._is_closed = True
    for group in list(self._groups.values()):
      for call in list(group.calls):
        self._forget(group, call)
        call.future.set_exception(_closed())
    await self._idle.wait()
    self._executor.shutdown(wait=False)

  def _group(
    self,
    model: servable.Servable,
    signature: signatures.Signature,
    inputs: Mapping[str, np.ndarray],
    output_names: tuple[str, ...],
  ) -> _Group:
    layout = self._layouts.get(signature)
    if layout is None:
      layout = batch_layout.BatchLayout(signature, pad=self._config.pad_variable_length_inputs)
      self._layouts[signature] = layout
    if self._config.enabled and layout.is_batchable:
      bucket = layout.bucket(inputs)
    else:
      bucket = ('alone', next(self._alone))
    key = (model, signature.name, output_names, bucket)
    group = self._groups.get(key)
    if group is None:
      length = max(bucket if isinstance(bucket, int) else layout.length(inputs), 1)
      max_rows = max(min(self._config.max_batch_size, self._config.max_batch_elements // length), 1)
      group = _Group(key, model, signature, layout, output_names, max_rows)
    return group

  def _check_rows(self, layout: batch_layout.BatchLayout, inputs: Mapping[str, np.ndarray]) -> int:
    if not (self._config.enabled and layout.is_batchable):
      return 1
    rows = layout.rows(inputs)
    if rows > self._config.max_call_size:
      raise errors.invalid_argument(
        f'Task size {rows} is larger than maximum input batch size {self._config.max_call_size}'
      )
    return rows

  def _admit(self, inputs: Mapping[str, np.ndarray], rows: int, deadline: float | None) -> _Call:
    if self._is_closed:
      raise _closed()
    num_bytes = sum(value.nbytes for value in inputs.values())
    if (
      self.queued >= self._config.max_queued_calls
      or self._queued_bytes + num_bytes > self._config.max_queued_bytes
    ):
      raise errors.resource_exhausted(
        'The batch scheduling queue to which this task was submitted is full; currently '
        f'{self.queued} calls wait in it'
      )
    self.queued += 1
    self._queued_bytes += num_bytes
    return _Call(inputs, rows, num_bytes, deadline, asyncio.get_running_loop().create_future())

  def _forget(self, group: _Group | None, call: _Call) -> None:
    """Takes a call out of the queue, if it is still there."""
    if group is None or call not in group.calls:
      return
    del group.calls[call]
    self.queued -= 1
    self._queued_bytes -= call.num_bytes
    if not group.calls:
      del self._groups[group.key]

  def _schedule(self) -> None:
    # In the loop's next round, so that calls whose turn is in this one still join the batch.
    if not self._is_scheduled and self._groups and self._running < self._config.num_threads:
      self._is_scheduled = True
      asyncio.get_running_loop().call_soon(self._start_next)

  def _start_next(self) -> None:
    self._is_scheduled = False
    if (
      self._config.enabled
      and 0 < self.queued < self._config.max_batch_size
      and self._patience.should_wait()
    ):
      self._schedule()
      return
    while self._groups and self._running < self._config.num_threads:
      group = next(iter(self._groups.values()))
      batch = self._take(group)
      if not batch:
        continue
      # The calls' own leases end if they are cancelled, and the graph goes on running.
      group.model.__enter__()
      self._running += 1
      self._idle.clear()
      # Where several calls have met, more are on their way: the loop receives them meanwhile.
      if (
        len(batch) == 1
        and self._expected_seconds(group, batch[0].rows) < self._config.inline_seconds
      ):
        self._finish(group, batch, self._execute(group, batch))
        break  # The loop must see to its sockets before the next one.
      self._executor.submit(self._execute_in_thread, asyncio.get_running_loop(), group, batch)
    self._schedule()

  def _take(self, group: _Group) -> list[_Call]:
    """Takes the calls of one batch out of a group, drops those that are too late."""
    batch, rows, now = [], 0, time.monotonic()
    for call in list(group.calls):
      if call.deadline is not None and call.deadline <= now:
        self._forget(group, call)
        if not call.future.done():
          call.future.set_exception(_too_late())
        continue
      if batch and rows + call.rows > group.max_rows:
        break
      self._forget(group, call)
      if call.future.done():  # Cancelled in this very round of the loop.
        continue
      batch.append(call)
      rows += call.rows
    if group.key in self._groups:  # What is left goes behind the other groups.
      self._groups.move_to_end(group.key)
    return batch

  def _execute_in_thread(
    self, loop: asyncio.AbstractEventLoop, group: _Group, batch: Sequence[_Call]
  ) -> None:
    loop.call_soon_threadsafe(self._finish, group, batch, self._execute(group, batch))

  def _execute(self, group: _Group, batch: Sequence[_Call]) -> _Done:
    """Runs a batch in any thread."""
    # The graph runs in this thread alone. Time on the clock would count waiting for the GIL too,
    # and so make what is short look long for as long as the loop is busy.
    start, start_cpu = time.perf_counter(), time.thread_time()
    results = self._results(group, batch)
    return _Done(results, time.perf_counter() - start, time.thread_time() - start_cpu)

  def _results(self, group: _Group, batch: Sequence[_Call]) -> list[Outputs | Exception]:
    if len(batch) > 1:
      try:
        parts = self._run_batch(group, batch)
      except Exception:  # Whose fault it was, and what it was, shows when each runs alone.
        parts = None
      if parts is not None:
        return parts
    return [self._run_alone(group, call) for call in batch]

  def _run_batch(self, group: _Group, batch: Sequence[_Call]) -> list[Outputs] | None:
    rows = [call.rows for call in batch]
    inputs = group.layout.stack([call.inputs for call in batch], rows=self._allowed_size(sum(rows)))
    outputs = group.model.run(group.signature.name, inputs, group.output_names)
    return batch_layout.split(outputs, rows)

  def _run_alone(self, group: _Group, call: _Call) -> Outputs | Exception:
    inputs = call.inputs
    try:
      size = self._allowed_size(call.rows) if group.layout.is_batchable else None
      if size is None or size == call.rows or not self._config.enabled:
        return group.model.run(group.signature.name, inputs, group.output_names)
      outputs = group.model.run(
        group.signature.name, group.layout.stack([inputs], rows=size), group.output_names
      )
      parts = batch_layout.split(outputs, [call.rows])
      # An output without a row for each row cannot be cut, so the call runs as it came.
      return (
        parts[0] if parts else group.model.run(group.signature.name, inputs, group.output_names)
      )
    except Exception as error:
      return errors.from_exception(error)

  def _allowed_size(self, rows: int) -> int | None:
    sizes = self._config.allowed_batch_sizes
    return next((size for size in sizes if size >= rows), None)

  def _expected_seconds(self, group: _Group, rows: int) -> float:
    if not self._config.enabled:
      return float('inf')
    return self._costs.get(group.signature, {}).get(_cost_key(group, rows), float('inf'))

  def _finish(self, group: _Group, batch: Sequence[_Call], done: _Done) -> None:
    rows = sum(call.rows for call in batch)
    self._patience.ran(len(batch))
    costs = self._costs.setdefault(group.signature, {})
    costs[_cost_key(group, rows)] = done.cpu_seconds
    self._running -= 1
    if not self._running:
      self._idle.set()
    for call, result in zip(batch, done.results, strict=True):
      if call.future.done():
        continue
      if isinstance(result, Exception):
        call.future.set_exception(result)
      else:
        call.future.set_result(result)
    group.model.__exit__(None, None, None)
    if self._on_batch is not None:
      self._on_batch(rows, len(batch), done.seconds)
    self._schedule()


def _cost_key(group: _Group, rows: int) -> Hashable:
  """What batches that cost about the same have in common; there are few such keys."""
  bucket = group.key[-1]
  # Clients choose exact shapes, so those share one entry.
  return group.output_names, bucket if isinstance(bucket, int) else None, rows.bit_length()


def _too_late() -> errors.ServingError:
  return errors.ServingError(
    grpc.StatusCode.DEADLINE_EXCEEDED, 'Run() timeout exceeded while waiting in batching queue'
  )


def _closed() -> errors.ServingError:
  return errors.ServingError(grpc.StatusCode.UNAVAILABLE, 'the server is shutting down')
