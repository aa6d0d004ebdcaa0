"""The whole benchmark of an experiment: every part in order, one record each.

The experiment is built as training would build it and its replay is filled with synthetic
transitions. Every figure is taken in the run that reports it; only the projection is derived from
others, and says so. How a report looks is the matter of `report`.
"""

import math
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment.benchmark import environments, learning, machine, storage

Record = dict[str, Any]


class Benchmark:
  """Measures one experiment."""

  def __init__(
    self,
    builder: builder_lib.Builder,
    *,
    seconds: float = 20.0,
    replay_transitions: int = 300_000,
    num_environments: int = 8,
    min_rounds: int = 3,
    scratch_directory: str | None = None,
  ):
    """Prepares the measurement; nothing is built yet.

    Args:
      builder: the experiment.
      seconds: how long each timed part goes on, once it has its fewest rounds.
      replay_transitions: synthetic transitions in the replay, at least; see `storage.fill`.
      num_environments: environments of the collection that is reported.
      min_rounds: the fewest rounds of each timed part.
      scratch_directory: existing folder on the disk whose checkpoints are to be timed; None for
        the system's temporary one. What is written there is removed.

    Raises:
      ValueError: if a number is not positive.
    """
    numbers = {
      'seconds': seconds,
      'replay_transitions': replay_transitions,
      'num_environments': num_environments,
      'min_rounds': min_rounds,
    }
    for name, number in numbers.items():
      if number <= 0:
        raise ValueError(f'{name} must be positive, got {number}')
    self._builder = builder
    self._rounds = {'seconds': seconds, 'min_rounds': min_rounds}
    self._replay_transitions = replay_transitions
    self._num_environments = num_environments
    self._scratch_directory = scratch_directory

  def run(self, announce: Callable[[str], None] = lambda text: None) -> list[Record]:
    """Measures every part.

    Args:
      announce: told which part begins, and how long it took.

    Returns:
      One record per part: plain data, `part` names it, and the names of the figures tell units.

    Raises:
      ConfigError: if the networks have no floor.
      EnvironmentFault: if an environment breaks its contract.
    """
    with tempfile.TemporaryDirectory(
      prefix='pearl-benchmark-', dir=self._scratch_directory
    ) as directory:
      self._directory = pathlib.Path(directory)
      self._process = self._builder.make_process()
      try:
        return self._measure(announce)
      finally:
        self._process.close()

  def _measure(self, announce: Callable[[str], None]) -> list[Record]:
    parts = {
      'machine': machine.describe,
      'experiment': lambda: describe(self._builder),
      'replay': self._fill,
      'gradient_step': lambda: learning.gradient_step(self._builder, self._process, **self._rounds),
      'collection': lambda: environments.collection(
        self._builder, self._process, num_environments=self._num_environments, **self._rounds
      ),
      'evaluation': lambda: environments.evaluation(self._builder, **self._rounds),
      'checkpoint': self._save,
      # Here, after all that training does and before what only a benchmark does.
      'memory': lambda: {'peak_gib': machine.peak_memory_gib()},
      'floor': lambda: learning.floor(
        self._builder, step_ms=records['gradient_step']['ms'], **self._rounds
      ),
      'restore': self._restore,
      'projection': lambda: project(self._builder, records),
    }
    records: dict[str, Record] = {}
    for number, (name, measure) in enumerate(parts.items(), start=1):
      title = f'part {number} of {len(parts)}, {name.replace("_", " ")}'
      announce(f'{title} ...')
      started = time.perf_counter()
      records[name] = {'part': name, **measure()}
      announce(f'{title}: {time.perf_counter() - started:.1f} s')
    return list(records.values())

  def _fill(self) -> Record:
    return storage.fill(self._builder, self._process, num_transitions=self._replay_transitions)

  def _save(self) -> Record:
    self._saved, record = storage.save(
      self._builder, self._process, self._directory / 'checkpoints'
    )
    return record

  def _restore(self) -> Record:
    self._process.close()
    self._process, record = storage.restore(self._builder, self._saved)
    return record


def describe(builder: builder_lib.Builder) -> Record:
  """Returns what is measured: names and shapes."""
  training = builder.method.training
  return {
    'environment': builder.environments(1)[0].name,
    'observation_size': builder.domain.observation_size,
    'action_size': builder.domain.action_size,
    'train_tasks': len(builder.tasks.train),
    'test_tasks': len(builder.tasks.test),
    'meta_batch_size': training.meta_batch_size,
    'context_size': training.context_size,
    'batch_size': training.batch_size,
    'seed': builder.seed,
  }


def project(builder: builder_lib.Builder, records: dict[str, Record]) -> Record:
  """Derives the wall clock of a whole run from the medians of the other parts.

  The initial pool is taken at the rate of the reported collection, an evaluation as one of the test
  tasks and as many training tasks, and each as the best so far, whose weights are saved.

  Args:
    builder: knows the schedule.
    records: by part.
  """
  training, tasks = builder.training, builder.tasks
  iterations = training.num_iterations
  evaluations = math.ceil(iterations / training.evaluation_interval)
  saves = 1 + math.ceil(iterations / training.checkpoint_interval)
  evaluated_tasks = len(tasks.test) + min(len(tasks.test), len(tasks.train))
  episodes = math.ceil(builder.method.schedule.initial_steps / training.max_episode_steps)
  initial_pool = len(tasks.train) * episodes * training.max_episode_steps
  collection, checkpoint = records['collection'], records['checkpoint']
  seconds_per_task = records['evaluation']['seconds'] / records['evaluation']['tasks']
  steps = iterations * builder.method.training.gradient_steps_per_iteration
  seconds = {
    'train': steps * records['gradient_step']['ms'] / 1000,
    'collect': iterations * collection['iteration_seconds']
    + initial_pool / collection['collection_steps_per_second'],
    'evaluate': evaluations * evaluated_tasks * seconds_per_task,
    'checkpoint': saves * checkpoint['save_seconds']
    + evaluations * checkpoint['save_weights_seconds'],
  }
  total = sum(seconds.values())
  return {
    'derived': True,
    'iterations': iterations,
    'env_steps': initial_pool + iterations * collection['iteration_env_steps'],
    'gradient_steps': steps,
    'evaluation_interval': training.evaluation_interval,
    'checkpoint_interval': training.checkpoint_interval,
    'hours': {name: each / 3600 for name, each in seconds.items()},
    'total_hours': total / 3600,
    'percent': {name: 100 * each / total for name, each in seconds.items()},
    'beside_training_percent': 100 * (1 - seconds['train'] / total),
  }
