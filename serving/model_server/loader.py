"""Loads and frees servables in a thread of its own, one at a time, beside the serving loop."""

import asyncio
import gc
import pathlib
import time
from collections.abc import Callable
from concurrent import futures

from absl import logging

from serving import errors
from serving.model_server import graph_session, servable

LoadObserver = Callable[[str, int, float, errors.ServingError | None], None]


class Loader:
  """The thread that loads.

  One only, so that several large models do not need their peak memory at the same time.
  """

  def __init__(self, *, warm_up: bool = True, on_load: LoadObserver | None = None):
    """Makes a loader.

    Args:
      warm_up: Whether to replay warm-up records.
      on_load: Told name, version, seconds and error, if any, after each attempt.
    """
    self._warm_up = warm_up
    self._on_load = on_load
    self._executor = futures.ThreadPoolExecutor(1, thread_name_prefix='loader')
    # What is imported by now stays; the collections after each unload need not look at it.
    gc.collect()
    gc.freeze()

  async def load(self, name: str, version: int, path: pathlib.Path) -> servable.Servable:
    """Loads a version.

    Raises:
      ServingError: As `Servable.load`.
    """
    start = time.monotonic()
    loop = asyncio.get_running_loop()
    try:
      model = await loop.run_in_executor(self._executor, self._load, name, version, path)
    except errors.ServingError as error:
      logging.error('%s version %d cannot be served: %s', name, version, error)
      self._report(name, version, time.monotonic() - start, error)
      raise
    logging.info('loaded %s version %d in %.2f s', name, version, time.monotonic() - start)
    self._report(name, version, time.monotonic() - start, None)
    return model

  async def free(self, model: servable.Servable) -> None:
    """Waits until nobody borrows a servable any more, and frees it."""
    loop = asyncio.get_running_loop()
    idle = asyncio.Event()
    model.retire(lambda: loop.call_soon_threadsafe(idle.set))
    while True:
      await idle.wait()
      idle.clear()
      if await loop.run_in_executor(self._executor, _free, model):
        logging.info('freed %s version %d', model.name, model.version)
        return

  def close(self) -> None:
    """Starts no more loads; one that runs is not waited for."""
    self._executor.shutdown(wait=False, cancel_futures=True)

  def _report(
    self, name: str, version: int, seconds: float, error: errors.ServingError | None
  ) -> None:
    if self._on_load is not None:
      self._on_load(name, version, seconds, error)

  def _load(self, name: str, version: int, path: pathlib.Path) -> servable.Servable:
    return servable.Servable.load(path, name=name, version=version, warm_up=self._warm_up)


def _free(model: servable.Servable) -> bool:
  if not model.close():
    return False
  graph_session.release_memory()
  return True
