"""Checkpoints of a whole run: variables and progress as one folder that appears at once.

A checkpoint is staged under a name that starts with a dot and renamed when every part is on disk,
so a process that dies half-way leaves the former checkpoint as it was. TensorFlow's own manager
cannot make variables and the progress file appear together.
"""

import json
import os
import pathlib
import shutil
from typing import Any

import tensorflow as tf

from pearl_tf.data import files

_VARIABLES = 'variables'
_PROGRESS = 'progress.json'
_STAGED_PREFIX = '.staged-'
_REMEDY = 'is damaged or of another experiment; remove its folder to go on from an older one'


class CheckpointError(RuntimeError):
  """A checkpoint is missing or cannot be read; the message names it."""


class Checkpoints:
  """A folder of numbered checkpoints of which the newest few are kept."""

  def __init__(self, directory: pathlib.Path, *, prefix: str, keep: int = 2):
    """Names a folder; nothing is read or written yet.

    Args:
      directory: the folder, created if need be.
      prefix: names the kind of checkpoint, for example 'latest' or 'best'.
      keep: how many to keep, at least 1.

    Raises:
      ValueError: if `keep` is not positive.
    """
    if keep < 1:
      raise ValueError(f'at least one checkpoint must be kept, got keep={keep}')
    self._directory = directory
    self._prefix = prefix
    self._keep = keep

  def save(
    self,
    number: int,
    variables: dict[str, Any],
    progress: dict[str, Any],
  ) -> pathlib.Path:
    """Writes a checkpoint, then removes those of a higher number and the oldest ones.

    A higher number is of a future that is gone: the run was resumed from before it.

    Args:
      number: grows from checkpoint to checkpoint, for example the gradient step.
      variables: trackable objects by name.
      progress: plain data.

    Returns:
      The folder of the checkpoint.

    Raises:
      FileError: if it cannot be written; the former checkpoints are as they were, and what was
        written of this one is gone.
    """
    with files.explained(self._directory, needs=_num_bytes(variables)):
      self._directory.mkdir(parents=True, exist_ok=True)
      self.remove_staged()
      staged = self._directory / f'{_STAGED_PREFIX}{self._prefix}-{number}'
      try:
        staged.mkdir()
        tf.train.Checkpoint(**variables).write(str(staged / _VARIABLES))
        (staged / _PROGRESS).write_text(json.dumps(progress))
        files.sync_tree(staged)
      except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
      final = self._place(number)
      os.replace(staged, final)
      files.sync_folder(self._directory)
    self.drop_after(number)
    for old in self.all()[: -self._keep]:
      self._remove(old)
    return final

  def _place(self, number: int) -> pathlib.Path:
    """Returns a free name that sorts last; older ones of the same number are removed later."""
    same = [path for path in self.all() if number_of(path) == number]
    suffix = f'.{_order(same[-1])[1] + 1}' if same else ''
    return self._directory / f'{self._prefix}-{number:012d}{suffix}'

  def drop_after(self, number: int) -> None:
    """Removes the checkpoints of a higher number, whose future is gone."""
    for path in self.all():
      if number_of(path) > number:
        self._remove(path)

  def _remove(self, checkpoint: pathlib.Path) -> None:
    # Renamed first: what a death in the middle leaves is not taken for a checkpoint.
    shutil.rmtree(checkpoint.rename(self._directory / f'{_STAGED_PREFIX}{checkpoint.name}'))

  def remove_staged(self) -> None:
    """Removes what a process that died while saving left behind."""
    for leftover in self._directory.glob(f'{_STAGED_PREFIX}{self._prefix}-*'):
      shutil.rmtree(leftover)

  def all(self) -> list[pathlib.Path]:
    """Returns the folders of all complete checkpoints, oldest first."""
    return sorted(self._directory.glob(f'{self._prefix}-*'), key=_order)

  def latest(self) -> pathlib.Path | None:
    """Returns the newest checkpoint, None if there is none."""
    checkpoints = self.all()
    return checkpoints[-1] if checkpoints else None


def progress(checkpoint: pathlib.Path) -> dict[str, Any]:
  """Returns the plain data of a checkpoint.

  Raises:
    CheckpointError: if it is missing or damaged.
  """
  try:
    return json.loads((checkpoint / _PROGRESS).read_text())
  except (OSError, ValueError) as error:
    raise CheckpointError(f'checkpoint {checkpoint} {_REMEDY}: {error}') from error


def restore(checkpoint: pathlib.Path, variables: dict[str, Any], *, partial: bool = False) -> None:
  """Reads the variables of a checkpoint.

  Args:
    checkpoint: folder of the checkpoint.
    variables: trackable objects by the names they were saved under.
    partial: whether the checkpoint may hold more than `variables` (evaluation needs the agent of a
      training checkpoint and nothing else).

  Raises:
    CheckpointError: if the checkpoint cannot be read or lacks a variable.
  """
  try:
    status = tf.train.Checkpoint(**variables).read(str(checkpoint / _VARIABLES))
    status.assert_existing_objects_matched()
    if partial:
      status.expect_partial()
    else:
      status.assert_consumed()
  # A data file that was cut off is an IndexError of TensorFlow's reader.
  except (tf.errors.OpError, AssertionError, IndexError, ValueError) as error:
    raise CheckpointError(f'checkpoint {checkpoint} {_REMEDY}: {error}') from error


def number_of(checkpoint: pathlib.Path) -> int:
  """Returns the number a checkpoint was saved under."""
  return _order(checkpoint)[0]


def _order(checkpoint: pathlib.Path) -> tuple[int, int]:
  """Returns the number a checkpoint was saved under, and which one of that number it is."""
  number, _, again = checkpoint.name.rpartition('-')[2].partition('.')
  return int(number), int(again or 1)


def _num_bytes(variables: dict[str, Any]) -> int:
  """Returns what trackable objects take on disk, in bytes: as they say, or their variables."""
  total = 0
  for part in variables.values():
    if (said := getattr(part, 'num_bytes', None)) is not None:
      total += said
    else:
      total += sum(int(tf.size(v)) * v.dtype.size for v in getattr(part, 'variables', ()))
  return total
