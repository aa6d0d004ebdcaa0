"""From the server's `fresh` queue into the learner's cache.

The queue hands out each trajectory exactly once and in the order of insertion, so a cache fed from
it is the same from run to run. The learner calls `drain` between rounds of training steps. What a
writer sends again, or what is in `unsaved` and in `fresh`, is known by its number and left out.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import reverb
import tensorflow as tf

from pearl_tf.replay import cache as cache_lib
from pearl_tf.replay import streams, tables

MAX_WRITERS = 4096
_ANSWER_SECONDS = 60


class Delivered(NamedTuple):
  """What a call of `Feeder.drain` took, trajectory by trajectory.

  Attributes:
    headers: `[n, 9] int64`, see `tables.Header`.
    lengths: `[n] int32`, transitions.
    returns: `[n] float32`, sums of the context reward.
  """

  headers: np.ndarray
  lengths: np.ndarray
  returns: np.ndarray

  @property
  def num_transitions(self) -> int:
    """Transitions of all of them together."""
    return int(self.lengths.sum())

  @property
  def header(self) -> tables.Header:
    """The headers' columns by name, each `[n] int64`."""
    return tables.Header(*self.headers.T)


_NOTHING = Delivered(
  np.zeros([0, tables.HEADER_SIZE], np.int64), np.zeros([0], np.int32), np.zeros([0], np.float32)
)


class UndeliveredError(RuntimeError):
  """Fewer items arrived than the server reported.

  Attributes:
    delivered: what did arrive, and is in the cache.
  """

  def __init__(self, message: str, delivered: Delivered):
    """Keeps what arrived."""
    super().__init__(message)
    self.delivered = delivered


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
    with tf.device('/CPU:0'):
      self._newest = tf.Variable(tf.zeros([MAX_WRITERS], tf.int64), trainable=False)
    # The loop over the items runs in the graph: in Python it costs a millisecond per trajectory.
    self._take = tf.function(self._take_all)

  @property
  def newest(self) -> dict[int, int]:
    """Number of the last trajectory taken of each writer; plain data, for a checkpoint."""
    newest = self._newest.numpy()
    return {int(writer): int(newest[writer]) for writer in np.flatnonzero(newest)}

  def restore(self, newest: Mapping[int | str, int]) -> None:
    """Takes back what `newest` was, so that nothing is taken that the cache has already."""
    values = np.zeros([MAX_WRITERS], np.int64)
    for writer, number in newest.items():
      values[int(writer)] = number
    self._newest.assign(values)

  def drain(self, table: str = tables.FRESH) -> Delivered:
    """Takes everything that is in a queue now into the cache, in the order it was inserted.

    Nothing is waited for: the number of items is asked for first. What writers have not flushed is
    not there yet.

    Args:
      table: `fresh`, or `unsaved` once after a learner was restored.

    Returns:
      What was taken.

    Raises:
      UndeliveredError: If fewer items arrive than the server reported, so that somebody else drains
        the queue too, or if the server does not answer.
    """
    sizes = streams.table_sizes(self._client, _ANSWER_SECONDS)
    if sizes is None:
      raise UndeliveredError(f'The server at {self._server_address} does not answer.', _NOTHING)
    num_items = sizes[table]
    if not num_items:
      return _NOTHING
    num_taken, *parts = self._take(iter(self._dataset(table, num_items)))
    delivered = Delivered(*(part.numpy() for part in parts))
    if int(num_taken) != num_items:
      raise UndeliveredError(
        f'Table {table!r} of {self._server_address} held {num_items} trajectories, but only '
        f'{int(num_taken)} arrived within {self._timeout_ms / 1000:g} s. Only one learner may '
        f'drain it.',
        delivered,
      )
    return delivered

  def _dataset(self, table: str, num_items: int) -> tf.data.Dataset:
    signature = tables.signature(self._cache.layout)
    # One worker, or the order of the queue is lost; `max_samples`, or items beyond these would be
    # prefetched and lost with the iterator.
    return reverb.TrajectoryDataset(
      server_address=self._server_address,
      table=table,
      dtypes={name: spec.dtype for name, spec in signature.items()},
      shapes={name: spec.shape for name, spec in signature.items()},
      max_in_flight_samples_per_worker=min(num_items, 64),
      num_workers_per_iterator=1,
      max_samples=num_items,
      rate_limiter_timeout_ms=self._timeout_ms,
    )

  def _take_all(self, iterator: tf.data.Iterator) -> tuple[tf.Tensor, ...]:
    """Returns the number of items, and of those not taken before headers, lengths and returns."""
    num_items, num_new = tf.constant(0), tf.constant(0)
    headers = tf.TensorArray(tf.int64, 0, dynamic_size=True, element_shape=[tables.HEADER_SIZE])
    lengths = tf.TensorArray(tf.int32, 0, dynamic_size=True, element_shape=[])
    returns = tf.TensorArray(tf.float32, 0, dynamic_size=True, element_shape=[])
    for sample in iterator:
      rows = sample.data['rows']
      header = tables.Header(*tf.unstack(sample.data['header']))
      if header.sequence > self._newest[header.writer]:
        self._newest.scatter_update(tf.IndexedSlices(header.sequence, header.writer))
        self._cache.append(
          tf.cast(header.task, tf.int32), rows, tf.cast(header.in_context, tf.bool), header.visit
        )
        headers = headers.write(num_new, sample.data['header'])
        lengths = lengths.write(num_new, tf.shape(rows)[0])
        rewards = self._cache.layout.unpack_context(rows).reward
        returns = returns.write(num_new, tf.reduce_sum(rewards))
        num_new += 1
      num_items += 1
    return num_items, headers.stack(), lengths.stack(), returns.stack()
