"""Learning from a replay that other processes fill: the learner orders visits and takes what comes.

Nothing is known of the actors but what they send. Tickets that wait in the queue and transitions
that have arrived are counted against what the gradient steps allow; a ticket that was taken by an
actor that died is neither missed nor waited for, another one takes its place.
"""

import dataclasses
import time
from collections import defaultdict
from typing import Any

import gin
import numpy as np
import reverb
from absl import logging

from pearl_tf.agents import builder, learner
from pearl_tf.agents import training as sizes_lib
from pearl_tf.agents.pearl import agent as pearl_agent
from pearl_tf.agents.pearl import training
from pearl_tf.collect import collector, schedule, tickets
from pearl_tf.data import seeds
from pearl_tf.replay import cache, feeder, mailbox, memory, streams, tables, weights

_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 5


@gin.configurable
@dataclasses.dataclass(frozen=True)
class RemoteCollection:
  """How far learner and actors may be apart.

  The updates per transition are those of one process: the steps of an iteration are taken when the
  transitions of as many iterations are there, and `rounds_ahead` bounds the actors.

  Attributes:
    rounds_ahead: iterations whose visits may be collected before their turn; with 0 the policy that
      collects is as new as that of one process, and the learner waits meanwhile.
    visits_per_ticket: visits that one actor makes side by side; None for as many as give each actor
      that was heard of a ticket, at most all of an iteration.
    publish_interval: gradient steps between two publications of the policy.
    patience_seconds: after how long without an episode what was ordered is ordered again, because
      its actor has died; longer than an actor takes for an episode.
  """

  rounds_ahead: int = 1
  visits_per_ticket: int | None = None
  publish_interval: int = 200
  patience_seconds: float = 60.0

  def __post_init__(self):
    sizes_lib.check_positive(self, or_zero=('rounds_ahead',))
    if self.patience_seconds <= 0:
      raise ValueError(
        f'RemoteCollection.patience_seconds must be positive, got {self.patience_seconds}'
      )


@dataclasses.dataclass
class _Ledger:
  """What was ordered and what came; plain data, in every checkpoint.

  Attributes:
    starts: how often a learner of this run was started.
    num_tickets: given out since.
    initial: transitions of the initial pool, by task.
    visited: transitions of visits.
    reported: transitions of both kinds that the loop was told of.
    newest: see `feeder.Feeder.newest`.
  """

  starts: int = 0
  num_tickets: int = 0
  initial: list[int] = dataclasses.field(default_factory=list)
  visited: int = 0
  reported: int = 0
  newest: dict = dataclasses.field(default_factory=dict)

  @property
  def env_steps(self) -> int:
    """Transitions of both kinds."""
    return sum(self.initial) + self.visited


