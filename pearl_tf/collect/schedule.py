"""What a trial does: phases of episodes, each with its rule for the belief.

This module owns the data-collection and meta-test schedules of the algorithm as plain data. The
roll-out executes them; nothing here touches an environment or a network.
"""

import dataclasses

import gin

from pearl_tf.data import sampling_scheme

# Of a `CollectSchedule`, by their numbers in the headers of trajectories.
PHASES = ('initial', 'prior', 'posterior', 'extra')
INITIAL = PHASES.index('initial')


@dataclasses.dataclass(frozen=True)
class Phase:
  """A run of whole episodes on one task that begins with the prior belief.

  Episodes are rolled until `num_steps` transitions are reached, so a phase overshoots by less than
  one episode. The latent is redrawn at every episode; once `num_prior_episodes` are done the belief
  is inferred anew from the trial's context before each episode.

  Attributes:
    name: appears in logs.
    num_steps: transitions to reach; 0 skips the phase.
    num_prior_episodes: episodes acted on the prior before the belief first follows the context; 0
      starts on the posterior, None never leaves the prior.
    in_context: whether this phase's transitions join the trial's context.
    context_size: transitions drawn with replacement from the context for each inference; None for
      all of them once.
    context_sampling: 'transitions' or 'trajectories', what is drawn to make up `context_size`;
      whole trajectories are laid end to end and the last one is cut off.
  """

  name: str
  num_steps: int
  num_prior_episodes: int | None
  in_context: bool
  context_size: int | None = None
  context_sampling: str = sampling_scheme.TRANSITIONS

  def __post_init__(self):
    if self.num_steps < 0:
      raise ValueError(f'phase {self.name!r}: num_steps must not be negative, got {self.num_steps}')
    if self.num_prior_episodes is not None and self.num_prior_episodes < 0:
      raise ValueError(
        f'phase {self.name!r}: num_prior_episodes must not be negative, '
        f'got {self.num_prior_episodes}'
      )
    if self.context_size is not None and self.context_size < 1:
      raise ValueError(
        f'phase {self.name!r}: context_size must be positive, got {self.context_size}'
      )
    if self.context_sampling not in sampling_scheme.SAMPLINGS:
      raise ValueError(
        f'phase {self.name!r}: context_sampling must be one of {sampling_scheme.SAMPLINGS}, '
        f'got {self.context_sampling!r}'
      )


@gin.configurable
@dataclasses.dataclass(frozen=True)
class CollectSchedule:
  """How training data is collected (reference implementation, `docs/algorithm.md`).

  Attributes:
    initial_steps: per training task, once, on the prior with the untrained policy.
    tasks_per_iteration: tasks visited per iteration, drawn uniformly with replacement.
    prior_steps: per visit, on the prior; becomes the task's new context.
    posterior_steps: per visit, the belief following the context; joins the context.
    extra_steps: per visit, the belief following the context; for the critics only.
  """

  initial_steps: int = 2000
  tasks_per_iteration: int = 5
  prior_steps: int = 400
  posterior_steps: int = 0
  extra_steps: int = 400

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if not isinstance(value, int) or value < 0:
        raise ValueError(
          f'CollectSchedule.{field.name} must be an integer of at least 0, got {value!r}'
        )
    if self.initial_steps < 1 or self.tasks_per_iteration < 1:
      raise ValueError(
        'CollectSchedule.initial_steps and .tasks_per_iteration must be positive, got '
        f'{self.initial_steps} and {self.tasks_per_iteration}'
      )
    if self.prior_steps + self.posterior_steps < 1:
      raise ValueError(
        'CollectSchedule.prior_steps + .posterior_steps must be positive: a visit clears the '
        "task's context and has to refill it"
      )

  @property
  def visit_steps(self) -> int:
    """Transitions of one visit, where no phase overshoots."""
    return self.prior_steps + self.posterior_steps + self.extra_steps

  def expected_transitions(
    self, num_tasks: int, num_iterations: int, max_episode_steps: int
  ) -> int:
    """Returns what a run collects if no episode ends early."""

    def whole_episodes(steps: int) -> int:
      return -(-steps // max_episode_steps) * max_episode_steps

    phases = (self.prior_steps, self.posterior_steps, self.extra_steps)
    visit = sum(whole_episodes(steps) for steps in phases)
    initial = num_tasks * whole_episodes(self.initial_steps)
    return initial + num_iterations * self.tasks_per_iteration * visit

  def initial_phases(self) -> list[Phase]:
    """Returns the phases that fill a task's replay before any training."""
    return [Phase('initial', self.initial_steps, num_prior_episodes=None, in_context=True)]

  def visit_phases(
    self, context_size: int, context_sampling: str = sampling_scheme.TRANSITIONS
  ) -> list[Phase]:
    """Returns the phases of one visit to a task.

    Args:
      context_size: context transitions per inference, the same number as in training.
      context_sampling: how they are drawn, as in training.
    """
    drawn = {'context_size': context_size, 'context_sampling': context_sampling}
    return [
      Phase('prior', self.prior_steps, num_prior_episodes=None, in_context=True),
      Phase('posterior', self.posterior_steps, 1, in_context=True, **drawn),
      Phase('extra', self.extra_steps, 1, in_context=False, **drawn),
    ]
