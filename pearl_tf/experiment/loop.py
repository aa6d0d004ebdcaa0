"""The order of a run: collect, train, evaluate, checkpoint, and go on where it stopped.

This module owns the order of things and the progress of a run. Everything it calls draws its
randomness from the seed and a counter kept in the progress, so whatever the moment a run dies, the
one resumed from its last checkpoint reports what the uninterrupted run would have reported. Where
the data come from, this process or others, is the matter of the learning process.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pearl_tf.agents import builder as agents_builder
from pearl_tf.agents import learner
from pearl_tf.environments import gymnasium_adapter
from pearl_tf.experiment import (
  best,
  checkpoints,
  console,
  evaluation,
  interruption,
  metrics,
  run_exporter,
  run_folder,
)
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import progress as progress_lib

LATEST = 'latest'
# TensorBoard gets figures of every so many evaluations and of the last one.
_EVALUATIONS_PER_FIGURE = 10

Callback = Callable[[Mapping[str, float | None]], bool | None]


class Loop:
  """One run, or the part of it that is the learner's."""

  def __init__(
    self,
    builder: builder_lib.Builder,
    folder: run_folder.RunFolder,
    callbacks: Sequence[Callback] = (),
    *,
    process: agents_builder.LearningProcess | None = None,
    evaluates: bool = True,
  ):
    """Builds every part and restores the newest checkpoint of the folder, if there is one.

    Args:
      builder: the experiment.
      folder: the run folder, already claimed for this experiment.
      callbacks: see `local_loop.train`.
      process: the learning process; by default one that collects its data itself. Closed with the
        loop.
      evaluates: whether it evaluates, keeps the best agent and exports; otherwise another process
        does.
    """
    self._builder = builder
    self._callbacks = callbacks
    self._stopped_by_callback = False
    self._folder = folder
    self._training = builder.training
    self._latest = checkpoints.Checkpoints(
      folder.checkpoints, prefix=LATEST, keep=self._training.checkpoints_to_keep
    )
    self._latest.remove_staged()
    self._agent = builder.agent
    self._best = best.Best(folder, self._agent) if evaluates else None
    self._process = process or builder.make_process()
    self._restore()
    self._evaluation = evaluation.Evaluation(builder) if evaluates else None
    self._last_values: dict[str, float] = {}
    self._stop: interruption.Interruption | None = None
    self._exporter = None
    self._is_exported = evaluates and self._training.export_interval is not None
    if self._is_exported and not builder.method.not_served:
      self._exporter = run_exporter.RunExporter(
        builder, folder.exports, keep=self._training.exports_to_keep
      )
    self._console: console.Console | None = None

  @property
  def progress(self) -> progress_lib.Progress:
    """How far the run has come."""
    return self._progress

  def is_stopping(self) -> bool:
    """Tells whether a signal asks the run to stop."""
    return self._stop is not None and self._stop.requested is not None

  @property
  def gradient_steps(self) -> int:
    """Training steps taken, all processes of the run together."""
    return int(self._agent.train_step_counter.numpy())

  def _restore(self) -> None:
    self._progress = progress_lib.Progress()
    newest = self._latest.latest()
    if newest is None:
      return
    try:
      self._progress = progress_lib.read(newest)
      checkpoints.restore(newest, self._variables())
      self._process.restore(self._progress.process)
    except BaseException:
      self.close()
      raise
    if self._best is not None:
      self._best.drop_after(self.gradient_steps, self._progress)

  def _variables(self) -> dict:
    return {'agent': self._agent} | self._process.variables()

  def run(self) -> bool:
    """Trains to the last iteration.

    Returns:
      True at the end of the run, False if a signal or a callback asked to stop (everything is saved
      then).

    Raises:
      DivergenceError: if training stops being finite; the last checkpoint is from before.
      EnvironmentFault: if an environment breaks its contract.
    """
    try:
      return self._run()
    except gymnasium_adapter.PolicyFault as error:
      losses = [f'{n} {v:g}' for n, v in self._last_values.items() if n.startswith('loss/')]
      raise learner.DivergenceError(
        f'{error}. The means of the last losses: {", ".join(losses) or "none yet"}. The last '
        'checkpoint is from before and was kept.'
      ) from error

  def _run(self) -> bool:
    progress = self._progress
    with (
      metrics.MetricsWriter(
        self._folder.root, texts={'configuration': self._builder.experiment.text}
      ) as writer,
      console.Console(
        num_iterations=self._training.num_iterations,
        start_iteration=progress.iteration,
        start_gradient_steps=self.gradient_steps,
        title=f'{self._builder.method.name} {self._folder.root}',
        steps=lambda: self._builder.env_steps + self.gradient_steps,
        log=self._folder.log,
      ) as self._console,
      interruption.Interruption(self._console.notice) as self._stop,
    ):
      writer.truncate_after(progress.iteration)
      self._console.message(self._forecast())
      if self._is_exported and self._exporter is None:
        self._console.message(f'nothing is exported: {self._builder.method.not_served}')
      if progress.has_initial_pool:
        self._console.message(
          f'continuing from iteration {progress.iteration}, {progress.env_steps:,} env steps, '
          f'{self.gradient_steps:,} gradient steps'
        )
      try:
        if not progress.has_initial_pool:
          self._timed('collect', self._prepare)
          self._timed('checkpoint', self.save)
        while progress.iteration < self._training.num_iterations:
          if self.is_stopping() or not self._iterate(writer) or self._stopped_by_callback:
            break
      except agents_builder.StoppedError:
        pass  # It waited for others.
      if progress.iteration == self._training.num_iterations:
        return True
      self._timed('checkpoint', self.save)
      reason = 'a callback' if self._stopped_by_callback else self._stop.requested.name
      self._console.message(f'stopped by {reason}; everything is saved, the same command continues')
      return False

  def _forecast(self) -> str:
    """Returns what the whole run takes, for people."""
    iterations, process = self._training.num_iterations, self._process
    kept = sum(getattr(part, 'max_bytes', 0) for part in process.variables().values())
    text = (
      f'{iterations:,} iterations: about {process.expected_env_steps:,} env steps and '
      f'{iterations * process.steps_per_iteration:,} gradient steps'
    )
    if not kept:
      return text
    return f'{text}; at the end {kept / 1e6:,.1f} MB of memory, and of each checkpoint, are replay'

  def close(self) -> None:
    """Ends the learning process."""
    self._process.close()

  def _timed(self, activity: str, function: Callable, *args):
    self._console.phase(activity)
    started = time.monotonic()
    result = function(*args)
    self._progress.seconds[activity] += time.monotonic() - started
    return result

  def _prepare(self) -> None:
    dropped_before = self._builder.tolerance.num_dropped
    collected = self._process.prepare()
    self._progress.env_steps += collected.env_steps
    self._progress.dropped_episodes += self._builder.tolerance.num_dropped - dropped_before
    self._progress.dropped_episodes += collected.dropped
    self._progress.has_initial_pool = True

  def _iterate(self, writer: metrics.MetricsWriter) -> bool:
    """Runs the rest of the current iteration; returns False if a signal cut it short."""
    progress = self._progress
    if progress.collected_iterations == progress.iteration:
      self._timed('collect', self._collect)
    target = (progress.iteration + 1) * self._process.steps_per_iteration
    while self.gradient_steps < target:
      is_at_start = self.gradient_steps == target - self._process.steps_per_iteration
      if self.is_stopping() and (self._process.keeps_data or is_at_start):
        return False
      steps = min(self._process.steps_per_call, target - self.gradient_steps)
      self._timed('train', self._train, steps)
    self._check_weights()  # The last step may have spoilt what no loss has shown yet.
    is_last = progress.iteration + 1 == self._training.num_iterations
    values = self._last_values = self._training_values()
    evaluated = {}
    if self._evaluation is not None and self._training.evaluates_after(progress.iteration + 1):
      evaluated = self._timed('evaluate', self._evaluation.run, progress.iteration)
      values |= evaluated
    progress.iteration += 1
    progress.scalar_sums, progress.num_summed = {}, 0
    counters = {
      'iteration': progress.iteration,
      'env_steps': progress.env_steps,
      'gradient_steps': self.gradient_steps,
    }
    # Before the checkpoint: a resumed run drops lines that its checkpoint does not know of, but
    # could not write one that is missing.
    record = writer.write(values | self._times(), **counters)
    if evaluated and (is_last or self._is_time_for_figures()):
      writer.write_figures(self._evaluation.figures(), env_steps=progress.env_steps)
    if evaluated:
      self._timed('checkpoint', self._best.keep, evaluated['train/final_return'], progress)
    # Before the checkpoint, too: a run that dies between the two exports once more.
    if self._exporter is not None and self._training.exports_after(progress.iteration):
      self._timed('checkpoint', self._exporter.export, progress.env_steps)
    if is_last or progress.iteration % self._training.checkpoint_interval == 0:
      self._timed('checkpoint', self.save)
    self._console.update(**counters, test_return=evaluated.get('test/final_return'))
    # All of them, whatever the first ones say.
    self._stopped_by_callback = any([callback(record) for callback in self._callbacks])
    return True

  def _is_time_for_figures(self) -> bool:
    interval = self._training.evaluation_interval * _EVALUATIONS_PER_FIGURE
    return self._progress.iteration % interval == 0

  def _collect(self) -> None:
    progress = self._progress
    dropped_before = self._builder.tolerance.num_dropped
    collected = self._process.collect(progress.iteration)
    progress.dropped_episodes += self._builder.tolerance.num_dropped - dropped_before
    progress.dropped_episodes += collected.dropped
    progress.env_steps += collected.env_steps
    progress.iteration_env_steps = collected.env_steps
    progress.collect_returns = collected.returns
    progress.collect_values = dict(collected.values)
    progress.collected_iterations += 1

  def _train(self, num_steps: int) -> None:
    sums = self._process.train(num_steps)
    progress = self._progress
    progress.scalar_sums = {
      name: progress.scalar_sums.get(name, 0.0) + total for name, total in sums.items()
    }
    progress.num_summed += num_steps

  def _training_values(self) -> dict[str, float]:
    progress = self._progress
    values = {name: total / progress.num_summed for name, total in progress.scalar_sums.items()}
    returns = {f'collect/return/{name}': r for name, r in progress.collect_returns.items()}
    values |= returns | progress.collect_values
    return values | {'collect/dropped_episodes': progress.dropped_episodes}

  def _check_weights(self) -> None:
    broken = [v.name for v in self._agent.variables if not np.isfinite(v.numpy()).all()]
    if broken:
      raise learner.DivergenceError(
        f'weights are not finite after gradient step {self.gradient_steps}: {broken[:3]}; nothing '
        'was saved, the last checkpoint is from before'
      )

  def save(self) -> None:
    """Writes a checkpoint.

    Raises:
      DivergenceError: if a weight is not a finite number; nothing is written then.
    """
    self._check_weights()
    progress = self._progress
    if not self._process.keeps_data and progress.collected_iterations > progress.iteration:
      progress.env_steps -= progress.iteration_env_steps
      progress.collected_iterations = progress.iteration
    self._progress.process = self._process.state()
    self._progress.num_saves += 1
    self._latest.save(
      self.gradient_steps,  # Which number the best ones, exports and films, too.
      self._variables(),
      dataclasses.asdict(self._progress),
    )

  def _times(self) -> dict[str, float]:
    seconds = self._progress.seconds
    total = sum(seconds.values())
    values = {f'time/{activity}_seconds': spent for activity, spent in seconds.items()}
    return values | {'time/total_hours': total / 3600, 'time/memory_gib': _memory_gib()}


def _memory_gib() -> float:
  """Returns the resident memory of this process."""
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**30
