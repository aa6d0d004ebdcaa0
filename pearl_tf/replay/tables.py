"""The Reverb tables of the replay: names, signatures, capacities, limiters.

This module describes the tables; it starts no server and moves no data. An item is a whole
trajectory, stored once and shared by the tables it belongs to: `replay/<task>` for ever,
`context/<task>` until the task's context is cleared, and `fresh` until the learner takes it.
"""

import gin
import reverb
import tensorflow as tf

from pearl_tf.replay import packing

FRESH = 'fresh'
REPLAY_PREFIX = 'replay/'
CONTEXT_PREFIX = 'context/'

# Position of each value in an item's header.
HEADER_TASK = 0
HEADER_IN_CONTEXT = 1
HEADER_GENERATION = 2
HEADER_SIZE = 3


def replay_name(task_index: int) -> str:
  """Returns the name of the table that holds all trajectories of a task."""
  return f'{REPLAY_PREFIX}{task_index}'


def context_name(task_index: int) -> str:
  """Returns the name of the table that holds the context trajectories of a task."""
  return f'{CONTEXT_PREFIX}{task_index}'


def signature(layout: packing.PackedLayout) -> dict[str, tf.TensorSpec]:
  """Returns the signature of every item.

  Args:
    layout: Gives the width `W` of a row.

  Returns:
    `header [3] int64` (task index, 1 if the trajectory belongs to the context else 0, generation of
    the context) and `rows [S, W] float32`.
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
  max_context_episodes: int = 10_000,
  max_fresh_episodes: int = 1_000_000,
) -> list[reverb.Table]:
  """Makes the tables of all training tasks.

  Items of `replay/` and `context/` are drawn in proportion to their priority, which the writer sets
  to the trajectory's length: a trajectory drawn so, then a row drawn uniformly inside it, is a
  uniform draw over transitions, whatever the lengths.

  Args:
    layout: Layout of the rows.
    num_tasks: Number of training tasks.
    max_replay_episodes: Trajectories each `replay/` table keeps; the oldest goes first.
    max_context_episodes: Trajectories each `context/` table keeps; the oldest goes first.
    max_fresh_episodes: Trajectories that may wait for the learner. A writer blocks when there are
      more, because dropping one would make the learner's cache differ from the tables.

  Returns:
    `2 * num_tasks + 1` tables.

  Raises:
    ValueError: If a number is not positive.
  """
  numbers = {
    'num_tasks': num_tasks,
    'max_replay_episodes': max_replay_episodes,
    'max_context_episodes': max_context_episodes,
    'max_fresh_episodes': max_fresh_episodes,
  }
  for name, number in numbers.items():
    if number < 1:
      raise ValueError(f'make_tables.{name} must be positive, got {number}.')

  def by_length(name: str, max_size: int) -> reverb.Table:
    return reverb.Table(
      name=name,
      sampler=reverb.selectors.Prioritized(priority_exponent=1.0),
      remover=reverb.selectors.Fifo(),
      max_size=max_size,
      rate_limiter=reverb.rate_limiters.MinSize(1),
      signature=signature(layout),
    )

  tables = [by_length(replay_name(task), max_replay_episodes) for task in range(num_tasks)]
  tables += [by_length(context_name(task), max_context_episodes) for task in range(num_tasks)]
  tables.append(reverb.Table.queue(FRESH, max_fresh_episodes, signature=signature(layout)))
  return tables
