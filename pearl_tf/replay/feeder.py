"""From the server's `fresh` queue into the learner's cache.

The queue hands out each trajectory exactly once and in the order of insertion, so a cache fed from
it is the same from run to run. The learner calls `drain` between rounds of training steps.
"""

import reverb
import tensorflow as tf

from pearl_tf.replay import cache as cache_lib
from pearl_tf.replay import tables


class Feeder:
  """Moves trajectories from a server into a cache; the only consumer of the queue."""

  def __init__(
    self, cache: cache_lib.ReplayCache, server_address: str, *, timeout_seconds: float = 60.0
  ):
    """Connects to a server.

    Args:
      cache: The cache to feed.
      server_address: `host:port` of the replay server.
      timeout_seconds: How long an item that the server reports may take to arrive.

    Raises:
      ValueError: If the timeout is not positive.
    """
    if timeout_seconds <= 0:
      raise ValueError(f'timeout_seconds must be positive, got {timeout_seconds}.')
    self._cache = cache
    self._server_address = server_address
    self._client = reverb.Client(server_address)
    self._timeout_ms = int(timeout_seconds * 1000)
    # The loop over the items runs in the graph: in Python it costs a millisecond per trajectory.
    self._take = tf.function(self._take_all)

  def drain(self) -> int:
    """Takes everything that is in `fresh` now into the cache, in the order it was inserted.

    Nothing is waited for: the number of items is asked for first. What writers have not flushed is
    not there yet.

    Returns:
      The number of transitions taken.

    Raises:
      RuntimeError: If fewer items arrive than the server reported, so that somebody else drains the
        queue too.
    """
    num_items = self._client.server_info()[tables.FRESH].current_size
    if not num_items:
      return 0
    num_taken, num_transitions = self._take(iter(self._dataset(num_items)))
    if int(num_taken) != num_items:
      raise RuntimeError(
        f'Table {tables.FRESH!r} of {self._server_address} held {num_items} trajectories, but only '
        f'{int(num_taken)} arrived within {self._timeout_ms / 1000:g} s. Only one learner may '
        f'drain it.'
      )
    return int(num_transitions)

  def _dataset(self, num_items: int) -> tf.data.Dataset:
    signature = tables.signature(self._cache.layout)
    # One worker, or the order of the queue is lost; `max_samples`, or items beyond these would be
    # prefetched and lost with the iterator.
    return reverb.TrajectoryDataset(
      server_address=self._server_address,
      table=tables.FRESH,
      dtypes={name: spec.dtype for name, spec in signature.items()},
      shapes={name: spec.shape for name, spec in signature.items()},
      max_in_flight_samples_per_worker=min(num_items, 64),
      num_workers_per_iterator=1,
      max_samples=num_items,
      rate_limiter_timeout_ms=self._timeout_ms,
    )

  def _take_all(self, iterator: tf.data.Iterator) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the numbers of trajectories and of transitions."""
    num_taken = tf.constant(0)
    num_transitions = tf.constant(0)
    for sample in iterator:
      header, rows = sample.data['header'], sample.data['rows']
      self._cache.append(
        tf.cast(header[tables.HEADER_TASK], tf.int32),
        rows,
        tf.cast(header[tables.HEADER_IN_CONTEXT], tf.bool),
        header[tables.HEADER_VISIT],
      )
      num_taken += 1
      num_transitions += tf.shape(rows)[0]
    return num_taken, num_transitions
