"""The replay server of a run: a Reverb server in this process, with checkpoints one can trust.

`ReplayServer` owns the tables, their port and their checkpoints. Reverb starts empty, without a
word, when a checkpoint lacks a file; so this module describes each checkpoint in a manifest and
refuses what does not match it. Where a checkpoint lives, and which is the latest, the caller knows.
"""

import json
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence

import reverb
from absl import logging

from pearl_tf import proxies
from pearl_tf.replay import packing
from pearl_tf.replay import tables as tables_lib

_FOLDER = 'reverb'
_MANIFEST = 'manifest.json'
_FORMAT = 1
_ANSWER_SECONDS = 60
# Reverb looks for `DONE` and then for the three files; where one is absent it loads nothing.
_FILES = ('tables.tfrecord', 'items.tfrecord', 'chunks.tfrecord', 'DONE')


class CheckpointError(RuntimeError):
  """A replay checkpoint is missing, damaged, or of another run."""


class ReplayServer:
  """A Reverb server that runs until `stop` or the end of a `with` block."""

  def __init__(
    self,
    layout: packing.PackedLayout,
    num_tasks: int,
    *,
    restore_from: str | pathlib.Path | None = None,
    port: int | None = None,
    scratch_directory: str | pathlib.Path | None = None,
    make_tables: Callable[..., list[reverb.Table]] = tables_lib.make_tables,
  ):
    """Starts the server, empty or with the content of a checkpoint.

    Args:
      layout: Layout of the rows.
      num_tasks: Number of training tasks.
      restore_from: What `checkpoint` returned; `None` starts empty.
      port: TCP port, or `None` for a free one.
      scratch_directory: Existing folder in which checkpoints are written before they are moved;
        give one on the file system of the checkpoints, or each is copied. `None` takes the
        system's temporary folder.
      make_tables: Returns the tables of a layout and a number of tasks.

    Raises:
      CheckpointError: If the checkpoint is missing, damaged, or of other tasks or another layout.
      ConnectionError: If something keeps this process from reaching its own server.
    """
    tables = make_tables(layout, num_tasks)
    self._manifest = {
      'format': _FORMAT,
      'observation_size': layout.observation_size,
      'action_size': layout.action_size,
      'num_tasks': num_tasks,
    }
    checkpoint = None if restore_from is None else pathlib.Path(restore_from)
    if checkpoint is not None:
      num_items = self._check_before_restore(checkpoint)
    self._scratch = pathlib.Path(tempfile.mkdtemp(prefix='.replay-', dir=scratch_directory))
    self._server: reverb.Server | None = None
    try:
      self._server = _start(tables, port, self._scratch, checkpoint)
      self._client = reverb.Client(f'localhost:{self._server.port}')
      self._check_answers()
      logging.log_first_n(
        logging.WARNING,
        'the replay server listens at a port of every network interface, without authentication: '
        'keep other machines away from it (README, "Network")',
        1,
      )
      # Writers may have been busy during the checkpoint, so the number is not compared as such.
      if checkpoint is not None and num_items and not self._num_items():
        raise CheckpointError(
          f'Reverb restored nothing from {checkpoint}, which was written with {num_items} items. '
          f'Was it written by another version of Reverb?'
        )
    except BaseException:
      self.stop()
      raise

  @property
  def address(self) -> str:
    """`host:port` for clients on this machine."""
    return f'localhost:{self._running().port}'

  @property
  def port(self) -> int:
    """The TCP port."""
    return self._running().port

  @property
  def client(self) -> reverb.Client:
    """A client of this server."""
    self._running()
    return self._client

  def checkpoint(self, directory: str | pathlib.Path) -> pathlib.Path:
    """Writes all tables, `fresh` included, into a folder; flush the writers first.

    The caller makes it atomic: checkpoint into a staging folder and rename that.

    Args:
      directory: Existing folder, into which a folder `reverb` is put.

    Returns:
      The path of that folder, to be given as `restore_from`.

    Raises:
      FileExistsError: If it is there already.
      FileNotFoundError: If `directory` does not exist.
      CheckpointError: If Reverb cannot write, for example because the disk is full.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
      raise FileNotFoundError(f'The folder to write the replay checkpoint into, {directory}.')
    target = directory / _FOLDER
    if target.exists():
      raise FileExistsError(f'{target} exists: checkpoint into a new folder each time.')
    self._running()
    num_items = self._num_items()
    try:
      source = self._client.checkpoint()
    except RuntimeError as error:
      raise CheckpointError(f'Reverb could not checkpoint to {self._scratch}: {error}') from error
    shutil.move(source, target)
    sizes = {name: _size(target / name) for name in _FILES}
    manifest = dict(self._manifest, num_items=num_items, bytes=sizes)
    (target / _MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')
    return target

  def stop(self) -> None:
    """Stops the server and removes its scratch folder; what was not checkpointed is gone."""
    if self._server is not None:
      self._server.stop()
      self._server = None
    shutil.rmtree(self._scratch, ignore_errors=True)

  def __enter__(self) -> 'ReplayServer':
    return self

  def __exit__(self, *exception) -> None:
    self.stop()

  def _running(self) -> reverb.Server:
    if self._server is None:
      raise RuntimeError('The replay server was stopped.')
    return self._server

  def _check_answers(self) -> None:
    try:
      self._client.server_info(timeout=_ANSWER_SECONDS)
    except reverb.errors.DeadlineExceededError as error:
      raise ConnectionError(
        f'the replay server of this process does not answer at {self.address}: does a firewall '
        'or a proxy stand between this machine and itself?'
      ) from error

  def _num_items(self) -> int:
    return sum(info.current_size for info in self._client.server_info().values())

  def _check_before_restore(self, checkpoint: pathlib.Path) -> int:
    """Checks a checkpoint against its manifest and returns the number of its items."""
    try:
      manifest = json.loads((checkpoint / _MANIFEST).read_text())
      num_items = int(manifest.pop('num_items'))
      sizes = dict(manifest.pop('bytes'))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
      raise CheckpointError(
        f'{checkpoint} is not a complete replay checkpoint ({error}): give the folder that '
        f'ReplayServer.checkpoint returned.'
      ) from error
    if manifest != self._manifest:
      raise CheckpointError(
        f'The replay checkpoint {checkpoint} belongs to another run: it has {manifest}, this run '
        f'has {self._manifest}.'
      )
    for name in _FILES:
      if _size(checkpoint / name) != sizes.get(name):
        raise CheckpointError(
          f'The replay checkpoint {checkpoint} is damaged: {name} should have {sizes.get(name)} '
          f'bytes and has {_size(checkpoint / name)}. Restore an older checkpoint.'
        )
    return num_items


def _start(
  tables: Sequence[reverb.Table],
  port: int | None,
  scratch: pathlib.Path,
  checkpoint: pathlib.Path | None,
) -> reverb.Server:
  proxies.spare_local_traffic()
  # The root is empty, so that Reverb loads the checkpoint it is given and no other.
  checkpointer = reverb.checkpointers.DefaultCheckpointer(
    str(scratch), fallback_checkpoint_path=None if checkpoint is None else str(checkpoint)
  )
  try:
    return reverb.Server(tables, port=port, checkpointer=checkpointer)
  except (RuntimeError, ValueError) as error:
    if checkpoint is None:
      raise
    raise CheckpointError(
      f'The replay checkpoint {checkpoint} cannot be restored: {error}. Restore an older one.'
    ) from error


def _size(path: pathlib.Path) -> int | None:
  """Returns the size of a file in bytes, `None` where there is none."""
  return path.stat().st_size if path.is_file() else None
