"""PEARL put together: agent, actor, and learning from a replay."""

from collections.abc import Callable

import gin
import reverb
from tf_agents.train.utils import train_utils

from pearl_tf.agents import builder, replicas
from pearl_tf.agents.pearl import actor as pearl_actor
from pearl_tf.agents.pearl import agent as pearl_agent
from pearl_tf.agents.pearl import remote_training, replay_training
from pearl_tf.agents.pearl import training as pearl_training
from pearl_tf.collect import collector, rollout, schedule, tickets
from pearl_tf.data import sampling_scheme, specs
from pearl_tf.replay import cache, local, memory, packing, tables, weights, writer

_MAX_PENDING_EPISODES = 16
# An actor whose server is away longer than this ends; it is ended earlier by its own deadline.
_MAX_SERVER_ABSENCE_SECONDS = 24 * 3600


@gin.configurable
class PearlBuilder:
  """Makes the parts of PEARL; a `builder.AgentBuilder`."""

  name = 'PEARL'
  not_served = ''
  not_distributed = ''
  not_replicated = ''

  def __init__(
    self,
    *,
    agent_class: Callable[..., pearl_agent.PearlAgent] = pearl_agent.PearlAgent,
    training_class: Callable[[], pearl_training.PearlTraining] = pearl_training.PearlTraining,
    schedule_class: Callable[[], schedule.CollectSchedule] = schedule.CollectSchedule,
    cache_class: Callable[..., cache.ReplayCache] = cache.ReplayCache,
    make_tables: Callable[..., list[reverb.Table]] = tables.make_tables,
    remote_class: Callable[[], remote_training.RemoteCollection] = remote_training.RemoteCollection,
  ):
    """Keeps the settings.

    Args:
      agent_class: makes the agent.
      training_class: makes the sizes of gradient steps, batches and replay.
      schedule_class: makes the rule of collection.
      cache_class: makes the learner's memory.
      make_tables: makes the tables of the replay.
      remote_class: makes the rule of collection by other processes.
    """
    self.training = training_class()
    self.schedule = schedule_class()
    self._agent_class = agent_class
    self._cache_class = cache_class
    self._make_tables = make_tables
    self._remote_class = remote_class

  def check(self, agent: pearl_agent.PearlAgent, run: builder.Run) -> None:
    self._check_numbers(agent, run)
    self.make_process(agent, run).close()

  def _check_numbers(self, agent: pearl_agent.PearlAgent, run: builder.Run) -> None:
    self.training.check_context(self.schedule, run.training.max_episode_steps)
    self.training.check_order(agent.encoder.order_matters)
    self.training.check_replicas(replicas.strategy_of(agent).num_replicas_in_sync)

  def make_agent(self, domain: specs.DomainSpec, *, seed: int) -> pearl_agent.PearlAgent:
    counter = train_utils.create_train_step()
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
    replay = local.Replay(self.make_cache(run), make_tables=self._make_tables)
    return replay_training.ReplayTraining(
      agent,
      self.make_collector(agent, run, replay.writer),
      replay,
      sizes=self.training,
      collect_schedule=self.schedule,
      run=run,
      expected_env_steps=self.expected_env_steps(run),
    )

  def make_collector(
    self,
    agent: pearl_agent.PearlAgent,
    run: builder.Run,
    replay_writer: writer.ReplayWriter,
    *,
    num_environments: int | None = None,
    after_episode: Callable[[], None] = lambda: None,
  ) -> collector.Collector:
    """Returns what collects with an agent.

    Args:
      agent: acts.
      run: where.
      replay_writer: where episodes go.
      num_environments: side by side; by default what the run has, as far as there are tasks.
      after_episode: see `collector.Collector`.
    """
    if num_environments is None:
      most = max(len(run.train_tasks), self.schedule.tasks_per_iteration)
      num_environments = min(run.training.num_environments, most)
    return collector.Collector(
      rollout.Rollout(
        run.environments(num_environments),
        self.make_actor(run.domain, agent, deterministic=False),
      ),
      replay_writer,
      self.schedule,
      context_size=self.training.context_size,
      context_sampling=self.training.context_sampling,
      after_episode=after_episode,
    )

  def make_server_tables(self, run: builder.Run) -> list[reverb.Table]:
    layout = packing.PackedLayout(*run.domain)
    return [
      *self._make_tables(layout, len(run.train_tasks)),
      *tables.make_service_tables(layout),
    ]

  def make_remote_process(
    self, agent: pearl_agent.PearlAgent, run: builder.Run, link: builder.Link
  ) -> remote_training.RemoteTraining:
    self._check_numbers(agent, run)
    return remote_training.RemoteTraining(
      agent,
      memory.Memory(self.make_cache(run), link.server_address),
      self.make_weights(agent, link.server_address),
      settings=self._remote_class(),
      sizes=self.training,
      collect_schedule=self.schedule,
      run=run,
      link=link,
      expected_env_steps=self.expected_env_steps(run),
    )

  def make_ticket_collector(
    self, agent: pearl_agent.PearlAgent, run: builder.Run, link: builder.Link, *, number: int
  ) -> tickets.TicketCollector:
    def stop_if_asked() -> None:
      if link.is_stopping():
        raise builder.StoppedError

    replay_writer = writer.ReplayWriter(
      reverb.Client(link.server_address),
      packing.PackedLayout(*run.domain),
      flush_timeout_seconds=_MAX_SERVER_ABSENCE_SECONDS,
      max_pending_episodes=_MAX_PENDING_EPISODES,
      number=number,
      to_unsaved=True,
    )
    return tickets.TicketCollector(
      self.make_collector(agent, run, replay_writer, after_episode=stop_if_asked),
      replay_writer,
      run.environments(1)[0].tolerance,
      run.train_tasks,
      seed=run.seed,
    )

  def make_weights(self, agent: pearl_agent.PearlAgent, server_address: str) -> weights.Weights:
    acting_variables = [*agent.actor.variables, *agent.encoder.variables]
    return weights.Weights(server_address, tables.POLICY, acting_variables)

  def expected_env_steps(self, run: builder.Run) -> int:
    """Returns what a run collects, about: where episodes end early, a little more."""
    sizes = run.training
    return self.schedule.expected_transitions(
      len(run.train_tasks), sizes.num_iterations, sizes.max_episode_steps
    )

  def make_cache(self, run: builder.Run) -> cache.ReplayCache:
    """Returns an empty cache that expects all that a run collects."""
    # Not as its capacity: a run can be extended.
    expected = self.expected_env_steps(run)
    return self._cache_class(
      packing.PackedLayout(*run.domain),
      len(run.train_tasks),
      capacity=self.training.replay_capacity,
      reserved=min(expected, cache.MAX_CAPACITY),
    )
