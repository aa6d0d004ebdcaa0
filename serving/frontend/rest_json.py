"""The JSON of TF Serving's REST predict calls, to arrays and back.

Pure functions: no HTTP, no models. Both forms of a request are read, by row (`instances`, answered
by `predictions`) and by column (`inputs`, answered by `outputs`), with TF Serving's error texts.
"""

import base64
import binascii
import enum
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from serving import errors, tensors

_BASE64_KEY = 'b64'
# How deep lists may be nested: beyond what any tensor needs, before the interpreter's own limit.
_MAX_DEPTH = tensors.MAX_RANK
_SHOWN = 80


class Form(enum.Enum):
  """How the batch is written: the name of the request's key, and of the answer's."""

  ROW = ('instances', 'predictions')
  COLUMN = ('inputs', 'outputs')


def parse_body(body: bytes) -> dict[str, Any]:
  """Reads the JSON object of a request; NaN, Infinity and -Infinity are numbers.

  Raises:
    errors.ServingError: INVALID_ARGUMENT if it is no JSON object.
  """
  if not body:
    raise errors.invalid_argument('JSON Parse error: The document is empty')
  try:
    document = json.loads(body)
  except (ValueError, RecursionError) as error:  # Decoding errors are ValueErrors too.
    raise errors.invalid_argument(f'JSON Parse error: {error or "nested too deeply"}') from None
  if not isinstance(document, dict):
    raise errors.invalid_argument(f'JSON Value: {_shown(document)} Is not object')
  return document


def signature_name(document: Mapping[str, Any]) -> str:
  """Returns the name of the signature that a request asks for, '' for the default."""
  name = document.get('signature_name', '')
  if not isinstance(name, str):
    raise errors.invalid_argument(
      f'JSON Value: {_shown(document)} not formatted correctly.'
      " 'signature_name' key must be a string value."
    )
  return name


def parse_inputs(
  document: Mapping[str, Any],
  infos: Mapping[str, meta_graph_pb2.TensorInfo],
  *,
  max_elements: int = tensors.MAX_ELEMENTS,
) -> tuple[dict[str, np.ndarray], Form]:
  """Turns a request into arrays of the types that a signature wants.

  Args:
    document: what `parse_body` returned.
    infos: the inputs of the signature.
    max_elements: the largest tensor that is accepted.

  Returns:
    The inputs by name, and the form in which the answer is expected.

  Raises:
    errors.ServingError: INVALID_ARGUMENT if values, names or shapes do not fit.
  """
  forms = [form for form in Form if form.value[0] in document]
  if not forms:
    raise errors.invalid_argument("Missing 'inputs' or 'instances' key")
  if len(forms) == 2:
    raise errors.invalid_argument(
      f'JSON Value: {_shown(document)} Not formatted correctly expecting only'
      " one of 'inputs' or 'instances' keys to exist "
    )
  form = forms[0]
  given = document[form.value[0]]
  columns = _columns_of_rows(given, infos) if form is Form.ROW else _columns(given, infos)
  arrays = {}
  for name, value in columns.items():
    arrays[name] = _to_array(value, infos[name].dtype, max_elements)
  return arrays, form


def format_outputs(outputs: Mapping[str, np.ndarray], form: Form) -> str:
  """Writes the answer; a single output goes without its name.

  Raises:
    errors.ServingError: INVALID_ARGUMENT if rows are wanted and the outputs differ in their number.
  """
  values = {name: _to_json(array) for name, array in sorted(outputs.items())}
  single = len(values) == 1
  if form is Form.COLUMN:
    answer = next(iter(values.values())) if single else values
  else:
    sizes = {name: array.shape[0] if array.ndim else -1 for name, array in outputs.items()}
    if len(set(sizes.values())) != 1 or -1 in sizes.values():
      raise errors.invalid_argument(f'outputs have inconsistent batch sizes: {sizes}')
    rows = zip(*values.values(), strict=True)
    answer = [row[0] if single else dict(zip(values, row, strict=True)) for row in rows]
  return json.dumps({form.value[1]: answer}, indent=1 if form is Form.ROW else None)


def _columns_of_rows(rows: Any, infos: Mapping[str, Any]) -> dict[str, list]:
  if not isinstance(rows, list):
    raise errors.invalid_argument(
      f"JSON Value: {_shown(rows)} Excepting 'instances' to be an list/array"
    )
  if not rows:
    raise errors.invalid_argument("JSON Value: [] No values in 'instances' array")
  if not _is_object(rows[0]):
    if len(infos) > 1:
      raise errors.invalid_argument(
        'instances is a plain list, but expecting list of objects as multiple '
        'input tensors required as per tensorinfo_map'
      )
    for index, row in enumerate(rows):
      if _is_object(row):
        raise errors.invalid_argument(
          f'Expecting value/list but got object at item {index} of input list'
        )
    return {next(iter(infos)): rows}
  for index, row in enumerate(rows):
    if not _is_object(row):
      raise errors.invalid_argument(f'Expecting object but got list at item {index} of input list')
    if row.keys() != infos.keys():
      raise errors.invalid_argument(
        f"Failed to process element: {index} of 'instances' list. JSON object: {_shown(row)}"
        f' keys must be equal to: {",".join(sorted(infos))}'
      )
  return {name: [row[name] for row in rows] for name in infos}


