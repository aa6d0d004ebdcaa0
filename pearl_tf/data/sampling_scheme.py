"""Where the two halves of a training batch come from: a scheme, checked at once.

The defaults are the method of the paper; the others are what its ablations compare with (figures 5
and 6) and what a recurrent encoder needs. Samplers obey it; nothing is sampled here.
"""

import dataclasses

TRANSITIONS = 'transitions'
TRAJECTORIES = 'trajectories'
SAMPLINGS = (TRANSITIONS, TRAJECTORIES)

RECENT = 'recent'
REPLAY = 'replay'
RL_BATCH = 'rl_batch'
CONTEXT_SOURCES = (RECENT, REPLAY, RL_BATCH)


@dataclasses.dataclass(frozen=True)
class SamplingScheme:
  """How context and RL transitions of a task are drawn.

  'transitions' are drawn independently, uniformly and with replacement. 'trajectories' are whole
  ones, drawn likewise, laid end to end in time order, the last one cut off where the batch is full.

  Attributes:
    context_sampling: 'transitions' or 'trajectories', for the context.
    batch_sampling: 'transitions' or 'trajectories', for the RL transitions.
    context_source: 'recent', the task's context of its last visit; 'replay', all of its replay; or
      'rl_batch', the RL transitions themselves, seen with their context reward.
  """

  context_sampling: str = TRANSITIONS
  batch_sampling: str = TRANSITIONS
  context_source: str = RECENT

  def __post_init__(self):
    for name, allowed in (
      ('context_sampling', SAMPLINGS),
      ('batch_sampling', SAMPLINGS),
      ('context_source', CONTEXT_SOURCES),
    ):
      if getattr(self, name) not in allowed:
        raise ValueError(f'{name} must be one of {allowed}, got {getattr(self, name)!r}')
    if self.context_source == RL_BATCH and self.context_sampling != self.batch_sampling:
      raise ValueError(
        f"with context_source = 'rl_batch' the context is the RL batch, so context_sampling = "
        f'{self.context_sampling!r} must equal batch_sampling = {self.batch_sampling!r}'
      )

  @property
  def needs_trajectories(self) -> bool:
    """Whether anything is drawn by whole trajectories."""
    return TRAJECTORIES in (self.context_sampling, self.batch_sampling)

  def check_sizes(self, *, context_size: int, batch_size: int) -> None:
    """Checks the sizes of a batch against the scheme.

    Raises:
      ValueError: if the context is the RL batch and of another size.
    """
    if self.context_source == RL_BATCH and context_size != batch_size:
      raise ValueError(
        f"with context_source = 'rl_batch' the context is the RL batch, so context_size must be "
        f'batch_size = {batch_size}, got {context_size}'
      )
