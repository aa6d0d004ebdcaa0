"""The learner's side of a replay: its cache, fed from a server wherever that is."""

import reverb

from pearl_tf.replay import cache as cache_lib
from pearl_tf.replay import feeder, writer


class Memory:
  """What a learner has of a replay.

  Attributes:
    cache: what it learns from.
    feeder: fills the cache; nobody else may drain `fresh` of the server.
  """

  def __init__(self, cache: cache_lib.ReplayCache, server_address: str):
    """Connects an empty cache with a server."""
    self.cache = cache
    self.feeder = feeder.Feeder(cache, server_address)
    self._server_address = server_address

  def drain(self) -> feeder.Delivered:
    """Takes what was collected since the last call into the cache."""
    return self.feeder.drain()

  def refill_tables(self) -> int:
    """Puts what the cache holds into the tables of a server that starts empty.

    A checkpoint holds the transitions once, as the cache has them.

    Returns:
      The number of trajectories.
    """
    filling = writer.ReplayWriter(reverb.Client(self._server_address), self.cache.layout)
    number = 0
    for task in range(self.cache.num_tasks):
      visit = self.cache.visit(task)
      for rows, in_context in self.cache.trajectories(task):
        filling.write_rows(task, rows, in_context=in_context, visit=visit, is_fresh=False)
        number += 1
    filling.close()
    return number
