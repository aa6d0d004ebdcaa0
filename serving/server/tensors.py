"""TensorProto to NumPy and back, without allocating what a shape of a few bytes announces.

Decodes both encodings of the protocol, `tensor_content` and the typed fields (`float_val` ...),
with TensorFlow's rules for too few and too many values. The types of PEARL's signatures have a
fast way; all others are TensorFlow's to read, after the same checks.
"""

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

MAX_ELEMENTS = 2**22
"""Largest number of elements of a decoded tensor."""
MAX_SPLAT_ELEMENTS = 2**16
"""Largest tensor that may be announced by a shape alone, its values repeated or left out."""
MAX_RANK = 32
"""What NumPy can hold; TensorFlow's own limit is 254."""

_FIELDS = {
  types_pb2.DT_FLOAT: (np.dtype(np.float32), 'float_val'),
  types_pb2.DT_INT32: (np.dtype(np.int32), 'int_val'),
  types_pb2.DT_INT64: (np.dtype(np.int64), 'int64_val'),
}
_NUMBERS = {dtype: number for number, (dtype, _) in _FIELDS.items()}
# What `tf.make_ndarray` reads.
_OTHERS = frozenset(
  {
    *(types_pb2.DT_DOUBLE, types_pb2.DT_HALF, types_pb2.DT_BFLOAT16, types_pb2.DT_BOOL),
    *(types_pb2.DT_INT8, types_pb2.DT_INT16, types_pb2.DT_UINT8, types_pb2.DT_UINT16),
    *(types_pb2.DT_UINT32, types_pb2.DT_UINT64, types_pb2.DT_STRING),
  }
)
_ANY_VALUES = tuple(
  field.name for field in tensor_pb2.TensorProto.DESCRIPTOR.fields if field.name.endswith('_val')
)


class TensorError(ValueError):
  """A TensorProto that does not describe a tensor, or one larger than allowed."""


def decode(proto: tensor_pb2.TensorProto) -> np.ndarray:
  """Returns the tensor of a message, read-only where it shares the message's bytes.

  A typed field may hold fewer values than the shape has elements: the last one is repeated, zero
  where there is none.

  Raises:
    TensorError: if type, shape and content do not fit together, or the tensor is too large.
  """
  shape = tuple([dim.size for dim in proto.tensor_shape.dim])
  size = _size(shape, proto.tensor_shape.unknown_rank)
  dtype, field = _FIELDS.get(proto.dtype, (None, None))
  if dtype is None:
    return _decode_other(proto, shape, size)
  content = proto.tensor_content
  if content and size:
    if len(content) != size * dtype.itemsize:
      raise TensorError(
        f'tensor_content has {len(content)} bytes, but shape {list(shape)} of {dtype.name} needs'
        f' {size * dtype.itemsize}'
      )
    return np.frombuffer(content, dtype).reshape(shape)
  values = getattr(proto, field)
  _check_splat(len(values), size, shape)
  given = np.fromiter(values, dtype, min(len(values), size))
  if len(given) == size:
    return given.reshape(shape)
  array = np.empty(size, dtype)
  array[: len(given)] = given
  array[len(given) :] = given[-1] if len(given) else 0
  return array.reshape(shape)


def fill(proto: tensor_pb2.TensorProto, array: np.ndarray, *, as_content: bool = False) -> None:
  """Writes a tensor into an empty message, such as a value of a map.

  Args:
    proto: the message.
    array: of any type that TensorFlow knows.
    as_content: raw bytes; otherwise the typed field, which is how TensorFlow Serving answers.
  """
  number = _NUMBERS.get(array.dtype)
  if number is None:
    proto.CopyFrom(tf.make_tensor_proto(array))
    return
  proto.dtype = number
  add = proto.tensor_shape.dim.add
  for size in array.shape:
    add().size = size
  if as_content:
    proto.tensor_content = array.tobytes()
  else:
    getattr(proto, _FIELDS[number][1]).extend(array.ravel().tolist())


def encode(array: np.ndarray, *, as_content: bool = True) -> tensor_pb2.TensorProto:
  """Returns the message of a tensor; see `fill`."""
  proto = tensor_pb2.TensorProto()
  fill(proto, np.asarray(array), as_content=as_content)
  return proto


def _decode_other(proto: tensor_pb2.TensorProto, shape: tuple[int, ...], size: int) -> np.ndarray:
  if proto.dtype not in _OTHERS:
    raise TensorError(f'data type {proto.dtype} is not supported')
  count = max(len(getattr(proto, name)) for name in _ANY_VALUES)
  if not proto.tensor_content:
    _check_splat(count, size, shape)
  try:
    return tf.make_ndarray(proto)
  except (TypeError, ValueError, OverflowError) as error:
    raise TensorError(f'data type {proto.dtype} with shape {list(shape)}: {error}') from None


def _check_splat(count: int, size: int, shape: tuple[int, ...]) -> None:
  if count < size and size > max(count, MAX_SPLAT_ELEMENTS):
    raise TensorError(
      f'shape {list(shape)} has {size} elements, but {count} values; at most'
      f' {MAX_SPLAT_ELEMENTS} elements may be filled up'
    )


def _size(shape: tuple[int, ...], unknown_rank: bool) -> int:
  if unknown_rank:
    raise TensorError('the shape has no rank')
  if len(shape) > MAX_RANK:
    raise TensorError(f'rank {len(shape)} is above the limit of {MAX_RANK}')
  if not shape:
    return 1
  if min(shape) < 0:
    raise TensorError(f'shape {list(shape)} has a negative dimension')
  size = math.prod(shape)
  # Each dimension too: beside a zero it would not show in the product.
  if size > MAX_ELEMENTS or max(shape) > MAX_ELEMENTS:
    raise TensorError(f'shape {list(shape)} is above the limit of {MAX_ELEMENTS} elements')
  return size
