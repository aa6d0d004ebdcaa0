"""Meta-training in one process: the loop, with everything it needs."""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence

import tensorflow as tf

from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import config, loop, run_folder
from pearl_tf.experiment import experiment as experiment_lib


def train(
  root_dir: str | os.PathLike,
  *,
  gin_files: Sequence[str],
  gin_bindings: Sequence[str] = (),
  seed: int = 0,
  callbacks: Sequence[loop.Callback] = (),
  strategy: tf.distribute.Strategy | None = None,
) -> bool:
  """Trains into a run folder, from the start or from its last checkpoint.

  Args:
    root_dir: the run folder.
    gin_files: configuration files.
    gin_bindings: single bindings, override the files.
    seed: the run's seed.
    callbacks: each is called after every iteration with its line of metrics, as `metrics.jsonl` has
      it, and may return True to stop the run as a signal does.
    strategy: the devices that share a training step; one device by default.

  Returns:
    True at the end of the run, False if a signal or a callback asked to stop.

  Raises:
    ConfigError: if the configuration cannot be parsed, a number in it is impossible, the
      environment is unknown, or a binding has no effect. The folder is untouched then.
    RunFolderError: if the folder belongs to another run or is in use.
    DivergenceError: if training stops being finite.
    EnvironmentFault: if an environment breaks its contract.
  """
  experiment = experiment_lib.load(gin_files, gin_bindings, seed=seed)
  with config.as_config_error():  # Before the folder is touched.
    builder = builder_lib.Builder(experiment, strategy=strategy)
    builder.check()
  with claimed(builder, root_dir) as folder:
    running = loop.Loop(builder, folder, callbacks)
    try:
      return running.run()
    finally:
      running.close()


@contextlib.contextmanager
def claimed(
  builder: builder_lib.Builder, root_dir: str | os.PathLike
) -> Iterator[run_folder.RunFolder]:
  """Locks a run folder, makes it the experiment's own and takes its tasks.

  Raises:
    RunFolderError: if the folder belongs to another run or is in use.
  """
  folder = run_folder.RunFolder(root_dir)
  with folder.lock():
    changes = folder.claim(builder.experiment.text, builder.seed)
    builder.keep_tasks(folder)
    if changes:
      logging.warning('the configuration of the run changes: %s', '; '.join(changes))
    yield folder