class RemoteTraining:
  """The learning process of PEARL with actors elsewhere; a `builder.RemoteProcess`.

  Attributes:
    learner: what takes gradient steps.
    settings: how far both sides may be apart.
  """

  keeps_data = True

  def __init__(
    self,
    agent: pearl_agent.PearlAgent,
    replay: memory.Memory,
    policy: weights.Weights,
    *,
    settings: RemoteCollection,
    sizes: training.PearlTraining,
    collect_schedule: schedule.CollectSchedule,
    run: builder.Run,
    link: builder.Link,
    expected_env_steps: int,
  ):
    """Connects the parts.

    Args:
      agent: learns.
      replay: what it learns from.
      policy: where actors find what acts and adapts.
      settings: how far both sides may be apart.
      sizes: of gradient steps and batches.
      collect_schedule: what a visit to a task consists of.
      run: where.
      link: to the others.
      expected_env_steps: of the whole run.
    """
    self.expected_env_steps = expected_env_steps
    self.steps_per_iteration = sizes.gradient_steps_per_iteration
    self.steps_per_call = sizes.steps_per_call
    self._agent, self._replay, self._policy = agent, replay, policy
    self.settings, self._schedule, self._run, self._link = settings, collect_schedule, run, link
    self.learner = learner.Learner(
      agent,
      cache.CacheSampler(replay.cache, scheme=sizes.sampling_scheme, **sizes.batch_sizes),
      seed=seeds.sequence(run.seed, seeds.Stream.REPLAY),
    )
    self._client = reverb.Client(link.server_address)
    self._tickets = mailbox.Mailbox(link.server_address, tables.TICKETS, tickets.SPEC)
    self._ledger = _Ledger(initial=[0] * len(run.train_tasks))
    self._iteration = 0
    self._is_adopted = False
    self._published_at = 0
    self._orders = _Orders()
    self._actors: set[int] = set()
    self._log = _Log()

  @property
  def _gradient_steps(self) -> int:
    return int(self._agent.train_step_counter.numpy())

  def recover(self) -> None:
    self._ledger.starts += 1
    self._ledger.num_tickets = 0
    self._client.reset(tables.TICKETS)
    self._take(tables.UNSAVED)

  def prepare(self) -> collector.Collected:
    """Has the initial pool of every task collected."""
    self._feed()
    asked, needed = -np.inf, self._schedule.initial_steps
    while missing := [task for task, num in enumerate(self._ledger.initial) if num < needed]:
      idle_since = max(asked, self._log.last_delivery) if asked > 0 else asked
      if time.monotonic() - idle_since > self.settings.patience_seconds:
        self._client.reset(tables.TICKETS)
        side_by_side = self._run.training.num_environments
        for first in range(0, len(missing), side_by_side):
          self._order(missing[first : first + side_by_side], is_initial=True)
        asked = time.monotonic()
      self._wait(f'the initial pool of {len(missing)} tasks')
    return self._collected()

  def collect(self, iteration: int) -> collector.Collected:
    """Waits until the transitions of an iteration are there; what came before counts."""
    self._iteration = iteration
    if self._is_adopted:
      self._ledger.visited += iteration * self._steps_per_round
      self._ledger.reported += iteration * self._steps_per_round
      self._is_adopted = False
    self._feed()
    while self._ledger.visited < (iteration + 1) * self._steps_per_round:
      self._wait(f'the transitions of iteration {iteration + 1}')
    return self._collected()

  def train(self, num_steps: int) -> dict[str, float]:
    totals = self.learner.run(num_steps)
    self._feed()
    if self._gradient_steps - self._published_at >= self.settings.publish_interval:
      self._publish()
    return totals

  def variables(self) -> dict[str, Any]:
    return {'cache': self._replay.cache}

  def state(self) -> dict[str, Any]:
    """Returns the ledger, after a last look into the queue."""
    self._feed()
    self._ledger.newest = self._replay.feeder.newest
    return dataclasses.asdict(self._ledger)

  def restore(self, state: dict[str, Any]) -> None:
    """Takes the ledger back; a run that was one process has none, but a whole initial pool."""
    if state:
      self._ledger = _Ledger(**state)
      self._replay.feeder.restore(self._ledger.newest)
    else:
      self._ledger.initial = [self._schedule.initial_steps] * len(self._run.train_tasks)
      self._ledger.reported = self._ledger.env_steps
      self._is_adopted = True

  def close(self) -> None:
    pass

  @property
  def _steps_per_round(self) -> int:
    return self._schedule.tasks_per_iteration * self._schedule.visit_steps

  @property
  def _visits(self) -> int:
    """Visits of a ticket."""
    if self.settings.visits_per_ticket is not None:
      return self.settings.visits_per_ticket
    open_at_once = self._schedule.tasks_per_iteration * (self.settings.rounds_ahead + 1)
    share = max(1, open_at_once // max(1, len(self._actors)))
    return min(share, self._schedule.tasks_per_iteration)

  def _wait(self, what: str) -> None:
    """Waits a moment and takes what came."""
    if self._link.is_stopping():
      raise builder.StoppedError
    idle = time.monotonic() - self._log.last_delivery
    if idle > self._link.deadline_seconds:
      raise TimeoutError(
        f'the learner waits for {what}, and no actor has sent an episode for {idle:.0f} s: are '
        f'actors running, and do they reach {self._link.server_address}?'
      )
    started = time.monotonic()
    time.sleep(_POLL_SECONDS)
    self._feed()
    self._log.waited_seconds += time.monotonic() - started

  def _feed(self) -> None:
    """Takes what came, and orders what may come; does nothing while the server is away."""
    sizes = self._table_sizes()
    if sizes is None:
      logging.warning('the replay server at %s does not answer', self._link.server_address)
      return
    if not sizes[tables.POLICY]:  # It has just been started.
      self._publish()
      self._orders = _Orders()
      number = self._replay.refill_tables()
      if number:
        logging.warning('filled the tables of a new replay server with %d trajectories', number)
    self._take(tables.FRESH)
    rounds = min(
      self._iteration + 1 + self.settings.rounds_ahead, self._run.training.num_iterations
    )
    steps = rounds * self._steps_per_round - self._ledger.visited
    if min(self._ledger.initial) < self._schedule.initial_steps:
      return
    steps -= self._orders.missing(sizes[tables.TICKETS], self.settings.patience_seconds)
    for _ in range(-(-steps // (self._visits * self._schedule.visit_steps))):
      self._order_visits()

  def _order_visits(self) -> None:
    """Orders visits to tasks drawn with replacement."""
    number = tickets.number(self._ledger.starts, self._ledger.num_tickets)
    random = np.random.default_rng(seeds.sequence(self._run.seed, seeds.Stream.VISITS, number))
    drawn = random.integers(len(self._run.train_tasks), size=self._visits)
    self._order(drawn.tolist(), is_initial=False)
    self._orders.add(number, self._visits * self._schedule.visit_steps)

  def _order(self, tasks: list[int], *, is_initial: bool) -> None:
    number = tickets.number(self._ledger.starts, self._ledger.num_tickets)
    self._ledger.num_tickets += 1
    self._tickets.put(tickets.Ticket(number, is_initial, tasks).message())

  def _publish(self) -> None:
    self._published_at = self._gradient_steps
    self._policy.publish(weights.Age(self._gradient_steps, self._iteration, self._ledger.env_steps))

  def _table_sizes(self) -> dict[str, int] | None:
    return streams.table_sizes(self._client, _ANSWER_SECONDS)

  def _take(self, table: str) -> None:
    try:
      delivered = self._replay.feeder.drain(table)
    except feeder.UndeliveredError as error:
      if (self._table_sizes() or {}).get(tables.POLICY):
        raise
      # The server was started anew meanwhile, and what it had is gone.
      delivered = error.delivered
    header = delivered.header
    is_initial = header.phase == schedule.INITIAL
    for task, length in zip(header.task[is_initial], delivered.lengths[is_initial], strict=True):
      self._ledger.initial[task] += int(length)
    self._ledger.visited += int(delivered.lengths[~is_initial].sum())
    self._actors.update(header.writer.tolist())
    self._orders.take(
      tickets.number_of(header.sequence[~is_initial]), delivered.lengths[~is_initial]
    )
    self._log.add(delivered, gradient_steps=self._gradient_steps)

  def _collected(self) -> collector.Collected:
    """Tells the loop of what came since it was last told."""
    new = self._ledger.env_steps - self._ledger.reported
    self._ledger.reported += new
    log, values = self._log, self._log.values()
    if log.returns:  # Otherwise the next time tells of both.
      self._log = _Log(last_delivery=log.last_delivery)
    if self._ledger.visited:
      values['learner/update_to_data'] = self._gradient_steps / self._ledger.visited
    returns = {schedule.PHASES[phase]: float(np.mean(r)) for phase, r in log.returns.items()}
    return collector.Collected(new, returns, dropped=log.dropped, values=values)


class _Orders:
  """The tickets for visits whose transitions are not all there yet."""

  def __init__(self):
    self._missing: dict[int, int] = {}  # In the order in which they were given out.
    self._seen: dict[int, float] = {}

  def add(self, number: int, steps: int) -> None:
    self._missing[number], self._seen[number] = steps, time.monotonic()

  def take(self, numbers: np.ndarray, lengths: np.ndarray) -> None:
    """Takes note of episodes that came, by the number of their ticket."""
    for number, length in zip(numbers.tolist(), lengths.tolist(), strict=True):
      if number in self._missing:
        self._missing[number] -= length
        self._seen[number] = time.monotonic()
        if self._missing[number] <= 0:
          del self._missing[number], self._seen[number]

  def missing(self, num_queued: int, patience_seconds: float) -> int:
    """Returns the transitions still to come.

    Args:
      num_queued: tickets that nobody has taken, the newest ones.
      patience_seconds: how long one that was taken may bring nothing before it counts as lost.
    """
    numbers, now = list(self._missing), time.monotonic()
    for position, number in enumerate(numbers):
      if position >= len(numbers) - num_queued:
        self._seen[number] = now
      elif now - self._seen[number] > patience_seconds:
        del self._missing[number], self._seen[number]
    return sum(self._missing.values())


class _Log:
  """What came since the loop was last told, and how long was waited for it."""

  def __init__(self, last_delivery: float | None = None):
    self.started = time.monotonic()
    self.last_delivery = last_delivery or self.started
    self.waited_seconds = 0.0
    self.dropped = 0
    self.returns: dict[int, list[float]] = defaultdict(list)
    self._staleness: list[int] = []
    self._waited_ms: dict[int, int] = defaultdict(int)

  def add(self, delivered: feeder.Delivered, *, gradient_steps: int) -> None:
    if not len(delivered.lengths):
      return
    self.last_delivery = time.monotonic()
    header = delivered.header
    self.dropped += int(header.dropped.sum())
    for phase, returned in zip(header.phase.tolist(), delivered.returns, strict=True):
      self.returns[phase].append(returned)
    self._staleness += (gradient_steps - header.policy_step).tolist()
    for writer, waited_ms in zip(header.writer.tolist(), header.waited_ms.tolist(), strict=True):
      self._waited_ms[writer] += waited_ms

  def values(self) -> dict[str, float]:
    seconds = max(time.monotonic() - self.started, 1e-9)
    values = {'learner/waiting_share': self.waited_seconds / seconds}
    if self._staleness:
      waited = sum(self._waited_ms.values()) / 1000
      values['actors/number'] = len(self._waited_ms)
      values['actors/staleness'] = float(np.mean(self._staleness))
      values['actors/waiting_share'] = min(1.0, waited / (seconds * len(self._waited_ms)))
    return values
