"""The replay of a run in one process: server, writer, and the learner's side of it.

The parts know each other by the server's address alone, so that a program may hold one of them.
"""

from collections.abc import Callable

import reverb

from pearl_tf.replay import cache as cache_lib
from pearl_tf.replay import feeder, memory, server, tables, writer

_MAX_PENDING_EPISODES = 16


class Replay:
  """All of it, connected with each other."""

  def __init__(
    self,
    cache: cache_lib.ReplayCache,
    *,
    make_tables: Callable[..., list[reverb.Table]] = tables.make_tables,
  ):
    """Starts the server, empty.

    Args:
      cache: what the learner learns from.
      make_tables: makes the tables.
    """
    self.cache = cache
    self.server = server.ReplayServer(make_tables(cache.layout, cache.num_tasks))
    try:
      self.writer = writer.ReplayWriter(
        reverb.Client(self.server.address), cache.layout, max_pending_episodes=_MAX_PENDING_EPISODES
      )
      self._memory = memory.Memory(cache, self.server.address)
    except BaseException:
      self.server.stop()  # Otherwise the process would wait for it for minutes when it ends.
      raise

  def drain(self) -> feeder.Delivered:
    """Takes what was collected since the last call into the learner's cache."""
    return self._memory.drain()

  def refill_tables(self) -> None:
    """Puts what the cache was restored with back into the tables, which start empty."""
    self._memory.refill_tables()

  def stop(self) -> None:
    """Closes the writer and stops the server."""
    try:
      self.writer.close()
    finally:
      self.server.stop()