def _columns(given: Any, infos: Mapping[str, Any]) -> dict[str, Any]:
  if not _is_object(given):
    if len(infos) > 1:
      raise errors.invalid_argument(
        'inputs is a plain value/list, but expecting an object as multiple '
        'input tensors required as per tensorinfo_map'
      )
    return {next(iter(infos)): given}
  for name in infos:
    if name not in given:
      raise errors.invalid_argument(f"Missing named input: {name} in 'inputs' object.")
  return {name: given[name] for name in infos}


def _to_array(value: Any, data_type: int, max_elements: int) -> np.ndarray:
  dtype = tensors.dtype_of(data_type)
  if dtype is None:
    raise errors.invalid_argument(f'Conversion of JSON Value: {_shown(value)} to type: {data_type}')
  shape = _shape(value)
  size = math.prod(shape)
  if size > max_elements:
    raise errors.invalid_argument(f'shape {shape} is above the limit of {max_elements} elements')
  leaves = []
  _flatten(value, 0, shape, leaves)
  if data_type == types_pb2.DT_STRING:
    array = np.empty(size, dtype=object)
    array[:] = [_string(leaf) for leaf in leaves]
  else:
    _check_leaves(leaves, dtype)
    array = np.array(leaves, dtype)
  return array.reshape(shape)


def _shape(value: Any) -> list[int]:
  shape = []
  while isinstance(value, list):
    shape.append(len(value))
    if len(shape) > _MAX_DEPTH:
      raise errors.invalid_argument(f'lists are nested more than {_MAX_DEPTH} deep')
    if not value:
      break
    value = value[0]
  return shape


def _flatten(value: Any, level: int, shape: list[int], leaves: list) -> None:
  """Appends the leaves of nested lists, and checks that these have the shape."""
  if not isinstance(value, list):
    if level != len(shape):
      raise errors.invalid_argument(
        f'JSON Value: {_shown(value)} found at incorrect level: {level + 1}'
        f' in the JSON DOM. Expected at level: {len(shape)}'
      )
    leaves.append(value)
    return
  if level >= len(shape):
    raise errors.invalid_argument(
      f'Encountered list at unexpected level: {level} expected < {len(shape)}'
    )
  if len(value) != shape[level]:
    raise errors.invalid_argument(
      f'Encountered list at unexpected size: {len(value)} at level: {level}'
      f' expected size: {shape[level]}'
    )
  if level == len(shape) - 1 and not any(isinstance(item, list) for item in value):
    leaves.extend(value)
    return
  for item in value:
    _flatten(item, level + 1, shape, leaves)


def _check_leaves(leaves: list, dtype: np.dtype) -> None:
  """Checks that each value is one of the type, without loss."""
  if dtype.kind == 'b':
    wanted = {bool}
  elif dtype.kind in 'iu':
    wanted = {int}
  else:
    wanted = {int, float}
  for leaf in leaves:
    if type(leaf) not in wanted:
      raise errors.invalid_argument(
        f'JSON Value: {_shown(leaf)} Type: {_json_type(leaf)} is not of expected type: {dtype.name}'
      )
  if dtype.kind in 'iu':
    bounds = np.iinfo(dtype)
    for leaf in leaves:
      if not bounds.min <= leaf <= bounds.max:
        raise errors.invalid_argument(
          f'JSON Value: {_shown(leaf)} is out of the range of type: {dtype.name}'
        )
  if dtype.kind not in 'biu':
    limit = float(np.finfo(dtype).max) if dtype.kind == 'f' else math.inf
    whole = 2 ** (np.finfo(dtype).nmant + 1) - 1 if dtype.kind == 'f' else 2**8 - 1
    for leaf in leaves:
      too_large = abs(leaf) > whole if type(leaf) is int else limit < abs(leaf) < math.inf
      if too_large:
        raise errors.invalid_argument(
          f'Cannot convert JSON value: {_shown(leaf)} to {dtype.name} without loss of precision.'
        )


def _string(leaf: Any) -> bytes:
  if isinstance(leaf, str):
    return leaf.encode()
  if not _is_object(leaf) and isinstance(leaf, dict):
    try:
      return base64.b64decode(leaf[_BASE64_KEY], validate=True)
    except (binascii.Error, ValueError):
      raise errors.invalid_argument('Unable to base64 decode') from None
  raise errors.invalid_argument(
    f'JSON Value: {_shown(leaf)} Type: {_json_type(leaf)} is not of expected type: string'
  )


def _to_json(array: np.ndarray) -> Any:
  """Returns nested lists whose floats have as few digits as tell them apart in their own type."""
  if array.dtype == object:
    return np.frompyfunc(_string_to_json, 1, 1)(array).tolist()
  if array.dtype.kind in 'biu':
    return array.tolist()
  if array.dtype != np.float64:
    array = array.astype(np.float32) if array.dtype != np.float32 else array
    array = array.astype(str).astype(np.float64)
  return array.tolist()


def _string_to_json(value: bytes) -> Any:
  try:
    return value.decode()
  except UnicodeDecodeError:
    return {_BASE64_KEY: base64.b64encode(value).decode()}


def _is_object(value: Any) -> bool:
  """Tells whether a value is a JSON object, and not one that stands for a string of bytes."""
  return isinstance(value, dict) and not (
    len(value) == 1 and isinstance(value.get(_BASE64_KEY), str)
  )


def _json_type(value: Any) -> str:
  names = {bool: str(value), str: 'String', list: 'Array', dict: 'Object', type(None): 'Null'}
  return names.get(type(value), 'Number')


def _shown(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) <= _SHOWN else text[:_SHOWN] + '...'
