"""Meta-training in one process: collect, train, evaluate, checkpoint, and go on where it stopped.

This module owns the order of things and the progress of a run. Everything it calls draws its
randomness from the seed and a counter kept in the progress, so whatever the moment a run dies, the
one resumed from its last checkpoint reports what the uninterrupted run would have reported.
"""

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pearl_tf.agents import learner
from pearl_tf.environments import gymnasium_adapter
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import (
  checkpoints,
  config,
  console,
  evaluation,
  interruption,
  metrics,
  run_exporter,
  run_folder,
)
from pearl_tf.experiment import experiment as experiment_lib

LATEST = 'latest'
BEST = 'best'
EVALUATIONS_OF_BEST = 5
# TensorBoard gets figures of every so many evaluations and of the last one.
_EVALUATIONS_PER_FIGURE = 10

Callback = Callable[[Mapping[str, float | None]], bool | None]


@dataclasses.dataclass
class Progress:
  """How far a run has come: plain data, saved with every checkpoint.

  Attributes:
    has_initial_pool: whether the initial pool was collected.
    iteration: finished iterations.
    collected_iterations: iterations whose data was collected; ahead of `iteration` by one while it
      trains.
    env_steps: training transitions collected.
    iteration_env_steps: of these in the newest collected iteration.
    recent_returns: final returns on training tasks of the last evaluations, oldest first.
    best_return: highest mean of them so far.
    dropped_episodes: thrown away in collection, see `Tolerance`.
    collect_returns: mean return per phase of the current iteration's data.
    scalar_sums: sums of the training scalars over the current iteration.
    num_summed: training steps in those sums.
    num_saves: checkpoints written so far.
    seconds: wall-clock seconds by activity, all processes of the run together.
    replay_writer: state of the learning process.
  """

  has_initial_pool: bool = False
  iteration: int = 0
  collected_iterations: int = 0
  env_steps: int = 0
  iteration_env_steps: int = 0
  dropped_episodes: int = 0
  recent_returns: list[float] = dataclasses.field(default_factory=list)
  best_return: float | None = None
  collect_returns: dict[str, float] = dataclasses.field(default_factory=dict)
  scalar_sums: dict[str, float] = dataclasses.field(default_factory=dict)
  num_summed: int = 0
  num_saves: int = 0
  seconds: dict[str, float] = dataclasses.field(
    default_factory=lambda: dict.fromkeys(console.PHASES, 0.0)
  )
  process: dict = dataclasses.field(default_factory=dict)


