"""What a signature takes and gives, and the checks of a request against it.

TensorFlow Serving checks names and dtypes before it runs the graph and leaves shapes to whatever
op fails first; here ranks and widths are checked as well, so that a malformed request is refused
before it can join, and spoil, a batch. Texts and codes are TensorFlow Serving's.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from serving import errors, judge

DEFAULT = 'serving_default'


@dataclasses.dataclass(frozen=True)
class Field:
  """One input or output.

  Attributes:
    name: Tensor in the graph, like 'serving_default_context:0'.
    enum: types_pb2.DataType.
    dtype: The same for NumPy; object for strings.
    dims: Sizes with None where free; None if the rank is unknown.
  """

  name: str
  enum: int
  dtype: np.dtype
  dims: tuple[int | None, ...] | None

  def accepts(self, shape: Sequence[int]) -> bool:
    """Tells whether a shape has the rank and the fixed sizes."""
    if self.dims is None:
      return True
    return len(shape) == len(self.dims) and all(
      dim is None or dim == size for dim, size in zip(self.dims, shape, strict=True)
    )


class Signature:
  """A SignatureDef made ready for checking many requests.

  Attributes:
    name: Its key in the model, which answers echo.
    proto: As exported.
    inputs: By alias, sorted.
    outputs: By alias, sorted.
    is_batchable: Whether dim 0 of all inputs and outputs is free.
  """

  def __init__(self, proto: meta_graph_pb2.SignatureDef, name: str):
    """Reads a signature.

    Args:
      proto: The signature.
      name: Its key in the model, which answers echo.
    """
    self.name = name
    self.proto = proto
    # Sorted, because the map's order is another one in each process.
    self.inputs = {alias: _field(proto.inputs[alias]) for alias in sorted(proto.inputs)}
    self.outputs = {alias: _field(proto.outputs[alias]) for alias in sorted(proto.outputs)}
    self._defaults = {alias: tf.make_ndarray(value) for alias, value in proto.defaults.items()}
    self._all_outputs = tuple(self.outputs)
    self._checks = tuple(
      (alias, field, field.dtype, _inner(field)) for alias, field in self.inputs.items()
    )
    # A default has its own number of rows.
    self.is_batchable = (
      bool(self.inputs)
      and not self._defaults
      and all(
        field.dims and field.dims[0] is None
        for field in (*self.inputs.values(), *self.outputs.values())
      )
    )

  def check_names(self, names: Collection[str]) -> None:
    """Checks which inputs there are; cheap, so that a server may do it before it decodes them.

    Args:
      names: Aliases.

    Raises:
      ServingError: INVALID_ARGUMENT with TensorFlow Serving's text.
    """
    sent = set(names)
    if sent == self.inputs.keys():
      return
    known = set(self.inputs)
    missing, extra = known - sent - set(self._defaults), sent - known
    if extra and not missing or missing and len(sent) != len(known):
      raise errors.invalid_argument(
        f'input size does not match signature: {len(sent)}!={len(known)} len({{{_join(sent)}}}) != '
        f'len({{{_join(known)}}}). Sent extra: {{{_join(extra)}}}. Missing but required: '
        f'{{{_join(missing)}}}.'
      )
    if missing:
      alias = min(missing)
      raise errors.invalid_argument(
        f'Signature input alias: {alias}(feed name: {self.inputs[alias].name}) not found in '
        'request and no default value provided. Inputs expected to be in the set '
        f'{{{_join(known)}}}.'
      )

  def check_inputs(self, inputs: Mapping[str, np.ndarray]) -> None:
    """Checks names, dtypes, ranks and fixed sizes.

    Args:
      inputs: Arrays by alias.

    Raises:
      ServingError: INVALID_ARGUMENT with TensorFlow Serving's text.
    """
    self.check_names(inputs)
    for index, (alias, field, dtype, inner) in enumerate(self._checks):
      value = inputs.get(alias)
      if value is None:  # There is a default, else the names would not have passed.
        continue
      if value.dtype != dtype:
        raise wrong_dtype(index, field.enum, tf.as_dtype(value.dtype).as_datatype_enum)
      # The usual case without a call: dim 0 free, the others fixed.
      if value.shape[1:] == inner and value.ndim:
        continue
      if not field.accepts(value.shape):
        raise _wrong_shape(alias, field, value.shape)

  def with_defaults(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Adds the defaults that the signature has for inputs that were not sent."""
    return {**self._defaults, **inputs} if self._defaults else inputs

  def select_outputs(self, output_filter: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns the aliases to fetch.

    Args:
      output_filter: Aliases; empty for all.

    Raises:
      ServingError: INVALID_ARGUMENT for an alias that is unknown or there twice, and for a
        signature without outputs.
    """
    if not output_filter:
      if not self._all_outputs:
        raise errors.invalid_argument('Must specify at least one target to fetch or execute.')
      return self._all_outputs
    seen = set()
    for alias in output_filter:
      if alias not in self.outputs:
        raise errors.invalid_argument(
          f'output tensor alias not found in signature: {alias} Outputs expected to be in the set '
          f'{{{",".join(self.outputs)}}}.'
        )
      if alias in seen:
        raise errors.invalid_argument(f'duplicate output tensor alias: {alias}')
      seen.add(alias)
    return tuple(sorted(seen))


def wrong_dtype(index: int, expected: int, provided: int) -> errors.ServingError:
  """Returns the error for an argument of another type.

  Args:
    index: Its place among the sorted aliases.
    expected: types_pb2.DataType of the signature.
    provided: types_pb2.DataType of the request.
  """
  return errors.invalid_argument(
    f'Expects arg[{index}] to be {_type_name(expected)} but {_type_name(provided)} is provided'
  )


def find(
  signatures: Mapping[str, meta_graph_pb2.SignatureDef], name: str
) -> tuple[str, meta_graph_pb2.SignatureDef]:
  """Returns the effective name and the signature; an empty name means `serving_default`.

  Raises:
    ServingError: FAILED_PRECONDITION if there is none.
  """
  name = name or DEFAULT
  if name not in signatures or name in judge.HOUSEKEEPING_SIGNATURES:
    raise errors.failed_precondition(f'Serving signature key "{name}" not found.')
  return name, signatures[name]


def _field(info: meta_graph_pb2.TensorInfo) -> Field:
  dims = None
  if not info.tensor_shape.unknown_rank:
    dims = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
  dtype = np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype)
  return Field(info.name, info.dtype, dtype, dims)


def _inner(field: Field) -> tuple[int | None, ...] | None:
  """The shape behind a free dim 0; None, which no shape equals, if dim 0 is not free."""
  return field.dims[1:] if field.dims and field.dims[0] is None else None


def _wrong_shape(alias: str, field: Field, shape: Sequence[int]) -> errors.ServingError:
  expected = ','.join('?' if dim is None else str(dim) for dim in field.dims)
  given = ','.join(map(str, shape))
  return errors.invalid_argument(
    f'Shape of tensor {alias} [{given}] is not compatible with expected shape [{expected}].'
  )


def _type_name(enum: int) -> str:
  return types_pb2.DataType.Name(enum).removeprefix('DT_').lower()


def _join(names: set[str]) -> str:
  return ','.join(sorted(names))
