"""The tasks of a run: sampled once, split into training and test tasks, kept in `tasks.json`."""

import json
import pathlib
from typing import NamedTuple

import gin
import gymnasium
import numpy as np

from pearl_tf.data import files, types
from pearl_tf.environments import meta_env


class TaskSplit(NamedTuple):
  """Tasks the agent learns on and tasks it is tested on."""

  train: list[types.Task]
  test: list[types.Task]


@gin.configurable(denylist=['environment', 'default_seed'])
def sample_task_split(
  environment: gymnasium.Env,
  *,
  default_seed: int,
  num_train: int = gin.REQUIRED,
  num_test: int | None = None,
  seed: int | None = None,
) -> TaskSplit:
  """Samples the tasks of a run.

  A family whose test tasks are not of the kind of its training tasks (other environments of a
  benchmark) has a method `sample_task_split(num_train, num_test, seed)`, which returns both lists,
  numbered through; it takes the place of `sample_tasks` here.

  Args:
    environment: the environment; the outermost layer that has the methods knows its family.
    default_seed: used where `seed` is None.
    num_train: number of training tasks, the first of the sampled list.
    num_test: number of held-out test tasks, the last of the sampled list or the family's own; None
      to test on the training tasks, as the two-direction domains of the paper do.
    seed: fixes the tasks independently of the run's seed, as the reference does for some domains.

  Returns:
    The split; task indices number the sampled list.

  Raises:
    TypeError: if the family returns something else than tasks.
    ValueError: if a number is not positive, or the family returns other tasks than it was asked
      for.
  """
  if num_train < 1:
    raise ValueError(f'sample_task_split.num_train must be positive, got {num_train}')
  if num_test is not None and num_test < 1:
    raise ValueError(
      f'sample_task_split.num_test must be positive, or None to test on the training tasks, '
      f'got {num_test}'
    )
  if seed is not None and not 0 <= seed < 2**32:
    raise ValueError(f'sample_task_split.seed must be None or in [0, {2**32 - 1}], got {seed}')
  seed = default_seed if seed is None else seed
  own_split = meta_env.attribute(environment, 'sample_task_split', None)
  if own_split is None or num_test is None:
    tasks = meta_env.sample_tasks(environment, num_train + (num_test or 0), seed)
    train = tasks[:num_train]
    return TaskSplit(train=train, test=train if num_test is None else tasks[num_train:])
  train, test = own_split(num_train, num_test, seed)
  tasks = meta_env.checked_tasks([*train, *test], num_train + num_test, own_split.__qualname__)
  return TaskSplit(train=tasks[: len(train)], test=tasks[len(train) :])


def as_text(split: TaskSplit) -> str:
  """Returns a split as JSON."""

  def plain(tasks: list[types.Task]) -> list[dict]:
    return [{'index': task.index, 'parameters': task.parameters.tolist()} for task in tasks]

  return json.dumps({'train': plain(split.train), 'test': plain(split.test)}, indent=1)


def save(split: TaskSplit, path: pathlib.Path) -> None:
  """Writes a split as JSON."""
  files.write_text(path, as_text(split))


def load(path: pathlib.Path) -> TaskSplit:
  """Reads what `save` wrote.

  Raises:
    FileError: if the file is damaged.
  """

  def tasks(entries: list[dict]) -> list[types.Task]:
    return [
      types.Task(entry['index'], np.asarray(entry['parameters'], np.float32)) for entry in entries
    ]

  try:
    content = json.loads(path.read_text())
    split = TaskSplit(train=tasks(content['train']), test=tasks(content['test']))
    sizes = {task.parameters.shape for task in (*split.train, *split.test)}
    if not split.train or not split.test or len(sizes) != 1:
      raise ValueError('no tasks, or tasks of different sizes')
    return split
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise files.FileError(
      f'{path} is damaged ({error}); the tasks are drawn again from the seed'
    ) from error
