"""Meta-test: how well the agent does on a task after a few trajectories of it.

This module owns the evaluation protocol (reference implementation; options in `MetaTest`) and the
record of every trajectory. Reports and plots read the record.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import gin
import numpy as np

from pearl_tf.collect import rollout, schedule, trial
from pearl_tf.data import sampling_scheme, seeds, types


class ScoredEpisode(NamedTuple):
  """One trajectory of a meta-test.

  Attributes:
    task: the task.
    repeat: which of the independent repeats, each starting from the prior.
    index: 0-based number within the repeat.
    episode_return: undiscounted sum of context rewards (sparse where the task has one).
    dense_return: undiscounted sum of dense rewards.
    length: transitions.
    adapted: whether the latent came from the posterior given earlier trajectories.
    latent: `[Z] float32`, the hypothesis acted on; None of a method that has none.
    posterior: mean and variance `[Z]` the latent was drawn from; None likewise.
    observations: `[S + 1, O] float32`, the path.
    success: whether it succeeded, 1 or 0; None where the environment does not say.
  """

  task: types.Task
  repeat: int
  index: int
  episode_return: float
  dense_return: float
  length: int
  adapted: bool
  latent: np.ndarray | None
  posterior: types.Posterior | None
  observations: np.ndarray
  success: float | None = None

  def __repr__(self) -> str:
    """Names the trajectory and its return; the arrays would fill pages."""
    return (
      f'ScoredEpisode(task={self.task.index}, repeat={self.repeat}, index={self.index}, '
      f'episode_return={self.episode_return:.4g}, length={self.length}, adapted={self.adapted})'
    )


class MetaTestResult(NamedTuple):
  """All trajectories of a meta-test, ordered by task, repeat and index.

  Attributes:
    trajectories: the record.
    env_steps: environment steps taken.
    seconds: wall-clock time.
  """

  trajectories: list[ScoredEpisode]
  env_steps: int
  seconds: float

  def __repr__(self) -> str:
    """Counts the trajectories; `report.summarize` says more of them."""
    tasks = {one.task.index for one in self.trajectories}
    return (
      f'MetaTestResult({len(self.trajectories)} trajectories of {len(tasks)} tasks, '
      f'env_steps={self.env_steps}, seconds={self.seconds:.1f})'
    )


@gin.configurable
@dataclasses.dataclass(frozen=True)
class MetaTest:
  """The protocol: repeats per task, steps per repeat, exploration, context.

  Attributes:
    num_repeats: independent repeats per task (`num_evals` of the reference).
    steps_per_repeat: transitions to reach in each repeat, by whole trajectories.
    num_exploration_episodes: trajectories on the prior before the belief follows the context.
    context_size: context transitions drawn with replacement per inference; None (reference) for
      every transition so far.
    context_sampling: 'transitions' or 'trajectories', what `context_size` is drawn by.

  Raises:
    ValueError: if a number is not positive.
  """

  num_repeats: int = 2
  steps_per_repeat: int = 600
  num_exploration_episodes: int = 1
  context_size: int | None = None
  context_sampling: str = sampling_scheme.TRANSITIONS

  def __post_init__(self):
    least = {'num_repeats': 1, 'steps_per_repeat': 1, 'num_exploration_episodes': 0}
    if self.context_size is not None:
      least['context_size'] = 1
    for name, number in least.items():
      value = getattr(self, name)
      if not isinstance(value, int) or value < number:
        raise ValueError(f'MetaTest.{name} must be an integer of at least {number}, got {value!r}')
    self._phase  # noqa: B018 - refuses what contradicts itself.

  @property
  def _phase(self) -> schedule.Phase:
    return schedule.Phase(
      'meta_test',
      self.steps_per_repeat,
      num_prior_episodes=self.num_exploration_episodes,
      in_context=True,
      context_size=self.context_size,
      context_sampling=self.context_sampling,
    )

  def run(
    self,
    tasks: Sequence[types.Task],
    rollouts: rollout.Rollout,
    *,
    seed: int | np.random.SeedSequence,
    on_episode: Callable[[rollout.FinishedEpisode], None] = lambda episode: None,
  ) -> MetaTestResult:
    """Meta-tests on every task.

    Args:
      tasks: the tasks; each repeat of each is an independent trial.
      rollouts: environments and the policy under test.
      seed: source of all randomness; a number stands for that stream of `data.seeds`.
      on_episode: called with every finished episode, in the order they finish.

    Returns:
      The record of all trajectories.
    """
    if not isinstance(seed, np.random.SeedSequence):
      seed = seeds.sequence(seed, seeds.Stream.META_TEST)
    started = time.monotonic()
    keys = [(task, repeat) for task in tasks for repeat in range(self.num_repeats)]
    trials = [trial.Trial(task, [self._phase]) for task, _ in keys]
    finished: list[rollout.FinishedEpisode] = []

    def keep(episode: rollout.FinishedEpisode) -> None:
      on_episode(episode)
      finished.append(episode)

    env_steps = rollouts.run(trials, seed=seed, on_episode=keep)
    finished.sort(key=lambda episode: (episode.trial_index, episode.index))
    trajectories = [_trajectory(episode, keys[episode.trial_index][1]) for episode in finished]
    return MetaTestResult(trajectories, env_steps, time.monotonic() - started)


def _trajectory(finished: rollout.FinishedEpisode, repeat: int) -> ScoredEpisode:
  episode = finished.episode
  return ScoredEpisode(
    task=finished.task,
    repeat=repeat,
    index=finished.index,
    episode_return=float(np.sum(episode.context_reward, dtype=np.float64)),
    dense_return=float(np.sum(episode.reward, dtype=np.float64)),
    length=len(episode.reward),
    adapted=finished.adapted,
    latent=getattr(finished.state, 'latent', None),
    posterior=getattr(finished.state, 'posterior', None),
    observations=np.concatenate([episode.observation, episode.next_observation[-1:]]),
    success=finished.success,
  )
