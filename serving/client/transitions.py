"""The raw transitions of one task, bounded: what a belief is computed from anew on another model.

A latent space belongs to one set of weights, so after a change of the model a belief cannot be
translated; it must be encoded again from what was really seen.
"""

import collections
import itertools

import numpy as np

from serving.client import errors, interface, validation

DEFAULT_CAPACITY = 4096


class Transitions:
  """The newest transitions of a task, of which the last ones may still be pending.

  Attributes:
    num_pending: the newest so many are not part of the belief yet.
    num_forgotten: how many fell out at the old end.
  """

  def __init__(self, capacity: int = DEFAULT_CAPACITY):
    """Starts empty.

    Args:
      capacity: how many are kept.

    Raises:
      ValueError: if the capacity is not positive.
    """
    if capacity < 1:
      raise ValueError(f'capacity must be positive, got {capacity!r}')
    self._capacity = capacity
    self._rows: collections.deque[tuple[np.ndarray, np.ndarray | None]] = collections.deque()
    self.num_pending = 0
    self.num_forgotten = 0

  def __len__(self) -> int:
    return len(self._rows)

  def append(
    self,
    sizes: interface.Interface,
    observation: np.ndarray,
    action: np.ndarray,
    reward: float,
    next_observation: np.ndarray | None,
  ) -> None:
    """Adds one transition, pending.

    Args:
      sizes: of the model in use.
      observation: `[O]`.
      action: `[A]` in [-1, 1].
      reward: what the encoder is shown; sparse where the task has a sparse reward.
      next_observation: `[O]`; may be None where the model does not look at it.

    Raises:
      InvalidInputError: if something has the wrong shape or is not finite, or if so many are
        pending that the oldest of them would be lost.
    """
    if next_observation is None and sizes.uses_next_observation:
      raise errors.InvalidInputError('this model needs next_observation with every transition')
    if self.num_pending == self._capacity:
      raise errors.InvalidInputError(
        f'{self.num_pending} transitions are pending and the buffer is full: adapt more often, or '
        'give the session a larger capacity'
      )
    row = np.concatenate(
      [
        validation.floats('observation', observation, [sizes.observation_size]),
        validation.floats('action', action, [sizes.action_size]),
        validation.floats('reward', reward, [])[np.newaxis],
      ]
    )
    if next_observation is not None:
      next_observation = validation.floats(
        'next_observation', next_observation, [sizes.observation_size]
      )
    if len(self._rows) == self._capacity:
      self._rows.popleft()
      self.num_forgotten += 1
    self._rows.append((row, next_observation))
    self.num_pending += 1

  def settled(self, sizes: interface.Interface) -> np.ndarray:
    """Returns what is kept of the belief's transitions, `[N, C] float32`, the oldest first."""
    return self._context(0, len(self._rows) - self.num_pending, sizes)

  def pending(self, sizes: interface.Interface) -> np.ndarray:
    """Returns the pending transitions, `[N, C] float32`."""
    return self._context(len(self._rows) - self.num_pending, len(self._rows), sizes)

  def everything(self, sizes: interface.Interface) -> np.ndarray:
    """Returns all transitions kept, `[N, C] float32`."""
    return self._context(0, len(self._rows), sizes)

  def clear(self) -> None:
    """Forgets everything."""
    self._rows.clear()
    self.num_pending = self.num_forgotten = 0

  def _context(self, start: int, stop: int, sizes: interface.Interface) -> np.ndarray:
    result = np.zeros([stop - start, sizes.context_size], np.float32)
    width = sizes.observation_size + sizes.action_size + 1
    for target, (row, following) in zip(
      result, itertools.islice(self._rows, start, stop), strict=True
    ):
      if len(row) != width:
        raise errors.ModelMismatchError(
          f'the transitions kept have {len(row)} numbers before the next observation, the new '
          f'version of the model takes {width}: it is a model of another environment'
        )
      target[:width] = row
      if sizes.uses_next_observation:
        if following is None:
          raise errors.ContextLostError(
            'the new version of the model needs next_observation, which was not given to observe'
          )
        target[width:] = following
    return result
