"""Adaptation under a TF-Agents driver: an observer that turns transitions into beliefs.

This module owns what is known of the task in every row of an environment. The driver feeds it; the
`remote_policy.RemotePearlPolicy` that it is given to draws its latents from its beliefs.
"""

from collections.abc import Callable, Sequence

import numpy as np
from tf_agents.trajectories import policy_step as ps
from tf_agents.trajectories import time_step as ts

from serving.client import belief as belief_lib
from serving.client import connection as connection_lib
from serving.client import logic, transitions


class AdaptationObserver:
  """A transition observer that adapts at the end of every episode, or every so many steps."""

  def __init__(
    self,
    connection: connection_lib.Connection,
    *,
    every_steps: int | None = None,
    capacity: int = transitions.DEFAULT_CAPACITY,
    context_reward_fn: Callable[[], np.ndarray] | None = None,
  ):
    """Starts on the prior in every row.

    Args:
      connection: the one of the policy.
      every_steps: adapt whenever so many transitions of a row are new, beside the end of its
        episode. The latent follows at the next episode in any case.
      capacity: raw transitions kept per row; see `session.Session`.
      context_reward_fn: returns the rewards `[B]` the encoder is shown, after each step, where they
        differ from those of the time step: `lambda: environment.context_reward` for a task with a
        sparse reward.

    Raises:
      ValueError: if a number is not positive.
    """
    if every_steps is not None and every_steps < 1:
      raise ValueError(f'every_steps must be positive, or None, got {every_steps!r}')
    self._connection = connection
    self._sizes = connection.connect()
    self._every_steps = every_steps
    self._capacity = capacity
    self._context_reward_fn = context_reward_fn
    self._tasks: list[logic.TaskState] = []

  def __call__(self, transition: tuple[ts.TimeStep, ps.PolicyStep, ts.TimeStep]) -> None:
    """Keeps a transition of every row and adapts where it is time.

    Args:
      transition: time step, policy step and next time step, with or without a batch dimension, as
        drivers hand to `transition_observers`.
    """
    before, step, after = transition
    observation = np.reshape(before.observation, [-1, self._sizes.observation_size])
    rows = len(observation)
    reward = after.reward if self._context_reward_fn is None else self._context_reward_fn()
    columns = (
      observation,
      np.reshape(step.action, [rows, -1]),
      np.reshape(reward, [rows]),
      np.reshape(after.observation, [rows, -1]),
    )
    due = []
    ended, ends = np.reshape(before.is_last(), [rows]), np.reshape(after.is_last(), [rows])
    for row, task in enumerate(self.tasks(rows)):
      if ended[row]:
        continue  # From the last step of an episode to the first of the next: nothing happened.
      task.transitions.append(self._sizes, *(column[row] for column in columns))
      if ends[row] or task.transitions.num_pending == self._every_steps:
        due.append(task)
    if due:
      self._connection.run(self._connection.logic.adapt(due))

  def tasks(self, number: int) -> list[logic.TaskState]:
    """Returns what is known of the first `number` rows, made on the prior when first asked for."""
    while len(self._tasks) < number:
      self._tasks.append(logic.TaskState(transitions.Transitions(self._capacity)))
    return self._tasks[:number]

  def beliefs(self) -> list[belief_lib.Belief | None]:
    """Returns the belief of every row; None where nothing happened yet."""
    return [task.belief for task in self._tasks]

  def reset(self, rows: Sequence[int] | None = None) -> None:
    """Returns to the prior, for new tasks.

    Args:
      rows: which rows have a new task; all by default.
    """
    for row in range(len(self._tasks)) if rows is None else rows:
      self._tasks[row] = logic.TaskState(transitions.Transitions(self._capacity))
