"""The versions of the model: which there are, which are loaded, and which one answers.

A new version is loaded before an old one goes, and the old one stays if the new one fails. What
failed is tried again when its files have changed: it may have been looked at while it was copied.
"""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import re
import time
from collections.abc import Callable
from concurrent import futures

import grpc
from absl import logging
from tensorflow_serving.apis import get_model_status_pb2

from serving.server import errors, servable

State = get_model_status_pb2.ModelVersionStatus
_NUMBER = re.compile(r'[0-9]{1,19}')
_MAX_INT64 = 2**63 - 1
# Versions that are gone and still reported.
_MAX_GONE = 100
_LEASE_POLL_SECONDS = 0.02


@dataclasses.dataclass
class Version:
  """What is known of a version.

  Attributes:
    state: as GetModelStatus tells it.
    error: why it ended, if it failed.
    model: while it is available.
    files: name, size and time of change of its files when it was last loaded.
  """

  state: int = State.START
  error: errors.ServingError | None = None
  model: servable.Servable | None = None
  files: frozenset[tuple[str, int, int]] = frozenset()


class Models:
  """Serves the newest versions in the folder of one model; belongs to one event loop.

  The calls that requests make (`resolve`, `statuses`, `is_ready`) never wait.

  Args:
    name: of the model.
    base_path: folder with a folder per version.
    keep: how many versions to serve.
    poll_seconds: time between two looks at the folder.
    on_load: told after each attempt to load whether it succeeded.
  """

  def __init__(
    self,
    name: str,
    base_path: pathlib.Path,
    *,
    keep: int = 2,
    poll_seconds: float = 1.0,
    on_load: Callable[[bool], None] = lambda succeeded: None,
  ):
    self.name = name
    self._base_path = base_path
    self._keep = keep
    self._poll_seconds = poll_seconds
    self._on_load = on_load
    self._versions: dict[int, Version] = {}
    self._latest: servable.Servable | None = None
    self._unreadable = ''
    # One thread, so that several versions do not need their peak memory at the same time.
    self._executor = futures.ThreadPoolExecutor(1, thread_name_prefix='loader')
    self._follower: asyncio.Task | None = None
    self._unloads: set[asyncio.Task] = set()

  async def start(self) -> None:
    """Loads the model and goes on looking for versions.

    Waits for ever for a model without any version, as TensorFlow Serving does.

    Raises:
      ServingError: UNKNOWN if there are versions but none of them can be served.
    """
    await self.poll()
    while not self._versions:
      await asyncio.sleep(self._poll_seconds)
      await self.poll()
    if not self.is_ready():
      number, newest = max(self._versions.items())
      raise errors.ServingError(
        grpc.StatusCode.UNKNOWN,
        '1 servable(s) did not become available: '
        f'{{name: {self.name} version: {number} error: {newest.error.message}}}',
      )
    self._follower = asyncio.create_task(self._follow())

  async def stop(self, *, grace_seconds: float = 5.0) -> None:
    """Frees all versions.

    Args:
      grace_seconds: how long to wait for those that are still used.
    """
    if self._follower is not None:
      self._follower.cancel()
      await asyncio.gather(self._follower, return_exceptions=True)
    for number in list(self._versions):
      self._drop(number)
    if self._unloads:
      _, late = await asyncio.wait(self._unloads, timeout=grace_seconds)
      for unload in late:
        unload.cancel()
      if late:
        logging.warning('%d versions were still in use after %g s', len(late), grace_seconds)
    self._executor.shutdown(wait=False, cancel_futures=True)

  def resolve(self, name: str, version: int | None = None) -> servable.Servable:
    """Returns the servable for a request, to be borrowed at once: `with models.resolve(...) as s`.

    Args:
      name: of the model.
      version: its number; None for the largest available.

    Raises:
      ServingError: NOT_FOUND if it is not available.
    """
    found = None
    if name == self.name:
      if version is None:
        found = self._latest
      elif version in self._versions:
        found = self._versions[version].model
    if found is None:
      request = f'Latest({name})' if version is None else f'Specific({name}, {version})'
      raise errors.not_found(f'Servable not found for request: {request}')
    return found

  def statuses(self, name: str, version: int | None = None) -> list[tuple[int, Version]]:
    """Returns number and state of one version or all, newest first, those that are gone included.

    Raises:
      ServingError: NOT_FOUND if there never was any.
    """
    if name != self.name or not self._versions:
      raise errors.not_found(f'Could not find any versions of model {name}')
    if version is None:
      return sorted(self._versions.items(), reverse=True)
    if version not in self._versions:
      raise errors.not_found(f'Could not find version {version} of model {name}')
    return [(version, self._versions[version])]

  def is_ready(self) -> bool:
    """Tells whether there is a version to serve."""
    return self._latest is not None

  async def poll(self) -> None:
    """Looks at the folder, loads what is new and starts to free what is old."""
    loop = asyncio.get_running_loop()
    try:
      found = await loop.run_in_executor(None, scan, self._base_path)
    except OSError as error:
      if self._unreadable != str(error):  # Not at each poll.
        logging.warning('Could not find base path %s: %s', self._base_path, error)
      self._unreadable = str(error)
      return
    self._unreadable = ''
    wanted = sorted(found, reverse=True)[: self._keep]
    new = [number for number in wanted if self._is_new(number, found[number])]
    for number in new:
      self._versions[number] = Version()
    for number in new:
      await self._load(number, found[number])
    if not wanted or any(self._versions[number].model for number in wanted):
      for number in self._versions.keys() - set(wanted):
        self._drop(number)
    for number in sorted(self._versions.keys() - found.keys())[:-_MAX_GONE]:
      del self._versions[number]

  def _is_new(self, number: int, path: pathlib.Path) -> bool:
    entry = self._versions.get(number)
    if entry is None:
      return True
    if entry.state != State.END:
      return False
    return entry.error is None or _files(path) != entry.files

  async def _load(self, number: int, path: pathlib.Path) -> None:
    entry = self._versions[number]
    entry.state, entry.files = State.LOADING, _files(path)
    start = time.monotonic()

    def load() -> servable.Servable:
      return servable.Servable.load(path, name=self.name, version=number)

    try:
      entry.model = await asyncio.get_running_loop().run_in_executor(self._executor, load)
    except errors.ServingError as error:
      logging.error('%s version %d cannot be served: %s', self.name, number, error)
      entry.state, entry.error = State.END, error
    else:
      logging.info('loaded %s version %d in %.2f s', self.name, number, time.monotonic() - start)
      entry.state = State.AVAILABLE
    self._choose_latest()
    self._on_load(entry.error is None)

  def _drop(self, number: int) -> None:
    entry = self._versions[number]
    if entry.state == State.START:
      entry.state = State.END
    if entry.model is None:
      return
    entry.state = State.UNLOADING
    model, entry.model = entry.model, None
    self._choose_latest()
    task = asyncio.create_task(self._free(entry, model))
    self._unloads.add(task)
    task.add_done_callback(self._unloads.discard)

  async def _free(self, entry: Version, model: servable.Servable) -> None:
    while model.num_leases:
      await asyncio.sleep(_LEASE_POLL_SECONDS)

    def free() -> None:
      model.close()
      servable.release_memory()

    await asyncio.get_running_loop().run_in_executor(self._executor, free)
    entry.state = State.END
    logging.info('freed %s version %d', model.name, model.version)

  def _choose_latest(self) -> None:
    available = [number for number, entry in self._versions.items() if entry.model is not None]
    self._latest = self._versions[max(available)].model if available else None

  async def _follow(self) -> None:
    while True:
      await asyncio.sleep(self._poll_seconds)
      try:
        await self.poll()
      except Exception:  # The next look may do better, and what is served goes on being served.
        logging.exception('looking for versions in %s failed', self._base_path)


def scan(base_path: pathlib.Path) -> dict[int, pathlib.Path]:
  """Finds the version folders of a model.

  Names that are no number are ignored, so that a version can be written beside its place and then
  renamed. Of names for the same number, such as 7 and 007, the shortest wins.

  Returns:
    Path by version.

  Raises:
    OSError: if the folder cannot be read.
  """
  found = {}
  for name in sorted(os.listdir(base_path), key=len, reverse=True):
    if _NUMBER.fullmatch(name) and int(name) <= _MAX_INT64:
      if int(name) in found:
        logging.warning('%s: several folders of version %s; taking the last', base_path, name)
      found[int(name)] = base_path / name
  return found


def _files(folder: pathlib.Path) -> frozenset[tuple[str, int, int]]:
  found = set()
  for path in folder.rglob('*'):
    with contextlib.suppress(OSError):  # Gone meanwhile.
      status = path.stat()
      found.add((str(path), status.st_size, status.st_mtime_ns))
  return frozenset(found)
