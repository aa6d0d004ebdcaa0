"""TensorProto to NumPy and back, for server and client.

Decodes both encodings of the protocol, `tensor_content` and the typed fields (`float_val` ...),
with TensorFlow's rules for too few and too many values, and looks at the size before it allocates.
Knows neither models nor signatures.

`tf.make_ndarray` is not used: it takes three times as long for a small tensor, and allocates what a
shape of a few bytes announces.
"""

import math
from collections.abc import Sequence

import ml_dtypes
import numpy as np
from tensorflow.core.framework import tensor_pb2, types_pb2

MAX_ELEMENTS = 2**22
"""Largest number of elements of a decoded tensor, unless the caller says otherwise."""
MAX_SPLAT_ELEMENTS = 2**16
"""Largest tensor that may be announced by a shape alone, its values repeated or left out."""
MAX_RANK = 32
"""What NumPy can hold; TensorFlow's own limit is 254."""

# What is stored where, as `TensorProto` defines it: data type, NumPy type, name of the field.
_NUMBERS = (
  (types_pb2.DT_FLOAT, np.float32, 'float_val'),
  (types_pb2.DT_DOUBLE, np.float64, 'double_val'),
  (types_pb2.DT_INT32, np.int32, 'int_val'),
  (types_pb2.DT_INT64, np.int64, 'int64_val'),
  (types_pb2.DT_BOOL, np.bool_, 'bool_val'),
  (types_pb2.DT_UINT8, np.uint8, 'int_val'),
  (types_pb2.DT_INT8, np.int8, 'int_val'),
  (types_pb2.DT_UINT16, np.uint16, 'int_val'),
  (types_pb2.DT_INT16, np.int16, 'int_val'),
  (types_pb2.DT_UINT32, np.uint32, 'uint32_val'),
  (types_pb2.DT_UINT64, np.uint64, 'uint64_val'),
  (types_pb2.DT_HALF, np.float16, 'half_val'),
  (types_pb2.DT_BFLOAT16, ml_dtypes.bfloat16, 'half_val'),
)
_FIELDS = {dtype: (np.dtype(numpy), field) for dtype, numpy, field in _NUMBERS}
_DTYPES = {np.dtype(numpy): dtype for dtype, numpy, _ in _NUMBERS}
# Packed fields whose bytes on the wire are the array's own: a tag and a length before them.
_PACKED_TAGS = {types_pb2.DT_FLOAT: b'\x2a', types_pb2.DT_DOUBLE: b'\x32'}
# Below this size filling a field element by element is as fast as going over the wire format.
_PACKED_FROM = 16


class TensorError(ValueError):
  """A TensorProto that does not describe a tensor, or one larger than allowed."""


def decode(proto: tensor_pb2.TensorProto, *, max_elements: int = MAX_ELEMENTS) -> np.ndarray:
  """Returns the tensor of a message.

  As in TensorFlow a typed field may hold fewer values than the shape has elements, and the last one
  is repeated (zero where there is none); values beyond the shape are ignored.

  Args:
    proto: the message, in either encoding.
    max_elements: the largest tensor that is accepted.

  Returns:
    An array of the message's shape and type; read-only where it shares the message's bytes. Strings
    come as an array of `bytes` objects.

  Raises:
    TensorError: if type, shape and content do not fit together, or the tensor is too large.
  """
  shape = tuple([dim.size for dim in proto.tensor_shape.dim])
  size = _checked_size(shape, proto.tensor_shape.unknown_rank, max_elements)
  if proto.dtype == types_pb2.DT_STRING:
    return _decode_strings(proto, shape, size)
  try:
    dtype, field = _FIELDS[proto.dtype]
  except KeyError:
    raise TensorError(f'data type {_type_name(proto.dtype)} is not supported') from None
  if size == 0:
    return np.empty(shape, dtype)
  content = proto.tensor_content
  if content:
    if len(content) != size * dtype.itemsize:
      raise TensorError(
        f'tensor_content has {len(content)} bytes, but shape {list(shape)} of {dtype.name} needs'
        f' {size * dtype.itemsize}'
      )
    return np.frombuffer(content, dtype).reshape(shape)
  return _decode_field(getattr(proto, field), dtype, shape, size)


def encode(array: np.ndarray, *, as_content: bool = True) -> tensor_pb2.TensorProto:
  """Returns the message of a tensor.

  Args:
    array: numbers, booleans, or `bytes`/`str` objects.
    as_content: raw bytes, the cheapest form; otherwise the typed field, which is how TensorFlow
      Serving answers.

  Raises:
    TensorError: if no message can hold the array's type.
  """
  proto = tensor_pb2.TensorProto()
  fill(proto, array, as_content=as_content)
  return proto


