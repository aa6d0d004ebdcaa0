"""The run folder: where everything of a run is kept, and the refusal to mix two runs in one.

Layout: `config.gin`, `run.json`, `tasks.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`,
`evaluations/`, `figures/`, `export/`.
"""

import difflib
import fcntl
import json
import os
import pathlib
import shutil
from typing import IO

from pearl_tf import files, version


class RunFolderError(RuntimeError):
  """The folder cannot be used for this run; the message says why and what to do."""


class RunFolder:
  """Paths of a run folder, and its identity: configuration and seed."""

  def __init__(self, root: str | os.PathLike):
    """Names a folder; nothing is read or written yet."""
    self.root = pathlib.Path(root)

  @property
  def config(self) -> pathlib.Path:
    """The resolved gin text."""
    return self.root / 'config.gin'

  @property
  def run(self) -> pathlib.Path:
    """Seed and version, as JSON."""
    return self.root / 'run.json'

  @property
  def tasks(self) -> pathlib.Path:
    """The task split, as JSON."""
    return self.root / 'tasks.json'

  @property
  def checkpoints(self) -> pathlib.Path:
    """Checkpoints, latest and best."""
    return self.root / 'checkpoints'

  @property
  def evaluations(self) -> pathlib.Path:
    """What `trainers.evaluate` writes."""
    return self.root / 'evaluations'

  @property
  def figures(self) -> pathlib.Path:
    """Plots and pictures."""
    return self.root / 'figures'

  @property
  def exports(self) -> pathlib.Path:
    """SavedModels for serving, several versions."""
    return self.root / 'export'

  def scratch(self) -> pathlib.Path:
    """Returns an empty folder for files in the making, on the same disk as the checkpoints."""
    folder = self.root / '.scratch'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder

  @property
  def seed(self) -> int:
    """The run's seed."""
    self.require()
    return json.loads(self.run.read_text())['seed']

  def require(self) -> None:
    """Raises `RunFolderError` if this is not the folder of a run."""
    if not (self.config.is_file() and self.run.is_file()):
      raise RunFolderError(
        f'{self.root} is not a run folder (no config.gin and run.json): train into it first, with '
        f'python -m trainers.train --root_dir={self.root} --gin_file=...'
      )

  def claim(self, config_text: str, seed: int) -> bool:
    """Makes this the folder of a run, or checks that it already is.

    Args:
      config_text: the resolved configuration.
      seed: the run's seed.

    Returns:
      Whether the run has been here before.

    Raises:
      RunFolderError: if the folder belongs to another configuration or seed, with the difference.
    """
    if not self.run.is_file():
      self.root.mkdir(parents=True, exist_ok=True)
      files.write_text(self.config, config_text)
      # The identity is complete once this second file exists.
      files.write_text(
        self.run, json.dumps({'seed': seed, 'pearl_tf': version.__version__}, indent=1)
      )
      return False
    difference = _difference(self.config.read_text(), config_text)
    if self.seed != seed:
      difference.append(f'-seed = {self.seed}')
      difference.append(f'+seed = {seed}')
    if difference:
      raise RunFolderError(
        f'{self.root} holds a run with another configuration; nothing was changed. Difference '
        f'(- that run, + this command):\n'
        + '\n'.join(difference)
        + '\nUse another --root_dir, or the same configuration to continue that run.'
      )
    return True

  def lock(self) -> IO:
    """Takes the folder for this process until the returned file is closed or the process ends.

    Raises:
      RunFolderError: if another process is training into the folder.
    """
    try:
      self.root.mkdir(parents=True, exist_ok=True)
      handle = (self.root / '.lock').open('a+')
    except OSError as error:
      raise RunFolderError(f'{self.root} cannot be used as a run folder: {error}') from error
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      handle.close()
      raise RunFolderError(
        f'another process is training into {self.root}; wait for it or use another --root_dir'
      ) from error
    return handle


def _difference(old: str, new: str) -> list[str]:
  lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm='', n=0)
  return [line for line in lines if line[:1] in '+-' and line[:3] not in ('+++', '---')]
