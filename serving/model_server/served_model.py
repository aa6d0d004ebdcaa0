"""One model and its versions: what is wanted, what is loaded, and the way from one to the other.

A new version is loaded before an old one goes, and the old one stays if the new one fails. What
failed is tried again when its files have changed: it may have been looked at while it was copied.
"""

import asyncio
import contextlib
import dataclasses
import pathlib
from typing import NamedTuple

from absl import logging
from tensorflow_serving.apis import get_model_status_pb2

from serving import errors
from serving.model_server import loader, model_config, servable

State = get_model_status_pb2.ModelVersionStatus
# Versions that are gone and still reported.
_MAX_GONE = 100


class VersionStatus(NamedTuple):
  """What GetModelStatus tells of a version.

  Attributes:
    version: Its number.
    state: get_model_status_pb2.ModelVersionStatus.State.
    code: Number of the gRPC code; 0 unless it failed.
    message: Why it failed.
  """

  version: int
  state: int
  code: int
  message: str


@dataclasses.dataclass
class _Version:
  path: pathlib.Path
  state: int = State.START
  error: errors.ServingError | None = None
  model: servable.Servable | None = None
  # Its files when it was last loaded: name, size and time of change.
  files: frozenset[tuple[str, int, int]] = frozenset()
  # Ended and no longer wanted since: if it is wanted again, it starts afresh.
  is_gone: bool = False


class ServedModel:
  """The versions of one model; belongs to one event loop.

  Attributes:
    config: May be replaced.
    labels: Version by label, as far as they are in force.
    is_removed: Whether it was taken out of the configuration.
  """

  def __init__(
    self,
    config: model_config.ModelConfig,
    version_loader: loader.Loader,
    *,
    num_retries: int = 0,
    retry_seconds: float = 60.0,
  ):
    """Makes a model without versions.

    Args:
      config: Its configuration.
      version_loader: Loads and frees.
      num_retries: How often a load is tried again after it failed.
      retry_seconds: Time between two tries.
    """
    self.config = config
    self.labels: dict[str, int] = {}
    self.is_removed = False
    self._loader = version_loader
    self._num_retries = num_retries
    self._retry_seconds = retry_seconds
    self._wanted: dict[int, pathlib.Path] = {}
    self._versions: dict[int, _Version] = {}
    self._latest: servable.Servable | None = None
    self._lock = asyncio.Lock()
    self._changed = asyncio.Event()
    self._unloads: set[asyncio.Task] = set()

  @property
  def is_settled(self) -> bool:
    """Whether versions are wanted and each of them is available or has failed."""
    return bool(self._wanted) and all(
      self._versions[version].state in (State.AVAILABLE, State.END) for version in self._wanted
    )

  @property
  def is_settling(self) -> bool:
    """Whether `settle` is at work; it notices by itself what is wanted meanwhile."""
    return self._lock.locked()

  @property
  def is_available(self) -> bool:
    """Whether there is a version to serve."""
    return self._latest is not None

  def find(self, version: int | None = None) -> servable.Servable | None:
    """Returns a servable, the one of the largest available number by default."""
    if version is None:
      return self._latest
    entry = self._versions.get(version)
    return entry.model if entry is not None else None

  def statuses(self) -> list[VersionStatus]:
    """Returns all versions known, newest first."""
    return [
      VersionStatus(
        version,
        entry.state,
        entry.error.number if entry.error else 0,
        entry.error.message if entry.error else '',
      )
      for version, entry in sorted(self._versions.items(), reverse=True)
    ]

  def want(self, wanted: dict[int, pathlib.Path]) -> None:
    """Says which versions to serve; `settle` has them loaded.

    Args:
      wanted: Path by version.
    """
    self._wanted = dict(wanted)
    for version, path in wanted.items():
      entry = self._versions.get(version)
      moved = entry is not None and entry.path != path
      if entry is None or entry.is_gone or moved and entry.state == State.END:
        self._versions[version] = _Version(path)
      elif entry.state == State.END and entry.error and _files(path) != entry.files:
        logging.info('%s version %d has changed, trying again', self.config.name, version)
        self._versions[version] = _Version(path)
      elif moved and entry.state != State.UNLOADING:
        logging.warning(
          '%s version %d stays as loaded from %s; to serve %s, give it another number',
          self.config.name,
          version,
          entry.path,
          path,
        )
        entry.path = path

  async def settle(self) -> None:
    """Loads and unloads until what is wanted is there, or has failed."""
    async with self._lock:
      while True:
        self._drop_unwanted()
        waiting = [
          version for version in self._wanted if self._versions[version].state == State.START
        ]
        if not waiting:
          return
        await self._load(max(waiting))

  async def wait_settled(self) -> None:
    """Waits until all wanted versions have settled, at least one, or the model is removed."""
    while not self.is_settled and not self.is_removed:
      await self._changed.wait()

  def remove(self) -> None:
    """Wants nothing any more, for good."""
    self.is_removed = True
    self.want({})
    self._notify()

  async def wait_unloaded(self) -> None:
    """Waits until everything that is being unloaded is."""
    while self._unloads:
      await asyncio.wait(self._unloads)

  async def _load(self, version: int) -> None:
    entry = self._versions[version]
    entry.state = State.LOADING
    entry.files = _files(entry.path)
    for tries_left in range(self._num_retries, -1, -1):
      try:
        entry.model = await self._loader.load(self.config.name, version, entry.path)
      except errors.ServingError as error:
        entry.error = error
      else:
        entry.state, entry.error = State.AVAILABLE, None
        break
      if not tries_left or version not in self._wanted:
        entry.state = State.END
        break
      await asyncio.sleep(self._retry_seconds)
    self._notify()

  def _drop_unwanted(self) -> None:
    has_replacement = not self._wanted or any(
      self._versions[version].state == State.AVAILABLE for version in self._wanted
    )
    for version, entry in self._versions.items():
      if version in self._wanted:
        continue
      if entry.state == State.START:
        entry.state = State.END
      if entry.state == State.END:
        entry.is_gone = True
      elif entry.state == State.AVAILABLE and has_replacement:
        self._start_unload(entry)
    self._notify()
    gone = sorted(version for version, entry in self._versions.items() if entry.is_gone)
    for version in gone[:-_MAX_GONE]:
      del self._versions[version]

  def _start_unload(self, entry: _Version) -> None:
    entry.state = State.UNLOADING
    model, entry.model = entry.model, None
    task = asyncio.get_running_loop().create_task(self._unload(entry, model))
    self._unloads.add(task)
    task.add_done_callback(self._unloads.discard)

  async def _unload(self, entry: _Version, model: servable.Servable) -> None:
    await self._loader.free(model)
    entry.state, entry.is_gone = State.END, True
    # It may have been wanted again meanwhile.
    self.want(self._wanted)
    self._notify()
    await self.settle()

  def _notify(self) -> None:
    available = [version for version, entry in self._versions.items() if entry.model is not None]
    self._latest = self._versions[max(available)].model if available else None
    self._changed.set()
    self._changed = asyncio.Event()


def _files(folder: pathlib.Path) -> frozenset[tuple[str, int, int]]:
  found = set()
  for path in folder.rglob('*'):
    with contextlib.suppress(OSError):  # Gone meanwhile.
      status = path.stat()
      found.add((str(path), status.st_size, status.st_mtime_ns))
  return frozenset(found)
