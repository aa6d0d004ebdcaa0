"""The run folder: where everything of a run is kept, and the refusal to mix two runs in one.

Layout: `config.gin`, `run.json`, `tasks.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`,
`evaluations/`, `figures/`, `export/`.
"""

import difflib
import fcntl
import json
import os
import pathlib
from typing import IO

from pearl_tf import version
from pearl_tf.data import files
from pearl_tf.experiment import config

# Bindings that change for how long and how often, not what is learned and measured.
CHANGEABLE = (
  'Tolerance.largest_share',
  'Training.num_iterations',
  'Training.evaluation_interval',
  'Training.checkpoint_interval',
  'Training.checkpoints_to_keep',
  'Training.export_interval',
  'Training.exports_to_keep',
)


class RunFolderError(RuntimeError):
  """The folder cannot be used for this run; the message says why and what to do."""


class RunFolder:
  """Paths of a run folder, and its identity: configuration and seed."""

  def __init__(self, root: str | os.PathLike):
    """Names a folder; nothing is read or written yet.

    Raises:
      FileError: if it cannot be a folder of this machine.
    """
    self.root = files.local_path(root, '--root_dir')

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
  def log(self) -> pathlib.Path:
    """What libraries printed while a training showed its panel."""
    return self.root / 'log.txt'

  @property
  def figures(self) -> pathlib.Path:
    """Plots and pictures."""
    return self.root / 'figures'

  @property
  def exports(self) -> pathlib.Path:
    """SavedModels for serving, several versions."""
    return self.root / 'export'

  @property
  def seed(self) -> int:
    """The run's seed."""
    self.require()
    try:
      return int(json.loads(self.run.read_text())['seed'])
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise RunFolderError(
        f'{self.run} is damaged ({error}): write {{"seed": S}} into it, where S is the --seed that '
        'the run was started with (0 where none was given)'
      ) from error

  def require(self) -> None:
    """Raises `RunFolderError` if this is not the folder of a run."""
    if not (self.config.is_file() and self.run.is_file()):
      raise RunFolderError(
        f'{self.root} is not a run folder (no config.gin and run.json): train into it first, with '
        f'python -m trainers.train --root_dir={self.root} --gin_file=...'
      )

  def claim(self, config_text: str, seed: int) -> list[str]:
    """Makes this the folder of a run, or checks that it already is.

    How long a run is and how often it evaluates and saves (`CHANGEABLE`) may differ from what the
    folder has; the folder then takes the new text over, and `run.json` keeps the difference.

    Args:
      config_text: the resolved configuration.
      seed: the run's seed.

    Returns:
      What was taken over, as lines of a difference; empty if there was nothing.

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
      return []
    kept = self.config.read_text()
    if not kept.strip():
      raise RunFolderError(
        f'{self.config} is empty, so what this run was configured by is not known: put its text '
        'back (an export has it in assets.extra/manifest.json), or use another --root_dir'
      )
    if config.renamed(kept) != kept:  # Of an earlier version.
      kept = config.load_text(kept)
    difference = difference_of(kept, config_text)
    refused = [line for line in difference if line[1:].partition(' = ')[0] not in CHANGEABLE]
    if self.seed != seed:
      refused += [f'-seed = {self.seed}', f'+seed = {seed}']
    if refused:
      raise RunFolderError(
        f'{self.root} holds a run with another configuration; nothing was changed. Difference '
        f'(- that run, + this command):\n'
        + '\n'.join(refused)
        + '\nUse another --root_dir, or the same configuration to continue that run. Only '
        + ', '.join(CHANGEABLE)
        + ' may differ.'
      )
    if difference:
      identity = json.loads(self.run.read_text())
      identity.setdefault('changes', []).append(difference)
      files.write_text(self.config, config_text)
      files.write_text(self.run, json.dumps(identity, indent=1))
    return difference

  def lock(self) -> IO:
    """Takes the folder for this process until the returned file is closed or the process ends.

    Raises:
      RunFolderError: if another process is training into the folder.
    """
    try:
      files.output_folder(self.root, '--root_dir').mkdir(parents=True, exist_ok=True)
      handle = (self.root / '.lock').open('a+')
    except (OSError, files.FileError) as error:
      raise RunFolderError(f'{self.root} cannot be used as a run folder: {error}') from error
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      handle.close()
      raise RunFolderError(
        f'another process is training into {self.root}; wait for it or use another --root_dir'
      ) from error
    return handle


def difference_of(old: str, new: str) -> list[str]:
  """Returns the lines in which two configurations differ, each with - or + before it."""
  lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm='', n=0)
  changed = [line for line in lines if line[:1] in '+-' and line[:3] not in ('+++', '---')]
  return [line for line in changed if line[1:].strip() and not line[1:].startswith('#')]
