"""Learning from a replay: visits to tasks fill it, gradient steps draw from it."""

from typing import Any

import numpy as np

from pearl_tf.agents import builder, learner
from pearl_tf.agents.pearl import agent as pearl_agent
from pearl_tf.agents.pearl import training
from pearl_tf.collect import collector, schedule
from pearl_tf.data import seeds
from pearl_tf.replay import cache, local


class ReplayTraining:
  """The learning process of PEARL; a `builder.LearningProcess`.

  Attributes:
    replay: what was collected.
    collector: what collects.
    learner: what takes gradient steps.
  """

  keeps_data = True

  def __init__(
    self,
    agent: pearl_agent.PearlAgent,
    collecting: collector.Collector,
    replay: local.Replay,
    *,
    sizes: training.PearlTraining,
    collect_schedule: schedule.CollectSchedule,
    run: builder.Run,
    expected_env_steps: int,
  ):
    """Connects the parts.

    Args:
      agent: learns.
      collecting: writes to the replay.
      replay: closed with the process.
      sizes: of gradient steps and batches.
      collect_schedule: what a visit to a task consists of.
      run: where.
      expected_env_steps: of the whole run.
    """
    self.expected_env_steps = expected_env_steps
    self.steps_per_iteration = sizes.gradient_steps_per_iteration
    self.steps_per_call = sizes.steps_per_call
    self.replay = replay
    self._run = run
    self._sizes = sizes
    self._schedule = collect_schedule
    self.collector = collecting
    self.learner = learner.Learner(
      agent,
      cache.CacheSampler(replay.cache, scheme=sizes.sampling_scheme, **sizes.batch_sizes),
      seed=seeds.sequence(run.seed, seeds.Stream.REPLAY),
    )

  def prepare(self) -> collector.Collected:
    """Fills the initial pool."""
    seed = seeds.sequence(self._run.seed, seeds.Stream.INITIAL_POOL)
    collected = self.collector.fill(self._run.train_tasks, seed=seed)
    self.replay.drain()
    return collected

  def collect(self, iteration: int) -> collector.Collected:
    """Visits tasks drawn with replacement."""
    tasks, seed = self._run.train_tasks, self._run.seed
    random = np.random.default_rng(seeds.sequence(seed, seeds.Stream.VISITS, iteration))
    drawn = random.integers(len(tasks), size=self._schedule.tasks_per_iteration)
    collected = self.collector.visit(
      [tasks[index] for index in drawn],
      seed=seeds.sequence(seed, seeds.Stream.COLLECT, iteration),
      number=iteration + 1,
    )
    self.replay.drain()
    return collected

  def train(self, num_steps: int) -> dict[str, float]:
    return self.learner.run(num_steps)

  def variables(self) -> dict[str, Any]:
    return {'cache': self.replay.cache}

  def state(self) -> dict[str, Any]:
    return {}

  def restore(self, state: dict[str, Any]) -> None:
    del state
    self.replay.refill_tables()

  def close(self) -> None:
    self.replay.stop()
