"""On what batches PEARL learns, and how much of the past it keeps; numbers, checked at once."""

import dataclasses

import gin

from pearl_tf.agents import training
from pearl_tf.collect import schedule
from pearl_tf.data import sampling_scheme


@gin.configurable
@dataclasses.dataclass(frozen=True)
class PearlTraining:
  """Gradient steps, their batches and the replay (reference, `docs/algorithm.md`).

  Attributes:
    gradient_steps_per_iteration: training steps per iteration.
    meta_batch_size: tasks per training step, drawn with replacement.
    context_size: context transitions per task and training step, drawn with replacement.
    batch_size: RL transitions per task and training step, drawn with replacement.
    context_sampling: 'transitions', drawn one by one, or 'trajectories', whole ones in time order,
      which a recurrent encoder needs; for training and for collection alike.
    batch_sampling: the same for the RL transitions.
    context_source: what training steps draw the context from: 'recent', the task's last visit (the
      method), or, to compare with, 'replay', all of its replay, or 'rl_batch', the RL batch itself.
    replay_capacity: transitions the learner keeps, of all tasks together; None for all of them.
      Less saves memory and drops the oldest.
    steps_per_call: training steps per compiled call; also how soon Ctrl-C is noticed.
  """

  gradient_steps_per_iteration: int = 2000
  meta_batch_size: int = 16
  context_size: int = 64
  batch_size: int = 256
  context_sampling: str = sampling_scheme.TRANSITIONS
  batch_sampling: str = sampling_scheme.TRANSITIONS
  context_source: str = sampling_scheme.RECENT
  replay_capacity: int | None = None
  steps_per_call: int = 20

  def __post_init__(self):
    training.check_positive(self)
    self.sampling_scheme.check_sizes(context_size=self.context_size, batch_size=self.batch_size)

  @property
  def sampling_scheme(self) -> sampling_scheme.SamplingScheme:
    """How training batches are drawn."""
    return sampling_scheme.SamplingScheme(
      context_sampling=self.context_sampling,
      batch_sampling=self.batch_sampling,
      context_source=self.context_source,
    )

  @property
  def batch_sizes(self) -> dict[str, int]:
    """The sizes of a training batch, as `pearl_tf.replay.cache` names them."""
    names = ('meta_batch_size', 'context_size', 'batch_size')
    return {name: getattr(self, name) for name in names}

  def check_order(self, order_matters: bool) -> None:
    """Checks that an encoder that reads a context in its order is given one that has an order.

    Args:
      order_matters: whether the encoder's belief depends on the order.

    Raises:
      ValueError: if it does and contexts are loose transitions.
    """
    if order_matters and self.context_sampling != sampling_scheme.TRAJECTORIES:
      raise ValueError(
        'a recurrent encoder reads its context in time order, but PearlTraining.context_sampling '
        f"= {self.context_sampling!r}: bind it and MetaTest.context_sampling to 'trajectories'"
      )

  def check_replicas(self, num_replicas: int) -> None:
    """Checks that every replica has as many tasks of a training step as any other.

    Raises:
      ValueError: if not.
    """
    if self.meta_batch_size % num_replicas:
      raise ValueError(
        f'PearlTraining.meta_batch_size = {self.meta_batch_size} tasks cannot be shared equally by '
        f'{num_replicas} devices: choose a multiple, or fewer devices'
      )

  def check_context(self, collect: schedule.CollectSchedule, max_episode_steps: int) -> None:
    """Checks that a context can be collected that deserves `context_size` draws.

    Draws are with replacement, so somewhat more draws than transitions are legitimate (the
    reference draws 1024 of 1000 for the sparse point robot).

    Args:
      collect: the schedule that fills the contexts.
      max_episode_steps: time limit of every episode.

    Raises:
      ValueError: if `context_size` is more than twice what a context can ever hold.
    """
    largest = max(collect.initial_steps, collect.prior_steps + collect.posterior_steps)
    largest += max_episode_steps - 1  # Whole episodes: a phase overshoots by less than one.
    if self.context_size > 2 * largest:
      raise ValueError(
        f'PearlTraining.context_size = {self.context_size} can never be collected: a context '
        f'holds at most {largest} transitions (CollectSchedule.prior_steps + .posterior_steps, or '
        f'.initial_steps, by whole episodes). Lower context_size or collect more per visit.'
      )
