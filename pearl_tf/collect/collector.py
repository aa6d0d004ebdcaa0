"""Training data: the schedule, executed on the training tasks and written to the replay."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from pearl_tf.collect import rollout, schedule, trial
from pearl_tf.data import sampling_scheme, types
from pearl_tf.replay import writer


class Collected(NamedTuple):
  """What a round of collection brought.

  Attributes:
    env_steps: transitions collected.
    returns: mean undiscounted return (context reward) of the episodes of each phase, by its name.
    dropped: episodes that were thrown away by environments of other processes, see `Tolerance`.
    values: other values for the log, by name.
  """

  env_steps: int
  returns: dict[str, float]
  dropped: int = 0
  values: Mapping[str, float] = MappingProxyType({})


class Collector:
  """Runs trials on training tasks and writes every episode to the replay."""

  def __init__(
    self,
    rollouts: rollout.Rollout,
    replay_writer: writer.ReplayWriter,
    collect_schedule: schedule.CollectSchedule,
    *,
    context_size: int,
    context_sampling: str = sampling_scheme.TRANSITIONS,
    after_episode: Callable[[], None] = lambda: None,
  ):
    """Connects a rollout with a replay.

    Args:
      rollouts: environments and the exploring policy.
      replay_writer: where episodes go.
      collect_schedule: what a visit to a task consists of.
      context_size: context transitions per inference during collection.
      context_sampling: 'transitions' or 'trajectories', how they are drawn.
      after_episode: called after each that was written; may raise to end the collection.
    """
    self._rollout = rollouts
    self._writer = replay_writer
    self._schedule = collect_schedule
    self._after_episode = after_episode
    self._phases = collect_schedule.visit_phases(context_size, context_sampling)

  def fill(self, tasks: Sequence[types.Task], *, seed: np.random.SeedSequence) -> Collected:
    """Collects the initial pool of every task, on the prior with the policy as it is."""
    trials = [trial.Trial(task, self._schedule.initial_phases()) for task in tasks]
    return self._run(trials, seed, 0)

  def visit(
    self, tasks: Sequence[types.Task], *, seed: np.random.SeedSequence, number: int
  ) -> Collected:
    """Visits tasks side by side; each visit replaces the task's context.

    A task may be listed more than once. As if the visits had come one after the other, each infers
    its beliefs from its own data and the last one leaves its context.

    Args:
      tasks: the tasks.
      seed: source of all randomness.
      number: of this round of visits, from 1, growing over the run.
    """
    return self._run([trial.Trial(task, self._phases) for task in tasks], seed, number)

  def _run(
    self, trials: Sequence[trial.Trial], seed: np.random.SeedSequence, number: int
  ) -> Collected:
    last_visit = {current.task.index: index for index, current in enumerate(trials)}
    returns: dict[str, list[float]] = defaultdict(list)

    def write(finished: rollout.FinishedEpisode) -> None:
      is_last_visit = last_visit[finished.task.index] == finished.trial_index
      self._writer.write(
        finished.task.index,
        finished.episode,
        in_context=finished.in_context and is_last_visit,
        visit=number,
        phase=schedule.PHASES.index(finished.phase),
      )
      returns[finished.phase].append(float(np.sum(finished.episode.context_reward)))
      self._after_episode()

    env_steps = self._rollout.run(trials, seed=seed, on_episode=write)
    self._writer.flush()
    return Collected(env_steps, {phase: float(np.mean(r)) for phase, r in returns.items()})
