"""Adaptive batching: a call runs at once if the model is idle, else with all that came meanwhile.

No timer: a lone client never waits, and the more clients there are, the larger the batches get. A
lone call that should be quick runs in the event loop, as handing it to a thread and back takes some
tenths of a millisecond, on a busy machine far more.
The batcher belongs to one event loop; nothing here may be called from another thread.
"""

import asyncio
import collections
import math
import time
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent import futures

import grpc
import numpy as np

from serving.server import errors, servable, signature

Outputs = dict[str, np.ndarray]
MAX_ROWS = 64
"""Rows of a batch; calls are added to it while they fit."""
_MAX_BATCH_STEPS = 4096
INLINE_SECONDS = 1e-3
"""A lone call that should take less runs in the event loop."""
# Where calls meet, a batch waits so many rounds of the loop without a new call, and so many in all.
_MOST_EMPTY_ROUNDS = 8
_MOST_ROUNDS = 64


class _Call:
  """A call that waits."""

  __slots__ = ('deadline', 'future', 'inputs', 'output_names', 'rows')

  def __init__(self, inputs, rows: int, output_names, deadline: float | None, future):
    self.inputs = inputs
    self.rows = rows
    self.output_names = output_names
    self.deadline = deadline
    self.future = future


class _Group:
  """Calls that may share a batch, oldest first."""

  def __init__(self, model: servable.Servable, found: signature.Signature, length: int):
    self.model = model
    self.signature = found
    self.length = length
    # The cost of sequences grows with their length, so that a larger batch of long ones saves
    # nothing and makes its first call wait for the last.
    self.max_rows = max(min(MAX_ROWS, _MAX_BATCH_STEPS // length), 1)
    self.calls: collections.deque[_Call] = collections.deque()


class Patience:
  """Learns from the sizes of the batches how many rounds without a new call are worth waiting.

  Calls of concurrent clients seldom get as far in the very same round of the loop: each takes
  several, for its headers, its message and its handler. So where calls have been meeting, a batch
  waits a few rounds, as long as they go on coming; a lone client's calls never meet anybody, and do
  not wait at all. Rounds are no time: on an idle loop they pass in microseconds, on a busy one they
  do other work.
  """

  def __init__(self):
    self._limit = 0
    self._empty = 0
    self._rounds = 0
    self._has_news = False

  @property
  def is_alone(self) -> bool:
    """Whether calls have not been meeting."""
    return not self._limit

  def arrived(self) -> None:
    """Notes that a call came."""
    self._has_news = True

  def should_wait(self) -> bool:
    """Tells, once a round, whether to wait for the next; the answer no starts a new wait."""
    self._rounds += 1
    self._empty = 0 if self._has_news else self._empty + 1
    self._has_news = False
    if self._empty < self._limit and self._rounds < _MOST_ROUNDS:
      return True
    self._empty = self._rounds = 0
    return False

  def ran(self, num_calls: int) -> None:
    """Learns from a batch."""
    if num_calls > 1:
      self._limit = min(self._limit + 2, _MOST_EMPTY_ROUNDS)
    else:
      self._limit = max(self._limit - 1, 0)


class Batcher:
  """Runs calls, a batch at a time, in a thread of its own.

  Should a batch fail, its calls run one by one, so that only the one at fault fails.

  Args:
    on_batch: told the rows of each batch.
  """

  def __init__(self, on_batch: Callable[[int], None] = lambda rows: None):
    self._on_batch = on_batch
    self._executor = futures.ThreadPoolExecutor(1, thread_name_prefix='session')
    # In the order in which their oldest call came, or was last left behind.
    self._groups: collections.OrderedDict[Hashable, _Group] = collections.OrderedDict()
    self._patience = Patience()
    # The least seconds that a batch took, by model, signature and size. (Others than the least
    # count waiting for the GIL and for the processor.)
    self._costs = weakref.WeakKeyDictionary()
    self._is_scheduled = False
    self._is_closed = False
    self._idle = asyncio.Event()
    self._idle.set()

  async def run(
    self,
    model: servable.Servable,
    found: signature.Signature,
    inputs: Mapping[str, np.ndarray],
    output_names: Sequence[str],
    *,
    deadline: float | None = None,
  ) -> Outputs:
    """Runs one call and returns its outputs, which may be views into those of its batch.

    Cancelling it takes it out of the queue; a graph that runs already is not interrupted, but the
    model stays in memory until it ends.

    Args:
      model: borrowed by the caller for as long as this takes.
      found: one of its signatures.
      inputs: arrays by alias that passed `Signature.check_inputs`.
      output_names: aliases that `Signature.select_outputs` gave.
      deadline: when the answer becomes useless, on the clock of `time.monotonic`, in seconds.

    Raises:
      ServingError: DEADLINE_EXCEEDED if it waited too long, UNAVAILABLE after `close`, or what the
        graph failed with.
    """
    if self._is_closed:
      raise _closed()
    future = asyncio.get_running_loop().create_future()
    rows = len(next(iter(inputs.values()))) if found.is_batchable else 1
    call = _Call(inputs, rows, output_names, deadline, future)
    # A call that cannot share a batch is a group of its own.
    key = (model, found.name, _shapes(found, inputs)) if found.is_batchable else call
    group = self._groups.get(key)
    if group is None:
      group = self._groups[key] = _Group(model, found, _length(found, inputs))
    group.calls.append(call)
    self._patience.arrived()
    self._schedule()
    return await future

  async def close(self) -> None:
    """Refuses what waits and waits for what runs."""
    self._is_closed = True
    for group in self._groups.values():
      for call in group.calls:
        if not call.future.done():
          call.future.set_exception(_closed())
    self._groups.clear()
    await self._idle.wait()
    self._executor.shutdown(wait=False)

  def _schedule(self) -> None:
    # In the loop's next round, so that calls whose turn is in this one still join the batch.
    if not self._is_scheduled and self._groups and self._idle.is_set():
      self._is_scheduled = True
      asyncio.get_running_loop().call_soon(self._start_next)

  def _start_next(self) -> None:
    self._is_scheduled = False
    if not self._groups:
      return
    if self._patience.should_wait():
      self._schedule()
      return
    key, group = next(iter(self._groups.items()))
    batch = _take(group)
    if group.calls:  # What is left goes behind the other groups.
      self._groups.move_to_end(key)
    else:
      del self._groups[key]
    if not batch:
      self._schedule()
      return
    # The calls' own leases end if they are cancelled, and the graph goes on running.
    group.model.__enter__()
    self._idle.clear()
    costs = self._costs.setdefault(group.model, {})
    # Where calls meet, the loop receives the next ones meanwhile.
    if self._patience.is_alone and costs.get(_size(group, batch), math.inf) < INLINE_SECONDS:
      self._finish(group, batch, *_results(group, batch))
    else:
      self._executor.submit(self._execute, asyncio.get_running_loop(), group, batch)

  def _execute(self, loop: asyncio.AbstractEventLoop, group: _Group, batch: list[_Call]) -> None:
    """Runs a batch in the thread."""
    loop.call_soon_threadsafe(self._finish, group, batch, *_results(group, batch))

  def _finish(
    self,
    group: _Group,
    batch: list[_Call],
    results: list[Outputs | errors.ServingError],
    seconds: float,
  ) -> None:
    self._patience.ran(len(batch))
    costs, size = self._costs[group.model], _size(group, batch)
    costs[size] = min(costs.get(size, math.inf), seconds)
    self._idle.set()
    group.model.__exit__(None, None, None)
    for call, result in zip(batch, results, strict=True):
      if call.future.done():
        continue
      if isinstance(result, Exception):
        call.future.set_exception(result)
      else:
        call.future.set_result(result)
    self._on_batch(sum(call.rows for call in batch))
    self._schedule()


def _shapes(found: signature.Signature, inputs: Mapping[str, np.ndarray]) -> Hashable:
  """Returns what must be equal for two calls to share a batch."""
  if not found.has_sequences:
    return None
  return tuple(value.shape[1:] for value in inputs.values()), tuple(inputs)


def _length(found: signature.Signature, inputs: Mapping[str, np.ndarray]) -> int:
  """Returns the length of the longest sequence, 1 without any."""
  if not found.has_sequences:
    return 1
  return max([1, *(value.shape[1] for value in inputs.values() if value.ndim > 1)])


def _size(group: _Group, batch: list[_Call]) -> Hashable:
  """Returns what batches that cost about the same have in common; there are few such keys."""
  steps = sum(call.rows for call in batch) * group.length
  return group.signature.name, steps.bit_length()


def _take(group: _Group) -> list[_Call]:
  """Takes the calls of one batch out of a group, drops those that are too late or cancelled."""
  batch, rows, now = [], 0, time.monotonic()
  while group.calls:
    call = group.calls[0]
    if batch and rows + call.rows > group.max_rows:
      break
    group.calls.popleft()
    if call.future.done():
      continue
    if call.deadline is not None and call.deadline <= now:
      call.future.set_exception(
        errors.ServingError(
          grpc.StatusCode.DEADLINE_EXCEEDED,
          'Run() timeout exceeded while waiting in batching queue',
        )
      )
      continue
    batch.append(call)
    rows += call.rows
  return batch


def _results(
  group: _Group, batch: list[_Call]
) -> tuple[list[Outputs | errors.ServingError], float]:
  """Runs a batch in this thread; returns what came of each call, and the seconds it took."""
  began = time.perf_counter()
  together = None
  if len(batch) > 1:
    try:
      together = _run_together(group, batch)
    except Exception:  # Whose fault it was, and what it was, shows when each runs alone.
      together = None
  results = together or [_run_alone(group, call) for call in batch]
  return results, time.perf_counter() - began


def _run_together(group: _Group, batch: list[_Call]) -> list[Outputs]:
  inputs = {
    alias: np.concatenate([call.inputs[alias] for call in batch]) for alias in batch[0].inputs
  }
  outputs = group.model.run(group.signature.name, inputs, tuple(group.signature.outputs))
  total = sum(call.rows for call in batch)
  for alias, value in outputs.items():
    if len(value) != total:
      raise ValueError(f'output {alias} has {len(value)} rows for a batch of {total}')
  parts, start = [], 0
  for call in batch:
    end = start + call.rows
    parts.append({alias: outputs[alias][start:end] for alias in call.output_names})
    start = end
  return parts


def _run_alone(group: _Group, call: _Call) -> Outputs | errors.ServingError:
  try:
    return group.model.run(group.signature.name, call.inputs, call.output_names)
  except Exception as error:
    return errors.from_exception(error)


def _closed() -> errors.ServingError:
  return errors.ServingError(grpc.StatusCode.UNAVAILABLE, 'the server is shutting down')
