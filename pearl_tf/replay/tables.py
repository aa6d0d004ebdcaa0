"""The Reverb tables of the replay: names, signatures, capacities, limiters.

This module describes the tables; it starts no server and moves no data. An item is a whole
trajectory, stored once and shared by two tables: `replay/<k>`, for ever, and `fresh`, until the
learner takes it. Its header says which task it is of and whether it is context.
"""

import gin
import reverb
import tensorflow as tf

from pearl_tf.replay import packing

FRESH = 'fresh'
REPLAY_PREFIX = 'replay/'

# Position of each value in an item's header.
HEADER_TASK = 0
HEADER_IN_CONTEXT = 1
HEADER_VISIT = 2
HEADER_SIZE = 3

# Reverb runs two threads a table. Up to this many tasks have a table each, more share them.
MAX_REPLAY_TABLES = 64


def replay_name(task_index: int) -> str:
  """Returns the name of the table that holds all trajectories of a task."""
  return f'{REPLAY_PREFIX}{task_index % MAX_REPLAY_TABLES}'


def signature(layout: packing.PackedLayout) -> dict[str, tf.TensorSpec]:
  """Returns the signature of every item.

  Args:
    layout: Gives the width `W` of a row.

  Returns:
    `header [3] int64` (task index, 1 if the trajectory belongs to the context else 0, number of
    the visit to the task) and `rows [S, W] float32`.
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
