"""Version directories of an export: appear complete or not at all, under numbers never used before.

A server never retries a version that failed and may watch the folder at any moment, so a version is
written beside its place and renamed, and its number is never given again, not even after deletion.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

from pearl_tf.data import files

_STAGED_PREFIX = '.tmp-'  # A server ignores names that are no numbers.
_LAST_VERSION = '.last_version'
_LOCK = '.lock'


class Versions:
  """Folders with the same version numbers below one directory, for example one per servable."""

  def __init__(self, directory: str | os.PathLike, names: tuple[str, ...], *, keep: int):
    """Names the folders; nothing is read or written yet.

    Args:
      directory: their common parent.
      names: names of the folders.
      keep: how many versions to keep.

    Raises:
      ValueError: if `keep` is not positive.
    """
    if keep < 1:
      raise ValueError(f'at least one version must be kept, got keep={keep}')
    self.directory = pathlib.Path(directory)
    self._folders = tuple(self.directory / name for name in names)
    self._keep = keep

  def all(self) -> list[int]:
    """Returns the numbers of the versions that every folder has, oldest first."""
    present = [set(_numbers(folder)) for folder in self._folders]
    return sorted(set.intersection(*present))

  def publish(self, write: Callable[[int, dict[str, pathlib.Path]], None]) -> int:
    """Writes a new version and removes the oldest ones.

    Args:
      write: gets the number and, by folder name, an empty directory to fill. If it raises, nothing
        appears and the number is used up.

    Returns:
      The number.
    """
    for folder in self._folders:
      folder.mkdir(parents=True, exist_ok=True)
    with self._lock():
      self._remove_staged()
      version = self._take_number()
      staged = {folder.name: folder / f'{_STAGED_PREFIX}{version}' for folder in self._folders}
      for path in staged.values():
        path.mkdir()
      try:
        with files.explained(self.directory):
          write(version, staged)
          for path in staged.values():
            files.sync_tree(path)
      except BaseException:
        self._remove_staged()
        raise
      for path in staged.values():
        os.replace(path, path.with_name(str(version)))
        files.sync_folder(path.parent)
      self._remove_old()
    return version

  def _take_number(self) -> int:
    path = self.directory / _LAST_VERSION
    used = [number for folder in self._folders for number in _numbers(folder)]
    with contextlib.suppress(OSError, ValueError):  # Absent, or cut off by a full disk.
      used.append(int(path.read_text()))
    version = max(used, default=0) + 1
    files.write_text(path, f'{version}\n')
    return version

  def _remove_staged(self) -> None:
    """Removes what a process that died while writing, or failed to, left behind."""
    for folder in self._folders:
      for leftover in folder.glob(f'{_STAGED_PREFIX}*'):
        shutil.rmtree(leftover)

  def _remove_old(self) -> None:
    for folder in self._folders:
      for number in sorted(_numbers(folder))[: -self._keep]:
        # Renamed first: a server must not see half a version.
        doomed = folder / f'{_STAGED_PREFIX}old-{number}'
        shutil.rmtree((folder / str(number)).rename(doomed))

  @contextlib.contextmanager
  def _lock(self) -> Iterator[None]:
    """Lets one process publish at a time; another one waits."""
    with (self.directory / _LOCK).open('a+') as handle:
      fcntl.flock(handle, fcntl.LOCK_EX)
      yield


def _numbers(folder: pathlib.Path) -> list[int]:
  if not folder.is_dir():
    return []
  return [int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]