def fill(proto: tensor_pb2.TensorProto, array: np.ndarray, *, as_content: bool = True) -> None:
  """Writes a tensor into an empty message, such as a value of a map; see `encode`."""
  array = np.asarray(array)
  add = proto.tensor_shape.dim.add
  for size in array.shape:
    add().size = size
  if array.dtype.kind in 'SUO':
    proto.dtype = types_pb2.DT_STRING
    proto.string_val.extend(_to_bytes(value) for value in array.ravel())
    return
  try:
    proto.dtype = _DTYPES[array.dtype]
  except KeyError:
    raise TensorError(f'no TensorProto holds an array of type {array.dtype}') from None
  if array.size and as_content:
    proto.tensor_content = array.tobytes()
  elif array.size:
    _encode_field(proto, array)


def dtype_of(data_type: int) -> np.dtype | None:
  """Returns the NumPy type of a `DataType`, `object` for strings, None if there is none."""
  if data_type == types_pb2.DT_STRING:
    return np.dtype(object)
  return _FIELDS[data_type][0] if data_type in _FIELDS else None


def _checked_size(shape: tuple[int, ...], unknown_rank: bool, max_elements: int) -> int:
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
  if size > max_elements or max(shape) > max_elements:
    raise TensorError(f'shape {list(shape)} is above the limit of {max_elements} elements')
  return size


def _decode_field(
  values: Sequence[float], dtype: np.dtype, shape: tuple[int, ...], size: int
) -> np.ndarray:
  """Reads a typed field, `values` being its repeated values."""
  count = len(values)
  if count < size and size > max(count, MAX_SPLAT_ELEMENTS):
    raise TensorError(
      f'shape {list(shape)} has {size} elements, but {count} values; at most'
      f' {MAX_SPLAT_ELEMENTS} elements may be filled up'
    )
  if count == 0:
    return np.zeros(shape, dtype)
  if count > size:
    values, count = values[:size], size
  try:
    if dtype.itemsize == 2 and dtype.kind not in 'iu':  # Floats of 16 bits travel as their bits.
      given = np.fromiter(values, np.uint32, count).astype(np.uint16).view(dtype)
    elif dtype.itemsize < 4:
      given = np.fromiter(values, np.int64, count).astype(dtype)  # Wraps around, as in C++.
    else:
      given = np.fromiter(values, dtype, count)
  except OverflowError as error:
    raise TensorError(f'a value does not fit: {error}') from None
  if count == size:
    return given.reshape(shape)
  array = np.empty(size, dtype)
  array[:count] = given
  array[count:] = given[-1]
  return array.reshape(shape)


def _decode_strings(proto: tensor_pb2.TensorProto, shape: tuple[int, ...], size: int) -> np.ndarray:
  if proto.tensor_content:
    raise TensorError('strings are read from string_val only, not from tensor_content')
  values = list(proto.string_val[:size])
  if len(values) < size and size > max(len(values), MAX_SPLAT_ELEMENTS):
    raise TensorError(f'shape {list(shape)} has {size} elements, but {len(values)} strings')
  array = np.full(size, values[-1] if values else b'', dtype=object)
  array[: len(values)] = values
  return array.reshape(shape)


def _encode_field(proto: tensor_pb2.TensorProto, array: np.ndarray) -> None:
  """Fills the typed field."""
  dtype, field = _FIELDS[proto.dtype]
  tag = _PACKED_TAGS.get(proto.dtype)
  if tag is not None and array.size >= _PACKED_FROM:
    content = array.tobytes()
    proto.MergeFromString(tag + _varint(len(content)) + content)
    return
  flat = array.ravel()
  if dtype.itemsize == 2 and dtype.kind not in 'iu':
    flat = flat.view(np.uint16)
  getattr(proto, field).extend(flat.tolist())


def _varint(value: int) -> bytes:
  """Encodes a length as protocol buffers do: seven bits a byte, the lowest first."""
  parts = bytearray()
  while value > 0x7F:
    parts.append(value & 0x7F | 0x80)
    value >>= 7
  parts.append(value)
  return bytes(parts)


def _to_bytes(value: bytes | str) -> bytes:
  if isinstance(value, bytes):
    return value
  if isinstance(value, str):
    return value.encode()
  raise TensorError(f'no TensorProto holds an object of type {type(value).__name__}')


def _type_name(data_type: int) -> str:
  names = types_pb2.DataType.DESCRIPTOR.values_by_number
  return names[data_type].name if data_type in names else str(data_type)
