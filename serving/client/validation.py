"""Checks of data before it is sent: a server would answer later, with less to say.

TensorFlow Serving checks no shapes, and in a batch one client's wrong shape fails its neighbours'
calls.
"""

from collections.abc import Sequence

import numpy as np
from numpy import typing

from serving.client import errors


def floats(name: str, value: typing.ArrayLike, shape: Sequence[int | None]) -> np.ndarray:
  """Returns finite numbers as float32.

  Args:
    name: what it is, for the message.
    value: real numbers of any type.
    shape: expected; None for any size.

  Raises:
    InvalidInputError: if these are not real numbers of that shape, finite as float32.
  """
  array = _array(name, value, shape, 'fiu')
  with np.errstate(over='ignore'):
    converted = array.astype(np.float32, copy=False)
  if not np.isfinite(converted).all():
    where = tuple(int(index) for index in np.argwhere(~np.isfinite(converted))[0])
    raise errors.InvalidInputError(f'{name}{list(where)} is {array[where]}, not a finite float32')
  return converted


def integers(
  name: str, value: typing.ArrayLike, shape: Sequence[int | None], dtype: type[np.integer]
) -> np.ndarray:
  """Returns whole numbers of a type that can hold them.

  Args:
    name: what it is, for the message.
    value: integers.
    shape: expected; None for any size.
    dtype: `np.int32` or `np.int64`.

  Raises:
    InvalidInputError: if these are not integers of that shape within the type's range.
  """
  array = _array(name, value, shape, 'iu')
  limits = np.iinfo(dtype)
  if array.size and (array.min() < limits.min or array.max() > limits.max):
    raise errors.InvalidInputError(f'{name} does not fit into {limits.dtype}: {array}')
  return array.astype(dtype, copy=False)


def _array(
  name: str, value: typing.ArrayLike, shape: Sequence[int | None], kinds: str
) -> np.ndarray:
  try:
    array = np.asarray(value)
  except ValueError as error:
    raise errors.InvalidInputError(f'{name} is no array: {error}') from error
  if array.dtype.kind not in kinds:
    wanted = 'real numbers' if 'f' in kinds else 'integers'
    raise errors.InvalidInputError(f'{name} must be {wanted}, got dtype {array.dtype}')
  fits = len(shape) == array.ndim and all(
    wanted in (None, size) for wanted, size in zip(shape, array.shape, strict=True)
  )
  if not fits:
    raise errors.InvalidInputError(f'{name} must have shape {list(shape)}, got {list(array.shape)}')
  return array
