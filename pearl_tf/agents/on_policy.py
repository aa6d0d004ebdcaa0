"""Learning from what the present parameters collect, and from nothing older.

A round of collection is what the next gradient steps learn from; no replay keeps it. A run that is
interrupted collects the iteration again: the same seed and parameters give the same episodes.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from pearl_tf.agents import builder, learner
from pearl_tf.collect import actor, collector, rollout, schedule, trial
from pearl_tf.data import seeds, types


class OnPolicyAgent(Protocol):
  """What learns; a `builder.Agent`, too."""

  train_step_counter: tf.Variable

  def take(self, episodes: Mapping[str, Sequence[Sequence[types.Episode]]]) -> None:
    """Takes the data of an iteration: of each phase, by its name, the episodes of each trial."""

  def train(self) -> dict[str, float]:
    """Takes one gradient step on them; returns scalars for the log."""


class OnPolicyTraining:
  """The learning process of every on-policy method; a `builder.LearningProcess`."""

  keeps_data = False

  def __init__(
    self,
    agent: OnPolicyAgent,
    acting: actor.Actor,
    run: builder.Run,
    *,
    phases: Sequence[schedule.Phase],
    tasks_per_iteration: int,
    steps_per_iteration: int,
  ):
    """Connects the parts.

    Args:
      agent: learns.
      acting: collects.
      run: where.
      phases: of a visit to a task.
      tasks_per_iteration: visits an iteration, drawn with replacement.
      steps_per_iteration: gradient steps on their data.

    Raises:
      ValueError: if a number is not positive.
    """
    if tasks_per_iteration < 1 or steps_per_iteration < 1:
      raise ValueError(
        'an iteration needs at least one task and one gradient step, got '
        f'{tasks_per_iteration} and {steps_per_iteration}'
      )
    each = tasks_per_iteration * sum(phase.num_steps for phase in phases)
    self.expected_env_steps = run.training.num_iterations * each
    self.steps_per_iteration = steps_per_iteration
    self.steps_per_call = 1
    self._agent, self._run, self._phases = agent, run, phases
    self._tasks_per_iteration = tasks_per_iteration
    number = min(run.training.num_environments, tasks_per_iteration)
    self._rollout = rollout.Rollout(run.environments(number), acting)

  def prepare(self) -> collector.Collected:
    """Collects nothing: there is nothing to fill."""
    return collector.Collected(0, {})

  def collect(self, iteration: int) -> collector.Collected:
    """Visits tasks drawn with replacement."""
    tasks, seed = self._run.train_tasks, self._run.seed
    random = np.random.default_rng(seeds.sequence(seed, seeds.Stream.VISITS, iteration))
    drawn = random.integers(len(tasks), size=self._tasks_per_iteration)
    episodes = {phase.name: [[] for _ in drawn] for phase in self._phases}
    returns = defaultdict(list)

    def keep(finished: rollout.FinishedEpisode) -> None:
      episodes[finished.phase][finished.trial_index].append(finished.episode)
      returns[finished.phase].append(float(np.sum(finished.episode.context_reward)))

    env_steps = self._rollout.run(
      [trial.Trial(tasks[index], self._phases) for index in drawn],
      seed=seeds.sequence(seed, seeds.Stream.COLLECT, iteration),
      on_episode=keep,
    )
    self._agent.take(episodes)
    return collector.Collected(env_steps, {name: float(np.mean(r)) for name, r in returns.items()})

  def train(self, num_steps: int) -> dict[str, float]:
    totals = defaultdict(float)
    for _ in range(num_steps):
      for name, value in self._agent.train().items():
        totals[name] += value
    broken = sorted(name for name, total in totals.items() if not np.isfinite(total))
    if broken:
      raise learner.DivergenceError(
        f'training diverged at gradient step {int(self._agent.train_step_counter)}: '
        f'{", ".join(broken)} not finite. The last checkpoint is from before and was kept.'
      )
    return dict(totals)

  def variables(self) -> dict[str, Any]:
    return {}

  def state(self) -> dict[str, Any]:
    return {}

  def restore(self, state: dict[str, Any]) -> None:
    del state

  def close(self) -> None:
    pass
