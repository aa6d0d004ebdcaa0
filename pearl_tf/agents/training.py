"""The size of a run, whatever the method: iterations, environments, intervals."""

import dataclasses
from collections.abc import Sequence

import gin


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Training:
  """How long to train, and how often to look and to save.

  Attributes:
    num_iterations: iterations of collect, train, evaluate.
    max_episode_steps: time limit of every episode; not a termination.
    num_environments: environments stepped in parallel.
    evaluation_interval: iterations between meta-tests; the last iteration always evaluates.
    checkpoint_interval: iterations between checkpoints; the initial pool, the last iteration and an
      interruption always save one.
    checkpoints_to_keep: complete checkpoints to keep.
    export_interval: iterations between exports for serving; the last iteration always exports. None
      for no exports at all. An export takes about a second.
    exports_to_keep: versions of the export to keep.
  """

  num_iterations: int = 500
  max_episode_steps: int = 200
  num_environments: int = 32
  evaluation_interval: int = 1
  checkpoint_interval: int = 5
  checkpoints_to_keep: int = 2
  export_interval: int | None = 100
  exports_to_keep: int = 2

  def __post_init__(self):
    check_positive(self)

  def evaluates_after(self, iteration: int) -> bool:
    """Tells whether the agent is evaluated when `iteration` (counted from 1) is finished."""
    return iteration == self.num_iterations or iteration % self.evaluation_interval == 0

  def exports_after(self, iteration: int) -> bool:
    """Tells whether the agent is exported when `iteration` (counted from 1) is finished."""
    if self.export_interval is None:
      return False
    return iteration == self.num_iterations or iteration % self.export_interval == 0


def check_positive(sizes, *, or_zero: Sequence[str] = ()) -> None:
  """Checks that every integer of a dataclass is positive, or None where it may be.

  Args:
    sizes: the dataclass.
    or_zero: fields that may be 0.

  Raises:
    ValueError: if one is not, naming it.
  """
  for field in dataclasses.fields(sizes):
    value = getattr(sizes, field.name)
    accepted = {int: 'a positive integer', int | None: 'a positive integer or None'}.get(field.type)
    if accepted is None or (value is None and field.type is not int):
      continue
    if field.name in or_zero and value == 0:
      continue
    if not isinstance(value, int) or value < 1:
      raise ValueError(f'{type(sizes).__name__}.{field.name} must be {accepted}, got {value!r}')
