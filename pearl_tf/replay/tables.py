"""The Reverb tables of the replay: names, signatures, capacities, limiters.

This module describes the tables; it starts no server and moves no data. An item is a whole
trajectory, stored once and shared by its tables: `replay/<k>`, for ever, `fresh`, until the learner
takes it, and, where actors are other processes, `unsaved`, from which a learner that died takes
again what its checkpoint does not have. Its header says which task it is of, whether it is context,
and how it came to be collected.
"""

from typing import Any, NamedTuple

import gin
import reverb
import tensorflow as tf

from pearl_tf.replay import packing

FRESH = 'fresh'
REPLAY_PREFIX = 'replay/'

# Of a run of several processes only.
UNSAVED = 'unsaved'
RUN = 'run'
TICKETS = 'tickets'
POLICY = 'policy'
AGENT = 'agent'

# Reverb runs two threads a table. Up to this many tasks have a table each, more share them.
MAX_REPLAY_TABLES = 64
# Trajectories that `unsaved` has room for; what goes first is the oldest, long in a checkpoint.
_MAX_UNSAVED = 20_000


class Header(NamedTuple):
  """What an item says of its trajectory, each an `int64`.

  Attributes:
    task: index of the task.
    in_context: 1 if it belongs to the task's context, else 0.
    visit: number of the visit to the task, growing over the run.
    phase: of the visit, a number that the collector knows.
    writer: who wrote it.
    sequence: grows from one trajectory of a writer to its next, from 1.
    policy_step: gradient steps of the policy that acted.
    waited_ms: milliseconds that the writer had waited before, not yet told of.
    dropped: episodes that it had thrown away before, not yet told of.
  """

  task: Any = 0
  in_context: Any = 0
  visit: Any = 0
  phase: Any = 0
  writer: Any = 0
  sequence: Any = 0
  policy_step: Any = 0
  waited_ms: Any = 0
  dropped: Any = 0


HEADER_SIZE = len(Header._fields)


def replay_name(task_index: int) -> str:
  """Returns the name of the table that holds all trajectories of a task."""
  return f'{REPLAY_PREFIX}{task_index % MAX_REPLAY_TABLES}'


def signature(layout: packing.PackedLayout) -> dict[str, tf.TensorSpec]:
  """Returns the signature of every item.

  Args:
    layout: Gives the width `W` of a row.

  Returns:
    `header [9] int64` (`Header`) and `rows [S, W] float32`.
  """
  return {
    'header': tf.TensorSpec([HEADER_SIZE], tf.int64, name='header'),
    'rows': tf.TensorSpec([None, layout.width], tf.float32, name='rows'),
  }


@gin.configurable(denylist=['layout', 'num_tasks'])
def make_tables(
  layout: packing.PackedLayout,
  num_tasks: int,
  *,
  max_replay_episodes: int = 100_000,
  max_fresh_episodes: int = 1_000_000,
) -> list[reverb.Table]:
  """Makes the tables of all training tasks.

  Args:
    layout: Layout of the rows.
    num_tasks: Number of training tasks.
    max_replay_episodes: Trajectories of each task that its table has room for; the oldest of the
      table goes first.
    max_fresh_episodes: Trajectories that may wait for the learner. A writer blocks when there are
      more, because dropping one would make the learner's cache differ from the tables.

  Returns:
    At most `MAX_REPLAY_TABLES + 1` tables.

  Raises:
    ValueError: If a number is not positive.
  """
  numbers = {
    'num_tasks': num_tasks,
    'max_replay_episodes': max_replay_episodes,
    'max_fresh_episodes': max_fresh_episodes,
  }
  for name, number in numbers.items():
    if number < 1:
      raise ValueError(f'make_tables.{name} must be positive, got {number}.')
  num_tables = min(num_tasks, MAX_REPLAY_TABLES)
  tables = [
    reverb.Table(
      name=replay_name(index),
      sampler=reverb.selectors.Uniform(),
      remover=reverb.selectors.Fifo(),
      max_size=max_replay_episodes * -(-num_tasks // num_tables),
      rate_limiter=reverb.rate_limiters.MinSize(1),
      signature=signature(layout),
    )
    for index in range(num_tables)
  ]
  tables.append(reverb.Table.queue(FRESH, max_fresh_episodes, signature=signature(layout)))
  return tables


def make_service_tables(layout: packing.PackedLayout) -> list[reverb.Table]:
  """Makes what the processes of a run need beside the replay.

  Args:
    layout: Layout of the rows.

  Returns:
    `unsaved`, `tickets`, both queues, and `run`, `policy` and `agent`, which hold the newest item.
  """
  newest = [
    reverb.Table(
      name=name,
      sampler=reverb.selectors.Lifo(),
      remover=reverb.selectors.Fifo(),
      max_size=1,
      rate_limiter=reverb.rate_limiters.MinSize(1),
    )
    for name in (RUN, POLICY, AGENT)
  ]
  unsaved = reverb.Table(
    name=UNSAVED,
    sampler=reverb.selectors.Fifo(),
    remover=reverb.selectors.Fifo(),
    max_size=_MAX_UNSAVED,
    max_times_sampled=1,
    rate_limiter=reverb.rate_limiters.MinSize(1),
    signature=signature(layout),
  )
  return [*newest, unsaved, reverb.Table.queue(TICKETS, max_size=100_000)]
