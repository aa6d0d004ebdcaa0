"""Builds every part of an experiment.

Process layouts (`local_loop`, evaluation, export) call the same builder and differ only in which
parts they ask for.
"""

import functools
import logging

import tensorflow as tf

from pearl_tf.agents import builder as agents_builder
from pearl_tf.collect import actor, rollout
from pearl_tf.data import files, seeds, specs
from pearl_tf.environments import gymnasium_adapter
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.experiment import run_folder, task_split


class Builder:
  """Parts of an experiment, made when first asked for.

  Numbers that contradict each other are refused here, before anything long starts.
  """

  def __init__(
    self,
    experiment: experiment_lib.Experiment,
    folder: run_folder.RunFolder | None = None,
    *,
    strategy: tf.distribute.Strategy | None = None,
  ):
    """Throws the switches of the process, checks the numbers and makes the first environment.

    Args:
      experiment: what is built.
      folder: keeps the task split: read from there if it exists, else written there. None for an
        experiment that is not kept.
      strategy: the devices that share a training step; one device by default.

    Raises:
      ValueError: if a number is impossible, or the method cannot train on several devices.
    """
    experiment.set_op_determinism()
    self.experiment = experiment
    self.seed = experiment.seed
    self.method = experiment.method
    self._strategy = strategy or tf.distribute.get_strategy()
    if self._strategy.num_replicas_in_sync > 1 and self.method.not_replicated:
      raise ValueError(
        f'{self.method.name} cannot train on {self._strategy.num_replicas_in_sync} devices: '
        f'{self.method.not_replicated}'
      )
    self.training = experiment.training
    self.meta_test = experiment.meta_test
    self.tolerance = experiment.make_tolerance()
    self._environments = [self._make_environment()]
    self.keep_tasks(folder)
    first = self._environments[0]
    self.domain = specs.DomainSpec(
      observation_size=first.observation_spec().shape[0],
      action_size=first.action_spec().shape[0],
    )

  def _make_environment(self) -> gymnasium_adapter.GymnasiumAdapter:
    return gymnasium_adapter.GymnasiumAdapter(
      self.experiment.make_environment(),
      max_episode_steps=self.training.max_episode_steps,
      tolerance=self.tolerance,
    )

  def check(self) -> None:
    """Builds everything a run needs, so that whatever is impossible shows before it starts.

    Raises:
      ValueError: if a number is impossible.
    """
    self.method.check(self.agent, self.run)

  def keep_tasks(self, folder: run_folder.RunFolder | None) -> None:
    """Takes the task split of a folder, or samples it and keeps it there.

    Args:
      folder: read from if it has the tasks, else written to; None samples only.
    """
    if folder is not None and folder.tasks.is_file():
      try:
        self.tasks = task_split.load(folder.tasks)
        return
      except files.FileError as error:  # The seed draws the same again.
        logging.warning('%s', error)
    default_seed = int(seeds.sequence(self.seed, seeds.Stream.TASKS).generate_state(1)[0])
    self.tasks = self.experiment.sample_task_split(
      self._environments[0].gymnasium_env, default_seed=default_seed
    )
    if folder is not None:
      task_split.save(self.tasks, folder.tasks)

  @property
  def run(self) -> agents_builder.Run:
    """What the method is told of this run."""
    return agents_builder.Run(
      self.domain, self.tasks.train, self.training, self.environments, self.seed
    )

  def environments(self, number: int) -> list[gymnasium_adapter.GymnasiumAdapter]:
    """Returns the first `number` environments of a pool that grows as needed."""
    while len(self._environments) < number:
      self._environments.append(self._make_environment())
    return self._environments[:number]

  @property
  def env_steps(self) -> int:
    """The steps that these environments have taken, for whatever."""
    return sum(environment.total_steps for environment in self._environments)

  @functools.cached_property
  def agent(self) -> agents_builder.Agent:
    """The agent, with fresh variables."""
    with self._strategy.scope():
      agent = self.method.make_agent(self.domain, seed=self.seed)
    self.method.check_evaluation(agent, self.meta_test.context_sampling)
    return agent

  def make_actor(self, *, deterministic: bool) -> actor.Actor:
    """Returns what acts as a meta-test does, or as collection."""
    return self.method.make_actor(self.domain, self.agent, deterministic=deterministic)

  def make_rollout(self, *, deterministic: bool, num_environments: int) -> rollout.Rollout:
    """Returns a rollout of the agent's greedy (meta-test) or exploring (collection) policy."""
    return rollout.Rollout(
      self.environments(num_environments), self.make_actor(deterministic=deterministic)
    )

  def make_process(self) -> agents_builder.LearningProcess:
    """Returns the agent's learning process."""
    return self.method.make_process(self.agent, self.run)
