"""The stored form of a transition: one float32 row.

This module owns the order of the columns and the way back to `Transition` and `ContextBatch`. It
stores nothing; the writer packs with it, the samplers unpack with it. One column instead of six
makes insertion and sampling several times faster, because Reverb pays per column and per item.
"""

import numpy as np
import tensorflow as tf

from pearl_tf.data import types


class PackedLayout:
  """Maps transitions to rows of `2 * O + A + 3` floats and back.

  The columns are observation, action, reward, context reward, discount, next observation.
  """

  def __init__(self, observation_size: int, action_size: int):
    """Fixes the widths.

    Args:
      observation_size: `O`, at least 1.
      action_size: `A`, at least 1.

    Raises:
      ValueError: If a size is not positive.
    """
    for name, size in (('observation_size', observation_size), ('action_size', action_size)):
      if size < 1:
        raise ValueError(f'{name} must be positive, got {size}.')
    self._observation_size = int(observation_size)
    self._action_size = int(action_size)

  @property
  def observation_size(self) -> int:
    """`O`."""
    return self._observation_size

  @property
  def action_size(self) -> int:
    """`A`."""
    return self._action_size

  @property
  def width(self) -> int:
    """`W`, the number of floats of a row."""
    return 2 * self._observation_size + self._action_size + 3

  def pack(self, episode: types.Episode) -> np.ndarray:
    """Packs a whole episode, its terminal transition included.

    Args:
      episode: `S >= 1` transitions; every field must have the same `S`.

    Returns:
      `[S, W] float32`.

    Raises:
      ValueError: If the episode is empty, fields differ in length or width, or a value is not
        finite.
    """
    widths = types.Episode(
      observation=self._observation_size,
      action=self._action_size,
      reward=1,
      context_reward=1,
      discount=1,
      next_observation=self._observation_size,
    )
    num_steps = len(episode.observation)
    if num_steps < 1:
      raise ValueError('An episode must have at least one transition, got none.')
    rows = np.empty([num_steps, self.width], np.float32)
    offset = 0
    for name, width, values in zip(episode._fields, widths, episode, strict=True):
      values = np.asarray(values)
      expected = (num_steps, width) if name.endswith(('observation', 'action')) else (num_steps,)
      if values.shape != expected:
        raise ValueError(
          f'Episode field {name} has shape {values.shape}, expected {expected}: every field needs '
          f'one entry per transition, the last one included.'
        )
      rows[:, offset : offset + width] = values.reshape(num_steps, width)
      offset += width
    if not np.isfinite(rows).all():
      step, column = np.argwhere(~np.isfinite(rows))[0]
      raise ValueError(
        f'Episode holds {rows[step, column]} at step {step}, packed column {column} of '
        f'{self.width}: the environment or the policy produced a value that is not finite.'
      )
    return rows

  def unpack_transition(self, rows: tf.Tensor) -> types.Transition:
    """Returns what the critics learn from: the *dense* reward.

    Args:
      rows: `[..., W] float32`.

    Returns:
      A `Transition` with the leading dimensions of `rows`.
    """
    observation, action, scalars, next_observation = self._split(rows)
    return types.Transition(
      observation=observation,
      action=action,
      reward=scalars[..., 0],
      discount=scalars[..., 2],
      next_observation=next_observation,
    )

  def unpack_context(self, rows: tf.Tensor) -> types.ContextBatch:
    """Returns what the encoder is shown: the *context* reward, sparse where the task has one.

    Args:
      rows: `[T, N, W] float32`, or any leading dimensions.

    Returns:
      A `ContextBatch` with the leading dimensions of `rows` and a mask of ones.
    """
    observation, action, scalars, next_observation = self._split(rows)
    reward = scalars[..., 1]
    return types.ContextBatch(
      observation=observation,
      action=action,
      reward=reward,
      next_observation=next_observation,
      mask=tf.ones_like(reward),
    )

  def _split(self, rows: tf.Tensor) -> list[tf.Tensor]:
    sizes = [self._observation_size, self._action_size, 3, self._observation_size]
    return tf.split(rows, sizes, axis=-1)