def train(
  root_dir: str | os.PathLike,
  *,
  gin_files: Sequence[str],
  gin_bindings: Sequence[str] = (),
  seed: int = 0,
  callbacks: Sequence[Callback] = (),
) -> bool:
  """Trains into a run folder, from the start or from its last checkpoint.

  Args:
    root_dir: the run folder.
    gin_files: configuration files.
    gin_bindings: single bindings, override the files.
    seed: the run's seed.
    callbacks: each is called after every iteration with its line of metrics, as `metrics.jsonl` has
      it, and may return True to stop the run as a signal does.

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
  folder = run_folder.RunFolder(root_dir)
  with config.as_config_error():  # Before the folder is touched.
    builder = builder_lib.Builder(experiment)
    builder.check()
  with folder.lock():
    changes = folder.claim(experiment.text, seed)
    builder.keep_tasks(folder)
    loop = LocalLoop(builder, folder, callbacks)
    if changes:
      logging.warning('the configuration of the run changes: %s', '; '.join(changes))
    try:
      return loop.run()
    finally:
      loop.close()


class LocalLoop:
  """One run in one process."""

  def __init__(
    self,
    builder: builder_lib.Builder,
    folder: run_folder.RunFolder,
    callbacks: Sequence[Callback] = (),
  ):
    """Builds every part and restores the newest checkpoint of the folder, if there is one.

    Args:
      builder: the experiment.
      folder: the run folder, already claimed for this experiment.
      callbacks: see `train`.
    """
    self._builder = builder
    self._callbacks = callbacks
    self._stopped_by_callback = False
    self._folder = folder
    self._training = builder.training
    self._latest = checkpoints.Checkpoints(
      folder.checkpoints, prefix=LATEST, keep=self._training.checkpoints_to_keep
    )
    self._best = checkpoints.Checkpoints(folder.checkpoints, prefix=BEST, keep=1)
    self._latest.remove_staged()
    self._best.remove_staged()
    self._agent = builder.agent
    self._restore()
    self._evaluation = evaluation.Evaluation(builder)
    self._last_values: dict[str, float] = {}
    self._exporter = None
    if self._training.export_interval is not None and not builder.method.not_served:
      self._exporter = run_exporter.RunExporter(
        builder, folder.exports, keep=self._training.exports_to_keep
      )
    self._console: console.Console | None = None

  @property
  def progress(self) -> Progress:
    """How far the run has come."""
    return self._progress

  @property
  def gradient_steps(self) -> int:
    """Training steps taken, all processes of the run together."""
    return int(self._agent.train_step_counter.numpy())

  def _restore(self) -> None:
    self._progress = Progress()
    self._process = self._builder.make_process()
    newest = self._latest.latest()
    if newest is None:
      return
    try:
      self._progress = Progress(**checkpoints.progress(newest))
      checkpoints.restore(newest, self._variables())
      self._process.restore(self._progress.process)
    except BaseException:
      self.close()
      raise
    # What was best after this checkpoint is of a future that is gone, and it may have taken the
    # place of what was best before.
    self._best.drop_after(self.gradient_steps)
    if self._best.latest() is None:
      self._progress.best_return = None

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
      interruption.Interruption(self._console.notice) as stop,
    ):
      writer.truncate_after(progress.iteration)
      if self._training.export_interval is not None and self._exporter is None:
        self._console.message(f'nothing is exported: {self._builder.method.not_served}')
      if progress.has_initial_pool:
        self._console.message(
          f'continuing from iteration {progress.iteration}, {progress.env_steps:,} env steps, '
          f'{self.gradient_steps:,} gradient steps'
        )
      else:
        self._timed('collect', self._prepare)
        self._timed('checkpoint', self._save)
      while progress.iteration < self._training.num_iterations:
        stopped = stop.requested or not self._iterate(writer, stop) or self._stopped_by_callback
        if stopped and progress.iteration < self._training.num_iterations:
          self._timed('checkpoint', self._save)
          reason = 'a callback' if self._stopped_by_callback else stop.requested.name
          self._console.message(
            f'stopped by {reason}; everything is saved, the same command continues'
          )
          return False
      return True

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
    self._progress.env_steps += self._process.prepare().env_steps
    self._progress.dropped_episodes += self._builder.tolerance.num_dropped - dropped_before
    self._progress.has_initial_pool = True

  def _iterate(self, writer: metrics.MetricsWriter, stop: interruption.Interruption) -> bool:
    """Runs the rest of the current iteration; returns False if a signal cut it short."""
    progress = self._progress
    if progress.collected_iterations == progress.iteration:
      self._timed('collect', self._collect)
    target = (progress.iteration + 1) * self._process.steps_per_iteration
    while self.gradient_steps < target:
      is_at_start = self.gradient_steps == target - self._process.steps_per_iteration
      if stop.requested and (self._process.keeps_data or is_at_start):
        return False
      steps = min(self._process.steps_per_call, target - self.gradient_steps)
      self._timed('train', self._train, steps)
    self._check_weights()  # The last step may have spoilt what no loss has shown yet.
    is_last = progress.iteration + 1 == self._training.num_iterations
    values = self._last_values = self._training_values()
    evaluated = {}
    if is_last or (progress.iteration + 1) % self._training.evaluation_interval == 0:
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
      self._keep_if_best(evaluated['train/final_return'])
    # Before the checkpoint, too: a run that dies between the two exports once more.
    if self._exporter is not None and self._training.exports_after(progress.iteration):
      self._timed('checkpoint', self._exporter.export, progress.env_steps)
    if is_last or progress.iteration % self._training.checkpoint_interval == 0:
      self._timed('checkpoint', self._save)
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
    progress.env_steps += collected.env_steps
    progress.iteration_env_steps = collected.env_steps
    progress.collect_returns = collected.returns
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
    return values | returns | {'collect/dropped_episodes': progress.dropped_episodes}

  def _keep_if_best(self, train_return: float) -> None:
    """Keeps the agent if the mean of its last evaluations on training tasks is the best so far.

    Not the highest evaluation on test tasks: of many noisy ones the highest is mostly luck, and
    what was chosen by the test tasks no longer says how well new tasks are solved.
    """
    progress = self._progress
    progress.recent_returns = [*progress.recent_returns, train_return][-EVALUATIONS_OF_BEST:]
    mean_return = float(np.mean(progress.recent_returns))
    if progress.best_return is None or mean_return > progress.best_return:
      progress.best_return = mean_return
      self._timed(
        'checkpoint',
        lambda: self._best.save(
          self.gradient_steps, {'agent': self._agent}, dataclasses.asdict(progress)
        ),
      )

  def _check_weights(self) -> None:
    broken = [v.name for v in self._agent.variables if not np.isfinite(v.numpy()).all()]
    if broken:
      raise learner.DivergenceError(
        f'weights are not finite after gradient step {self.gradient_steps}: {broken[:3]}; nothing '
        'was saved, the last checkpoint is from before'
      )

  def _save(self) -> None:
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
