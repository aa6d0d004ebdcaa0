"""A trained agent from a run folder: what evaluation, pictures and export start from."""

import os
import pathlib

from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import checkpoints, experiment, run_folder

LATEST = 'latest'
BEST = 'best'


def restore(
  root_dir: str | os.PathLike, checkpoint: str = LATEST
) -> tuple[builder_lib.Builder, pathlib.Path]:
  """Rebuilds the experiment of a run folder with the weights of a checkpoint.

  Args:
    root_dir: the run folder.
    checkpoint: 'latest', 'best' (highest mean of five evaluations on
      training tasks so far), or the name of a folder in
      `checkpoints/` or its number.

  Returns:
    The builder, whose agent is restored, and the folder of the checkpoint.

  Raises:
    RunFolderError: if the folder is not a run folder.
    CheckpointError: if there is no such checkpoint, or it cannot be read.
  """
  folder = run_folder.RunFolder(root_dir)
  folder.require()
  found = _find(folder, checkpoint)
  builder = builder_lib.Builder(experiment.of_run(folder), folder)
  checkpoints.restore(found, {'agent': builder.agent}, partial=True)
  return builder, found


def _find(folder: run_folder.RunFolder, checkpoint: str) -> pathlib.Path:
  if checkpoint in (LATEST, BEST):
    found = checkpoints.Checkpoints(folder.checkpoints, prefix=checkpoint).latest()
  else:
    found = _named(folder, checkpoint)
  if found is None or not found.is_dir():
    present = sorted(path.name for path in folder.checkpoints.glob('[!.]*'))
    raise checkpoints.CheckpointError(
      f'{folder.root} has no checkpoint {checkpoint!r}; there are: {", ".join(present) or "none"}'
    )
  return found


def _named(folder: run_folder.RunFolder, checkpoint: str) -> pathlib.Path:
  """Returns the checkpoint of a name, or the one whose name ends in a number."""
  if checkpoint.isdecimal():
    numbers = [*folder.checkpoints.glob(f'{LATEST}-*'), *folder.checkpoints.glob(f'{BEST}-*')]
    found = [p for p in numbers if int(p.name.rpartition('-')[2]) == int(checkpoint)]
    if len(found) == 1:
      return found[0]
  return folder.checkpoints / checkpoint
