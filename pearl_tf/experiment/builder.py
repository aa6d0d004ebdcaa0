"""Builds every part of an experiment.

Process layouts (`local_loop`, evaluation, export) call the same builder and differ only in which
parts they ask for.
"""

import functools
import pathlib

import tensorflow as tf

from pearl_tf.agents import pearl_agent
from pearl_tf.collect import acting, collector, rollout
from pearl_tf.data import specs
from pearl_tf.environments import gymnasium_adapter
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.experiment import learner, run_folder, seeds, tasks
from pearl_tf.export import evidence
from pearl_tf.replay import cache, feeder, packing, server, writer


class Builder:
  """Parts of an experiment, made when first asked for.

  Numbers that contradict each other are refused here, before anything long starts.
  """

  def __init__(
    self, experiment: experiment_lib.Experiment, folder: run_folder.RunFolder | None = None
  ):
    """Throws the switches of the process, checks the numbers and makes the first environment.

    Args:
      experiment: what is built.
      folder: keeps the task split: read from there if it exists, else written there. None for an
        experiment that is not kept.

    Raises:
      ValueError: if a number is impossible.
    """
    experiment.set_op_determinism()
    self.experiment = experiment
    self.seed = experiment.seed
    self.training = experiment.training
    self.schedule = experiment.schedule
    self.training.check_context(self.schedule)
    self.meta_test = experiment.meta_test
    self._environments = [self._make_environment()]
    self.keep_tasks(folder)
    first = self._environments[0]
    self.domain = specs.DomainSpec(
      observation_size=first.observation_spec().shape[0],
      action_size=first.action_spec().shape[0],
    )
    self.layout = packing.PackedLayout(*self.domain)

  def _make_environment(self) -> gymnasium_adapter.GymnasiumAdapter:
    return gymnasium_adapter.GymnasiumAdapter(
      self.experiment.make_environment(), max_episode_steps=self.training.max_episode_steps
    )

  def check(self) -> None:
    """Builds everything a run needs, so that whatever is impossible shows before it starts.

    Raises:
      ValueError: if a number is impossible.
    """
    replay = Replay(self)
    try:
      self.make_learner(replay)
      if self.training.export_interval is not None:
        evidence.of(self.agent.encoder)
    finally:
      replay.stop()

  def keep_tasks(self, folder: run_folder.RunFolder | None) -> None:
    """Takes the task split of a folder, or samples it and keeps it there.

    Args:
      folder: read from if it has the tasks, else written to; None samples only.
    """
    if folder is not None and folder.tasks.is_file():
      self.tasks = tasks.load(folder.tasks)
      return
    default_seed = int(seeds.sequence(self.seed, seeds.Stream.TASKS).generate_state(1)[0])
    self.tasks = self.experiment.sample_task_split(
      self._environments[0].gymnasium_env, default_seed=default_seed
    )
    if folder is not None:
      tasks.save(self.tasks, folder.tasks)

  def replay_capacity(self) -> int:
    """Returns the transitions that the learner's cache holds."""
    return self.training.replay_capacity or self.schedule.max_transitions(
      num_tasks=len(self.tasks.train),
      num_iterations=self.training.num_iterations,
      max_episode_steps=self.training.max_episode_steps,
    )

  def environments(self, number: int) -> list[gymnasium_adapter.GymnasiumAdapter]:
    """Returns the first `number` environments of a pool that grows as needed."""
    while len(self._environments) < number:
      self._environments.append(self._make_environment())
    return self._environments[:number]

  @functools.cached_property
  def agent(self) -> pearl_agent.PearlAgent:
    """The agent, with fresh variables."""
    counter = tf.Variable(0, dtype=tf.int64, trainable=False, name='train_step')
    agent = self.experiment.agent_class(self.domain, train_step_counter=counter, seed=self.seed)
    agent.initialize()
    self.training.check_order(agent.encoder.order_matters)
    self.meta_test.check_order(agent.encoder.order_matters)
    return agent

  def make_rollout(self, *, deterministic: bool, num_environments: int) -> rollout.Rollout:
    """Returns a rollout of the agent's greedy (meta-test) or exploring (collection) policy."""
    policy = self.agent.policy if deterministic else self.agent.collect_policy
    return rollout.Rollout(
      self.environments(num_environments),
      acting.Acting(self.domain, policy, self.agent.infer_posterior),
    )

  def make_collector(self, replay: 'Replay') -> collector.Collector:
    """Returns the collector of training data."""
    number = min(self.training.num_environments, len(self.tasks.train))
    number = max(number, min(self.training.num_environments, self.schedule.tasks_per_iteration))
    return collector.Collector(
      self.make_rollout(deterministic=False, num_environments=number),
      replay.writer,
      self.schedule,
      context_size=self.training.context_size,
      context_sampling=self.training.context_sampling,
    )

  def make_learner(self, replay: 'Replay') -> learner.Learner:
    """Returns the learner on the configured sampler."""
    return learner.Learner(
      self.agent, replay.sampler, seed=seeds.sequence(self.seed, seeds.Stream.REPLAY)
    )


class Replay:
  """The replay of one process: server, writer, learner-side cache and sampler."""

  def __init__(
    self,
    builder: Builder,
    *,
    restore_from: pathlib.Path | None = None,
    scratch_directory: pathlib.Path | None = None,
  ):
    """Starts the server.

    Args:
      builder: the experiment.
      restore_from: replay part of a checkpoint; None starts empty.
      scratch_directory: where checkpoints are written before they are moved to their place.
    """
    self.server = server.ReplayServer(
      builder.layout,
      len(builder.tasks.train),
      restore_from=restore_from,
      scratch_directory=scratch_directory,
      make_tables=builder.experiment.make_tables,
    )
    try:
      self._connect(builder)
    except BaseException:
      self.server.stop()  # Otherwise the process would wait for it for minutes when it ends.
      raise

  def _connect(self, builder: Builder) -> None:
    num_tasks = len(builder.tasks.train)
    sizes = {
      'meta_batch_size': builder.training.meta_batch_size,
      'context_size': builder.training.context_size,
      'batch_size': builder.training.batch_size,
    }
    # Nothing is copied for a learner that samples from the tables: they may exceed its memory.
    has_cache = builder.training.sampler == 'cache'
    self.writer = writer.ReplayWriter(
      self.server.client, builder.layout, max_pending_episodes=16, feed_cache=has_cache
    )
    self.cache = self._feeder = None
    if has_cache:
      rule = builder.training.batch_rule
      self.cache = builder.experiment.cache_class(
        builder.layout,
        num_tasks,
        capacity=builder.replay_capacity(),
        keep_trajectories=rule.needs_trajectories,
      )
      self._feeder = feeder.Feeder(self.cache, self.server.address)
      self.sampler = cache.CacheSampler(self.cache, rule=rule, **sizes)
    else:
      self.sampler = builder.experiment.sampler_class(
        self.server.address, builder.layout, num_tasks, **sizes
      )

  def drain(self) -> int:
    """Takes what was collected since the last call into the learner's cache."""
    return self._feeder.drain() if self._feeder is not None else 0

  def stop(self) -> None:
    """Closes the writer and stops the server."""
    try:
      self.writer.close()
    finally:
      self.server.stop()
