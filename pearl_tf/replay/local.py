"""The replay of a run in one process: server, writer, and the learner's cache with its feeder.

The parts know each other by the server's address alone, so that a program may hold one of them.
"""

from collections.abc import Callable

import reverb

from pearl_tf.replay import cache as cache_lib
from pearl_tf.replay import feeder, packing, server, tables, writer

_MAX_PENDING_EPISODES = 16


class Replay:
  """All of it, connected with each other."""

  def __init__(
    self,
    layout: packing.PackedLayout,
    num_tasks: int,
    *,
    capacity: int,
    cache_class: Callable[..., cache_lib.ReplayCache] = cache_lib.ReplayCache,
    make_tables: Callable[..., list[reverb.Table]] = tables.make_tables,
  ):
    """Starts the server, empty.

    Args:
      layout: layout of the rows.
      num_tasks: number of training tasks.
      capacity: transitions that the cache may hold.
      cache_class: makes the cache.
      make_tables: makes the tables.
    """
    self.cache = cache_class(layout, num_tasks, capacity=capacity)
    self.server = server.ReplayServer(layout, num_tasks, make_tables=make_tables)
    try:
      self.writer = writer.ReplayWriter(
        reverb.Client(self.server.address), layout, max_pending_episodes=_MAX_PENDING_EPISODES
      )
      self._feeder = feeder.Feeder(self.cache, self.server.address)
    except BaseException:
      self.server.stop()  # Otherwise the process would wait for it for minutes when it ends.
      raise

  def drain(self) -> int:
    """Takes what was collected since the last call into the learner's cache."""
    return self._feeder.drain()

  def refill_tables(self) -> None:
    """Puts what the cache was restored with back into the tables, which start empty.

    A checkpoint holds the transitions once, as the cache has them.
    """
    for task in range(self.cache.num_tasks):
      visit = self.cache.visit(task)
      for rows, in_context in self.cache.trajectories(task):
        self.writer.write_rows(task, rows, in_context=in_context, visit=visit, is_fresh=False)
    self.writer.flush()

  def stop(self) -> None:
    """Closes the writer and stops the server."""
    try:
      self.writer.close()
    finally:
      self.server.stop()
