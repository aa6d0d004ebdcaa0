"""The size of a meta-training run: iterations, batches, intervals; numbers, checked at once."""

import dataclasses

import gin

from pearl_tf.collect import schedule
from pearl_tf.replay import batch_rule


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Training:
  """How long and on what batches to train (reference implementation, `docs/algorithm.md`).

  Attributes:
    num_iterations: iterations of collect, train, evaluate.
    gradient_steps_per_iteration: training steps per iteration.
    meta_batch_size: tasks per training step, drawn with replacement.
    context_size: context transitions per task and training step, drawn with replacement.
    batch_size: RL transitions per task and training step, drawn with replacement.
    context_sampling: 'transitions', drawn one by one, or 'trajectories', whole ones in time order,
      which a recurrent encoder needs; for training and for collection alike.
    batch_sampling: the same for the RL transitions.
    context_source: what training steps draw the context from: 'recent', the task's last visit (the
      method), or, to compare with, 'replay', all of its replay, or 'rl_batch', the RL batch itself.
    max_episode_steps: time limit of every episode; not a termination.
    num_environments: environments stepped in parallel.
    replay_capacity: transitions the learner keeps, of all tasks together; None for all of them.
      Less saves memory and drops the oldest.
    steps_per_call: training steps per compiled call; also how soon Ctrl-C is noticed.
    evaluation_interval: iterations between meta-tests; the last iteration always evaluates.
    checkpoint_interval: iterations between checkpoints; the initial pool, the last iteration and an
      interruption always save one.
    checkpoints_to_keep: complete checkpoints to keep.
    export_interval: iterations between exports for serving; the last iteration always exports. None
      for no exports at all. An export takes about a second.
    exports_to_keep: versions of the export to keep.
  """

  num_iterations: int = 500
  gradient_steps_per_iteration: int = 2000
  meta_batch_size: int = 16
  context_size: int = 64
  batch_size: int = 256
  context_sampling: str = batch_rule.TRANSITIONS
  batch_sampling: str = batch_rule.TRANSITIONS
  context_source: str = batch_rule.RECENT
  max_episode_steps: int = 200
  num_environments: int = 32
  replay_capacity: int | None = None
  steps_per_call: int = 20
  evaluation_interval: int = 1
  checkpoint_interval: int = 5
  checkpoints_to_keep: int = 2
  export_interval: int | None = 100
  exports_to_keep: int = 2

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.type in (int, 'int') and (not isinstance(value, int) or value < 1):
        raise ValueError(f'Training.{field.name} must be a positive integer, got {value!r}')
    for name in ('replay_capacity', 'export_interval'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f'Training.{name} must be positive or None, got {value}')
    self.batch_rule.check_sizes(context_size=self.context_size, batch_size=self.batch_size)

  @property
  def batch_rule(self) -> batch_rule.BatchRule:
    """How training batches are drawn."""
    return batch_rule.BatchRule(
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
    if order_matters and self.context_sampling != batch_rule.TRAJECTORIES:
      raise ValueError(
        f'a recurrent encoder reads its context in time order, but Training.context_sampling = '
        f"{self.context_sampling!r}: bind it and MetaTest.context_sampling to 'trajectories'"
      )

  def exports_after(self, iteration: int) -> bool:
    """Tells whether the agent is exported when `iteration` (counted from 1) is finished."""
    if self.export_interval is None:
      return False
    return iteration == self.num_iterations or iteration % self.export_interval == 0

  def check_context(self, collect: schedule.CollectSchedule) -> None:
    """Checks that a context can be collected that deserves `context_size` draws.

    Draws are with replacement, so somewhat more draws than transitions are legitimate (the
    reference draws 1024 of 1000 for the sparse point robot).

    Args:
      collect: the schedule that fills the contexts.

    Raises:
      ValueError: if `context_size` is more than twice what a context can ever hold.
    """
    largest = max(collect.initial_steps, collect.prior_steps + collect.posterior_steps)
    largest += self.max_episode_steps - 1  # Whole episodes: a phase overshoots by less than one.
    if self.context_size > 2 * largest:
      raise ValueError(
        f'Training.context_size = {self.context_size} can never be collected: a context holds at '
        f'most {largest} transitions (CollectSchedule.prior_steps + .posterior_steps, or '
        f'.initial_steps, by whole episodes). Lower context_size or collect more per visit.'
      )
