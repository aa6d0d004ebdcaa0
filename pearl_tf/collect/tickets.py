"""Collection on order: a ticket names the tasks that whoever takes it visits, side by side.

The learner numbers the tickets through, over all its restarts. From its number follows all of a
ticket's randomness and which of two visits to a task came last, so that it does not matter who
takes it, and nobody collects the same episodes twice.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pearl_tf.collect import collector
from pearl_tf.data import seeds, types
from pearl_tf.environments import tolerance
from pearl_tf.replay import writer

# Of a message: number, 1 if it fills the initial pool, indices of the tasks in the training tasks.
SPEC = tf.TensorSpec([None], tf.int64)
# A ticket's episodes are numbered within this many.
_EPISODES_PER_TICKET = 2**20
_TICKETS_PER_START = 2**24


class Ticket(NamedTuple):
  """An order to visit tasks.

  Attributes:
    number: at least 1, grows over the run.
    is_initial: whether the initial pool of these tasks is filled, instead of a visit to each.
    tasks: positions in the list of training tasks.
  """

  number: int
  is_initial: bool
  tasks: Sequence[int]

  def message(self) -> np.ndarray:
    """Returns it as `SPEC` has it."""
    return np.array([self.number, int(self.is_initial), *self.tasks], np.int64)


def of_message(message: np.ndarray) -> Ticket:
  """Returns the ticket of a message."""
  number, is_initial, *tasks = message.tolist()
  return Ticket(number, bool(is_initial), tasks)


def number(start: int, count: int) -> int:
  """Returns the number of a ticket.

  Args:
    start: how often a learner of this run was started, from 1.
    count: tickets it has given out before, fewer than 16 million.
  """
  return start * _TICKETS_PER_START + count


def number_of(sequence: np.ndarray) -> np.ndarray:
  """Returns the numbers of the tickets that episodes are of, by their numbers in the replay."""
  return sequence // _EPISODES_PER_TICKET


class TicketCollector:
  """Collects what tickets order."""

  def __init__(
    self,
    visits: collector.Collector,
    replay_writer: writer.ReplayWriter,
    dropping: tolerance.Tolerance,
    train_tasks: Sequence[types.Task],
    *,
    seed: int,
  ):
    """Connects the parts.

    Args:
      visits: collects from tasks.
      replay_writer: where it writes to.
      dropping: counts the episodes that are thrown away.
      train_tasks: what tickets count through.
      seed: the run's seed.
    """
    self._visits = visits
    self._writer = replay_writer
    self._tolerance = dropping
    self._tasks = train_tasks
    self._seed = seed

  def serve(self, ticket: Ticket, *, policy_step: int, waited_ms: int) -> collector.Collected:
    """Collects the episodes of a ticket; returns when the server has confirmed them.

    Args:
      ticket: the order.
      policy_step: gradient steps of the policy that acts.
      waited_ms: milliseconds waited before.
    """
    dropped_before = self._tolerance.num_dropped
    self._writer.begin(
      sequence=ticket.number * _EPISODES_PER_TICKET, policy_step=policy_step, waited_ms=waited_ms
    )
    tasks = [self._tasks[index] for index in ticket.tasks]
    try:
      if ticket.is_initial:
        seed = seeds.sequence(self._seed, seeds.Stream.INITIAL_POOL, ticket.number)
        return self._visits.fill(tasks, seed=seed)
      seed = seeds.sequence(self._seed, seeds.Stream.COLLECT, ticket.number)
      return self._visits.visit(tasks, seed=seed, number=ticket.number)
    finally:
      self._writer.flush()  # What is whole is kept, whatever happened to the rest.
      self._writer.count_dropped(self._tolerance.num_dropped - dropped_before)
