"""The replay of a run in one process: server, writer, the learner's cache and sampler."""

import pathlib
from collections.abc import Callable

import reverb

from pearl_tf.replay import (
  batch_rule,
  cache,
  direct_sampler,
  feeder,
  packing,
  server,
  tables,
  writer,
)


class Replay:
  """All of it, connected with each other."""

  def __init__(
    self,
    layout: packing.PackedLayout,
    num_tasks: int,
    *,
    rule: batch_rule.BatchRule,
    sizes: dict[str, int],
    capacity: int | None,
    cache_class: Callable[..., cache.ReplayCache] = cache.ReplayCache,
    sampler_class: Callable[..., direct_sampler.DirectSampler] = direct_sampler.DirectSampler,
    make_tables: Callable[..., list[reverb.Table]] = tables.make_tables,
    restore_from: pathlib.Path | None = None,
    scratch_directory: pathlib.Path | None = None,
  ):
    """Starts the server.

    Args:
      layout: layout of the rows.
      num_tasks: number of training tasks.
      rule: how training batches are drawn.
      sizes: `meta_batch_size`, `context_size` and `batch_size` of these.
      capacity: transitions that the cache holds; None for no cache, the tables are drawn from then.
      cache_class: makes the cache.
      sampler_class: makes the sampler of the tables.
      make_tables: makes the tables.
      restore_from: replay part of a checkpoint; None starts empty.
      scratch_directory: where checkpoints are written before they are moved to their place.
    """
    self.server = server.ReplayServer(
      layout,
      num_tasks,
      restore_from=restore_from,
      scratch_directory=scratch_directory,
      make_tables=make_tables,
    )
    try:
      has_cache = capacity is not None
      # Nothing is copied for a learner that samples from the tables: they may exceed its memory.
      self.writer = writer.ReplayWriter(
        self.server.client, layout, max_pending_episodes=16, feed_cache=has_cache
      )
      self.cache = self._feeder = None
      if has_cache:
        self.cache = cache_class(
          layout, num_tasks, capacity=capacity, keep_trajectories=rule.needs_trajectories
        )
        self._feeder = feeder.Feeder(self.cache, self.server.address)
        self.sampler = cache.CacheSampler(self.cache, rule=rule, **sizes)
      else:
        self.sampler = sampler_class(self.server.address, layout, num_tasks, **sizes)
    except BaseException:
      self.server.stop()  # Otherwise the process would wait for it for minutes when it ends.
      raise

  def drain(self) -> int:
    """Takes what was collected since the last call into the learner's cache."""
    return self._feeder.drain() if self._feeder is not None else 0

  def stop(self) -> None:
    """Closes the writer and stops the server."""
    try:
      self.writer.close()
    finally:
      self.server.stop()
