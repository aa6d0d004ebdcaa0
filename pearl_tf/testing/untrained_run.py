"""The folder of a run of no iterations, for tests of what starts from a trained agent."""

import os
import pathlib
from collections.abc import Sequence

from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import checkpoints, run_folder
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.testing import small_run


def make(
  root: pathlib.Path,
  bindings: Sequence[str] = small_run.LINE,
  *,
  gin_file: str | os.PathLike = small_run.GIN_FILE,
) -> pathlib.Path:
  """Makes the folder, with a checkpoint of fresh weights, and returns its path."""
  experiment = experiment_lib.load([gin_file], bindings)
  folder = run_folder.RunFolder(root)
  folder.claim(experiment.text, 0)
  builder = builder_lib.Builder(experiment, folder)
  builder.agent.train_step_counter.assign(120)
  saved = checkpoints.Checkpoints(folder.checkpoints, prefix='latest')
  saved.save(1, {'agent': builder.agent}, {'env_steps': 360})
  return root
