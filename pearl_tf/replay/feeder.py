"""From the server's `fresh` queue into the learner's cache.

The queue hands out each trajectory exactly once and in the order of insertion, so a cache fed from
it is the same from run to run. The learner calls `drain` between rounds of training steps.
"""

import reverb

from pearl_tf.replay import cache as cache_lib
from pearl_tf.replay import packing, tables


class Feeder:
  """Moves trajectories from a server into a cache."""

  def __init__(
    self,
    server_address: str,
    layout: packing.PackedLayout,
    *,
    timeout_seconds: float = 60.0,
  ):
    """Connects to a server.

    Args:
      server_address: `host:port` of the replay server.
      layout: Layout of the rows.
      timeout_seconds: How long an item that the server reports may take to arrive.

    Raises:
      ValueError: If the timeout is not positive.
    """
    if timeout_seconds <= 0:
      raise ValueError(f'timeout_seconds must be positive, got {timeout_seconds}.')
    self._server_address = server_address
    self._client = reverb.Client(server_address)
    self._signature = tables.signature(layout)
    self._timeout_ms = int(timeout_seconds * 1000)

  def drain(self, cache: cache_lib.ReplayCache) -> int:
    """Takes everything that is in `fresh` now into the cache, in the order it was inserted.

    Nothing is waited for: the number of items is asked for first. What writers have not flushed is
    not there yet.

    Args:
      cache: The cache; the only consumer of the queue.

    Returns:
      The number of transitions taken.

    Raises:
      RuntimeError: If fewer items arrive than the server reported, so that somebody else drains the
        queue too.
    """
    num_items = self._client.server_info()[tables.FRESH].current_size
    if not num_items:
      return 0
    num_taken = num_transitions = 0
    for item in self._items(num_items):
      task_index, in_context, generation = item['header'].numpy().tolist()
      cache.add(task_index, item['rows'], in_context=bool(in_context), generation=generation)
      num_taken += 1
      num_transitions += item['rows'].shape[0]
    if num_taken < num_items:
      raise RuntimeError(
        f'Table {tables.FRESH!r} of {self._server_address} held {num_items} trajectories, but only '
        f'{num_taken} arrived within {self._timeout_ms / 1000:g} s. Only one learner may drain it.'
      )
    return num_transitions

  def _items(self, num_items: int):
    # One worker, or the order of the queue is lost; `max_samples`, or items beyond these would be
    # prefetched and lost with the iterator.
    dataset = reverb.TrajectoryDataset(
      server_address=self._server_address,
      table=tables.FRESH,
      dtypes={name: spec.dtype for name, spec in self._signature.items()},
      shapes={name: spec.shape for name, spec in self._signature.items()},
      max_in_flight_samples_per_worker=min(num_items, 64),
      num_workers_per_iterator=1,
      max_samples=num_items,
      rate_limiter_timeout_ms=self._timeout_ms,
    )
    for sample in dataset:
      yield sample.data
