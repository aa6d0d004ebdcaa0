"""Files and folders of this machine: checked before the work, complete or absent after it.

Whatever must survive a crash is staged beside its place under a name of this process, synced and
renamed. Programs refuse here what they could not write to, before they spend hours on it.
"""

import contextlib
import errno
import logging
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO

# TensorFlow takes these for patterns wherever it reads a checkpoint or a SavedModel.
_PATTERN_CHARACTERS = '*?[]\\'
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# Mounts without these (CIFS, sshfs, FUSE over a store) keep a renamed file without them, too.
_CANNOT_SYNC_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
_warned_of_sync = False


class FileError(RuntimeError):
  """A path cannot be used; the message names it and says what to do."""


def local_path(path: str | os.PathLike, name: str) -> pathlib.Path:
  """Returns a path of this machine, checked by its name alone.

  Args:
    path: what a user gave; `file:///x` means `/x`.
    name: what it is, such as '--root_dir', for the message.

  Raises:
    FileError: if it is the address of a store, or has a character that TensorFlow reads as a
      pattern.
  """
  text = os.fspath(path)
  scheme = re.match(r'([A-Za-z][A-Za-z0-9+.-]*):/', text)
  if scheme and scheme[1].lower() == 'file':
    text = '/' + text[len(scheme[0]) :].lstrip('/')
  elif scheme:
    raise FileError(
      f'{name}={text} is an address ({scheme[1]}:), and only folders of this machine can be used: '
      'give a local path, or mount the store and give the path of the mount'
    )
  found = sorted(set(text) & set(_PATTERN_CHARACTERS))
  if found:
    raise FileError(
      f'{name}={text} has {" ".join(found)} in its name, which TensorFlow takes for a pattern when '
      'it reads files there; choose a name without'
    )
  return pathlib.Path(text)


def output_file(path: str | os.PathLike, name: str) -> pathlib.Path:
  """Returns a path that a file can be written to, found out by trying; nothing is left behind.

  Args:
    path: what a user gave.
    name: what it is, such as '--output', for the message.

  Raises:
    FileError: if it cannot be written.
  """
  target = local_path(path, name)
  if target.exists() and not target.is_file():
    raise FileError(f'{name}={target} is not a file: give the path of a file to write')
  _try_to_write(target.parent, f'{name}={target}')
  return target


def output_folder(path: str | os.PathLike, name: str) -> pathlib.Path:
  """Returns a path of a folder that files can be written to, found out by trying.

  The folder itself need not exist and is not made.

  Args:
    path: what a user gave.
    name: what it is, such as '--export_dir', for the message.

  Raises:
    FileError: if no file can be written there.
  """
  target = local_path(path, name)
  _try_to_write(target, f'{name}={target}')
  return target


def _try_to_write(folder: pathlib.Path, what: str) -> None:
  existing = _existing(folder)
  try:
    with tempfile.TemporaryFile(dir=existing):
      pass
  except OSError as error:
    raise FileError(f'{what} cannot be written: {_reason(error, existing)}') from error


def _existing(path: str | os.PathLike) -> pathlib.Path:
  """Returns the path or the nearest folder above it that exists."""
  existing = pathlib.Path(path).absolute()
  while not os.path.lexists(existing):
    existing = existing.parent
  return existing


@contextlib.contextmanager
def explained(path: str | os.PathLike, *, needs: int | None = None) -> Iterator[None]:
  """Turns the errors of a disk into one line with the path and a remedy.

  Args:
    path: what is being written.
    needs: bytes, where known.

  Raises:
    FileError: in place of an `OSError`, and of whatever else says that the disk is full
      (TensorFlow and Reverb have errors of their own).
  """
  try:
    yield
  except OSError as error:
    raise FileError(f'{path} cannot be written: {_reason(error, path, needs)}') from error
  except Exception as error:
    if 'no space left' not in str(error).lower() and 'quota' not in str(error).lower():
      raise
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise FileError(f'{path} cannot be written: {_reason(full, path, needs)}') from error


def _reason(error: OSError, path: str | os.PathLike, needs: int | None = None) -> str:
  text = error.strerror or str(error)
  if error.errno not in _NO_SPACE:
    return text
  free = shutil.disk_usage(_existing(path)).free
  amount = '' if needs is None else f'{needs / 1e6:,.0f} MB are needed and '
  return f'{text}; {amount}{free / 1e6:,.0f} MB are free: make room and give the same command again'


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[IO[str]]:
  """Opens a text file that takes the place of `path` when the context ends without an error.

  Args:
    path: the file; its folder is made.

  Raises:
    FileError: if it cannot be written; nothing is left of it then.
  """
  with explained(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, staged = tempfile.mkstemp(prefix=f'.{path.name}.', dir=path.parent)
    try:
      with os.fdopen(descriptor, 'w', encoding='utf-8') as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
      os.chmod(staged, 0o666 & ~_umask())
      os.replace(staged, path)
    except BaseException:
      os.unlink(staged)
      raise
    sync_folder(path.parent)


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file so that it exists completely or not at all; raises `FileError` if it cannot."""
  with replacing(path) as file:
    file.write(text)


def sync_tree(folder: pathlib.Path) -> None:
  """Forces every file and folder below a folder to disk, and the folder itself."""
  for path in folder.rglob('*'):
    if path.is_dir():
      sync_folder(path)
    else:
      with path.open('rb') as file:
        os.fsync(file.fileno())
  sync_folder(folder)


def sync_folder(folder: pathlib.Path) -> None:
  """Forces the entries of a folder to disk, where its file system can."""
  global _warned_of_sync
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  except OSError as error:
    if error.errno not in _CANNOT_SYNC_FOLDERS:
      raise
    if not _warned_of_sync:
      _warned_of_sync = True
      logging.warning(
        'the file system of %s cannot sync folders (%s): after a power cut, the newest files there '
        'may be missing',
        folder,
        error.strerror,
      )
  finally:
    os.close(descriptor)


def _umask() -> int:
  """Returns the process's mask, which can only be read by setting it."""
  mask = os.umask(0)
  os.umask(mask)
  return mask
