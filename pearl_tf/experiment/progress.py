"""How far a run has come."""

import dataclasses
import pathlib

from pearl_tf.experiment import checkpoints, console


@dataclasses.dataclass
class Progress:
  """How far a run has come: plain data, saved with every checkpoint.

  Attributes:
    has_initial_pool: whether the initial pool was collected.
    iteration: finished iterations.
    collected_iterations: iterations whose data was collected; ahead of `iteration` by one while it
      trains.
    env_steps: training transitions collected.
    iteration_env_steps: of these in the newest collected iteration.
    recent_returns: final returns on training tasks of the last evaluations, oldest first.
    best_return: highest mean of them so far.
    dropped_episodes: thrown away in collection, see `Tolerance`.
    collect_returns: mean return per phase of the current iteration's data.
    collect_values: what else the learning process says of them, by name.
    scalar_sums: sums of the training scalars over the current iteration.
    num_summed: training steps in those sums.
    num_saves: checkpoints written so far.
    seconds: wall-clock seconds by activity, all processes of the run together.
    process: state of the learning process.
  """

  has_initial_pool: bool = False
  iteration: int = 0
  collected_iterations: int = 0
  env_steps: int = 0
  iteration_env_steps: int = 0
  dropped_episodes: int = 0
  recent_returns: list[float] = dataclasses.field(default_factory=list)
  best_return: float | None = None
  collect_returns: dict[str, float] = dataclasses.field(default_factory=dict)
  collect_values: dict[str, float] = dataclasses.field(default_factory=dict)
  scalar_sums: dict[str, float] = dataclasses.field(default_factory=dict)
  num_summed: int = 0
  num_saves: int = 0
  seconds: dict[str, float] = dataclasses.field(
    default_factory=lambda: dict.fromkeys(console.PHASES, 0.0)
  )
  process: dict = dataclasses.field(default_factory=dict)


def read(checkpoint: pathlib.Path) -> Progress:
  """Returns the progress of a checkpoint.

  Raises:
    CheckpointError: if it cannot be read, or holds what this version does not know.
  """
  saved = checkpoints.progress(checkpoint)
  unknown = sorted(saved.keys() - {field.name for field in dataclasses.fields(Progress)})
  if unknown:
    raise checkpoints.CheckpointError(
      f'checkpoint {checkpoint} was written by another version of PEARL-TF, with {unknown} in its '
      'progress: go on with that version, or train in another folder'
    )
  return Progress(**saved)
