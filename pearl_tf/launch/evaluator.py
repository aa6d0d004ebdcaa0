"""The process that meta-tests what the learner publishes, and keeps the best of it."""

import os
import time

from pearl_tf.experiment import best as best_lib
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import checkpoints, evaluation, metrics, run_exporter, run_folder
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.experiment import progress as progress_lib
from pearl_tf.launch import connection, start
from pearl_tf.replay import tables, weights

_POLL_SECONDS = 2.0


def evaluate(
  experiment: experiment_lib.Experiment,
  root_dir: str | os.PathLike,
  server_address: str,
  *,
  deadline_seconds: float,
) -> None:
  """Evaluates until the last version of the run is done; those it cannot keep up with are left out.

  Args:
    experiment: what the run is.
    root_dir: the run folder, the learner's own.
    server_address: `host:port` of the replay server.
    deadline_seconds: how long to wait for the server, and for a new version.

  Raises:
    DisagreementError: if the server is of another run.
    TimeoutError: if what is waited for does not come in time.
    EnvironmentFault: if an environment breaks its contract.
  """
  builder = start.build(experiment)
  connection.check(server_address, builder, deadline_seconds)
  versions = weights.Weights(server_address, tables.AGENT, builder.agent.variables)
  with (
    connection.Lifeline(server_address, deadline_seconds) as lifeline,
    Evaluator(builder, run_folder.RunFolder(root_dir)) as evaluator,
  ):
    waiting_since = time.monotonic()
    while True:
      with lifeline.call():
        age = versions.fetch(_POLL_SECONDS)
      if age is not None and age.iteration != evaluator.iteration:
        evaluator.take(age)
        waiting_since = time.monotonic()
      if age is not None and age.is_last:
        return
      waited = time.monotonic() - waiting_since
      if waited > deadline_seconds:
        raise TimeoutError(
          f'the evaluator has waited {waited:.0f} s for a new version of the agent at '
          f'{server_address}: does a learner run?'
        )
      time.sleep(_POLL_SECONDS)


class Evaluator:
  """What is known of the versions so far, in the run folder.

  Attributes:
    iteration: of the newest version that was evaluated, 0 if none was.
  """

  def __init__(self, builder: builder_lib.Builder, folder: run_folder.RunFolder):
    """Goes on where the last evaluator of the folder ended.

    Args:
      builder: the experiment.
      folder: the run folder.
    """
    self._builder = builder
    self._evaluation = evaluation.Evaluation(builder)
    self._best = best_lib.Best(folder, builder.agent)
    self._writer = metrics.MetricsWriter(folder.root / metrics.EVALUATOR_FOLDER)
    records = metrics.read(self._writer.path)
    self.iteration = records[-1]['iteration'] if records else 0
    returns = [record['train/final_return'] for record in records]
    self._progress = progress_lib.Progress(
      recent_returns=returns[-best_lib.EVALUATIONS_OF_BEST :], best_return=_best_return(folder)
    )
    self._exporter = None
    if builder.training.export_interval is not None and not builder.method.not_served:
      self._exporter = run_exporter.RunExporter(
        builder, folder.exports, keep=builder.training.exports_to_keep
      )

  def __enter__(self) -> 'Evaluator':
    return self

  def __exit__(self, *unused_exception) -> None:
    self._writer.close()

  def take(self, age: weights.Age) -> None:
    """Evaluates the agent as it is now, and writes, keeps and exports what is to be.

    Args:
      age: how far the run was.
    """
    if age.iteration < self.iteration:  # What came after it is of a future that is gone.
      self._writer.truncate_after(age.iteration - 1)
      self._best.drop_after(age.gradient_steps, self._progress)
    evaluated = self._evaluation.run(age.iteration - 1)
    counters = {name: getattr(age, name) for name in metrics.COUNTERS}
    self._writer.write(evaluated, **counters)
    self._writer.write_figures(self._evaluation.figures(), env_steps=age.env_steps)
    self._progress.iteration, self._progress.env_steps = age.iteration, age.env_steps
    if self._best.keep(evaluated['train/final_return'], self._progress) and self._exporter:
      self._exporter.export(age.env_steps)
    self.iteration = age.iteration


def _best_return(folder: run_folder.RunFolder) -> float | None:
  """Returns what the best version so far reached."""
  kept = checkpoints.Checkpoints(folder.checkpoints, prefix=best_lib.PREFIX).latest()
  return None if kept is None else checkpoints.progress(kept)['best_return']
