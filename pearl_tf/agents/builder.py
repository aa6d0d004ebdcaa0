"""What a method of meta-learning brings to a run, as protocols.

A method is an agent, how it acts and adapts, and how it learns. The folder beside this file holds
one package a method, each with a class of the protocol `AgentBuilder`, which gin chooses
(`Experiment.method`). The loop (`pearl_tf.experiment.local_loop`) keeps the order of things,
evaluation, metrics and checkpoints, and asks a `LearningProcess` for the rest.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import reverb
import tensorflow as tf

from pearl_tf.agents import training
from pearl_tf.collect import actor, collector, tickets
from pearl_tf.data import specs, types
from pearl_tf.environments import gymnasium_adapter
from pearl_tf.replay import weights

# Why the data of an on-policy method are not collected by other processes.
ON_POLICY = 'it learns from what its present parameters collect, one round after the other'
# Why its training step is one device's.
ONE_DEVICE = 'its losses are not divided over devices'


class Run(NamedTuple):
  """What a method is told of the run that it learns in.

  Attributes:
    domain: sizes of the domain.
    train_tasks: the tasks it learns on.
    training: sizes of the run.
    environments: returns that many environments, the same ones at every call.
    seed: the run's seed, see `pearl_tf.data.seeds`.
  """

  domain: specs.DomainSpec
  train_tasks: Sequence[types.Task]
  training: training.Training
  environments: Callable[[int], Sequence[gymnasium_adapter.GymnasiumAdapter]]
  seed: int


class Agent(Protocol):
  """What the loop, checkpoints and evaluation need of an agent, a `tf.Module`.

  Attributes:
    train_step_counter: `int64` variable, the gradient steps taken.
    variables: everything a checkpoint keeps.
  """

  train_step_counter: tf.Variable
  variables: Sequence[tf.Variable]


class LearningProcess(Protocol):
  """How an agent gets its data and learns from them.

  Every call is a function of the run's seed, the iteration, and what `variables` and `state` keep,
  so that a run that was stopped goes on as if it had not been.

  Attributes:
    keeps_data: whether a checkpoint holds what was collected. If not, the data of an iteration that
      is interrupted before its first gradient step are collected again, from the same seed and
      parameters; the loop stops at no other place of such an iteration.
    steps_per_iteration: gradient steps of each iteration.
    steps_per_call: of these in one call of `train`, between which the loop may stop.
    expected_env_steps: about what the whole run collects, for people.
  """

  keeps_data: bool
  expected_env_steps: int
  steps_per_iteration: int
  steps_per_call: int

  def prepare(self) -> collector.Collected:
    """Collects what must be there before the first iteration; called once in a run."""

  def collect(self, iteration: int) -> collector.Collected:
    """Collects the data of an iteration, counted from 0."""

  def train(self, num_steps: int) -> dict[str, float]:
    """Takes gradient steps; returns the sum over the steps of every scalar to be logged.

    Raises:
      DivergenceError: if one of them is not finite.
    """

  def variables(self) -> dict[str, Any]:
    """Returns what a checkpoint keeps beside the agent, by name."""

  def state(self) -> dict[str, Any]:
    """Returns plain data that a checkpoint keeps."""

  def restore(self, state: dict[str, Any]) -> None:
    """Takes back what `state` returned, after the variables were restored."""

  def close(self) -> None:
    """Ends what it has started."""


class StoppedError(Exception):
  """A learning process that waited for others was asked to stop."""


class Link(NamedTuple):
  """What a learning process is told whose data are collected by other processes.

  Attributes:
    server_address: `host:port` of the replay server.
    is_stopping: tells whether to wait no longer.
    deadline_seconds: how long to wait for anything.
  """

  server_address: str
  is_stopping: Callable[[], bool]
  deadline_seconds: float


class RemoteProcess(LearningProcess, Protocol):
  """A learning process whose data are collected by other processes.

  `prepare` and `collect` wait for them, and raise `StoppedError` when they are asked to stop.
  """

  def recover(self) -> None:
    """Takes what the last learner had and its checkpoint has not; a checkpoint must follow."""


class AgentBuilder(Protocol):
  """Makes the parts of a method; holds its settings and no state.

  Attributes:
    name: of the method, for people.
    not_served: why its agents cannot be exported, for people; '' if an agent has what
      `pearl_tf.export` serves: the networks `encoder` and `actor`, or a recurrent `network`.
    not_replicated: why a training step cannot be shared by several devices, for people; '' if an
      agent made in the scope of a `tf.distribute` strategy does so.
    not_distributed: why its data cannot be collected by other processes, for people; '' if the
      builder is a `DistributedBuilder`, too.
  """

  name: str
  not_served: str
  not_replicated: str
  not_distributed: str

  def check(self, agent: Agent, run: Run) -> None:
    """Checks the settings against each other, before anything long starts.

    Raises:
      ValueError: if such a run is impossible.
    """

  def make_agent(self, domain: specs.DomainSpec, *, seed: int) -> Agent:
    """Returns an agent with fresh variables."""

  def check_evaluation(self, agent: Agent, context_sampling: str) -> None:
    """Checks how a meta-test draws what an agent adapts to.

    Raises:
      ValueError: if the agent cannot adapt to that.
    """

  def make_actor(
    self, domain: specs.DomainSpec, agent: Agent, *, deterministic: bool
  ) -> actor.Actor:
    """Returns what acts and adapts: as a meta-test does if `deterministic`, else as collection."""

  def make_process(self, agent: Agent, run: Run) -> LearningProcess:
    """Returns the learning process of an agent in a run."""


class DistributedBuilder(AgentBuilder, Protocol):
  """Makes the parts of a method for processes that share a replay server."""

  def make_server_tables(self, run: Run) -> list[reverb.Table]:
    """Returns the tables of the replay server."""

  def make_remote_process(self, agent: Agent, run: Run, link: Link) -> RemoteProcess:
    """Returns the learning process of the learner."""

  def make_ticket_collector(
    self, agent: Agent, run: Run, link: Link, *, number: int
  ) -> tickets.TicketCollector:
    """Returns what an actor collects with; `number` is the actor's own.

    It raises `StoppedError` after the episode in which it is asked to stop.
    """

  def make_weights(self, agent: Agent, server_address: str) -> weights.Weights:
    """Returns the channel of what acts and adapts."""
