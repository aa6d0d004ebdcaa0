"""PEARL put together: agent, actor, and learning from a replay."""

from collections.abc import Callable

import gin
import reverb
import tensorflow as tf

from pearl_tf.agents import builder
from pearl_tf.agents.pearl import actor as pearl_actor
from pearl_tf.agents.pearl import agent as pearl_agent
from pearl_tf.agents.pearl import replay_training
from pearl_tf.agents.pearl import training as pearl_training
from pearl_tf.collect import schedule
from pearl_tf.data import sampling_scheme, specs
from pearl_tf.replay import cache, local, packing, tables


@gin.configurable
class PearlBuilder:
  """Makes the parts of PEARL; a `builder.AgentBuilder`."""

  name = 'PEARL'
  not_served = ''

  def __init__(
    self,
    *,
    agent_class: Callable[..., pearl_agent.PearlAgent] = pearl_agent.PearlAgent,
    training_class: Callable[[], pearl_training.PearlTraining] = pearl_training.PearlTraining,
    schedule_class: Callable[[], schedule.CollectSchedule] = schedule.CollectSchedule,
    cache_class: Callable[..., cache.ReplayCache] = cache.ReplayCache,
    make_tables: Callable[..., list[reverb.Table]] = tables.make_tables,
  ):
    """Keeps the settings.

    Args:
      agent_class: makes the agent.
      training_class: makes the sizes of gradient steps, batches and replay.
      schedule_class: makes the rule of collection.
      cache_class: makes the learner's memory.
      make_tables: makes the tables of the replay.
    """
    self.training = training_class()
    self.schedule = schedule_class()
    self._agent_class = agent_class
    self._cache_class = cache_class
    self._make_tables = make_tables

  def check(self, agent: pearl_agent.PearlAgent, run: builder.Run) -> None:
    self.training.check_context(self.schedule, run.training.max_episode_steps)
    self.training.check_order(agent.encoder.order_matters)
    self.make_process(agent, run).close()

  def make_agent(self, domain: specs.DomainSpec, *, seed: int) -> pearl_agent.PearlAgent:
    counter = tf.Variable(0, dtype=tf.int64, trainable=False, name='train_step')
    agent = self._agent_class(domain, train_step_counter=counter, seed=seed)
    agent.initialize()
    return agent

  def check_evaluation(self, agent: pearl_agent.PearlAgent, context_sampling: str) -> None:
    if agent.encoder.order_matters and context_sampling != sampling_scheme.TRAJECTORIES:
      raise ValueError(
        f'a recurrent encoder reads its context in time order, but MetaTest.context_sampling = '
        f"{context_sampling!r}: bind it to 'trajectories'"
      )

  def make_actor(
    self, domain: specs.DomainSpec, agent: pearl_agent.PearlAgent, *, deterministic: bool
  ) -> pearl_actor.PearlActor:
    policy = agent.policy if deterministic else agent.collect_policy
    return pearl_actor.PearlActor(domain, policy, agent.infer_posterior)

  def make_process(
    self, agent: pearl_agent.PearlAgent, run: builder.Run
  ) -> replay_training.ReplayTraining:
    replay = local.Replay(
      packing.PackedLayout(*run.domain),
      len(run.train_tasks),
      capacity=self.training.replay_capacity or cache.MAX_CAPACITY,
      cache_class=self._cache_class,
      make_tables=self._make_tables,
    )
    actor = self.make_actor(run.domain, agent, deterministic=False)
    return replay_training.ReplayTraining(
      agent, actor, replay, sizes=self.training, collect_schedule=self.schedule, run=run
    )
