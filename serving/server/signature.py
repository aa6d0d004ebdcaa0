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

from serving.server import errors


@dataclasses.dataclass(frozen=True)
class Field:
  """One input or output.

  Attributes:
    name: tensor in the graph, like 'serving_default_context:0'.
    dtype: NumPy's; object for strings.
    dims: sizes with None where free; None if the rank is unknown.
  """

  name: str
  dtype: np.dtype
  dims: tuple[int | None, ...] | None
  # What `shape[1:]` must be where only dim 0 is free.
  inner: tuple[int, ...] | None = None

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
    name: its key in the model, which answers echo.
    inputs: by alias, sorted.
    outputs: by alias, sorted.
    is_batchable: whether rows of several calls can be put together: dim 0 of everything is free.
    has_sequences: whether an input has a later free dimension.
  """

  def __init__(self, proto: meta_graph_pb2.SignatureDef, name: str):
    self.name = name
    # Sorted, because the map's order is another one in each process.
    self.inputs = {alias: _field(proto.inputs[alias]) for alias in sorted(proto.inputs)}
    self.outputs = {alias: _field(proto.outputs[alias]) for alias in sorted(proto.outputs)}
    fields = (*self.inputs.values(), *self.outputs.values())
    self.is_batchable = bool(self.inputs) and all(
      field.dims and field.dims[0] is None for field in fields
    )
    self.has_sequences = any(
      field.dims is None or None in field.dims[1:] for field in self.inputs.values()
    )
    self._all_outputs = tuple(self.outputs)

  def check_names(self, names: Collection[str]) -> None:
    """Checks which inputs there are; cheap, so that a server may do it before it decodes them.

    Raises:
      ServingError: INVALID_ARGUMENT.
    """
    if len(names) == len(self.inputs) and all(name in self.inputs for name in names):
      return
    sent, known = set(names), set(self.inputs)
    missing, extra = known - sent, sent - known
    if len(sent) != len(known):
      raise errors.invalid_argument(
        f'input size does not match signature: {len(sent)}!={len(known)} len({{{_join(sent)}}}) != '
        f'len({{{_join(known)}}}). Sent extra: {{{_join(extra)}}}. Missing but required: '
        f'{{{_join(missing)}}}.'
      )
    alias = min(missing)
    raise errors.invalid_argument(
      f'Signature input alias: {alias}(feed name: {self.inputs[alias].name}) not found in '
      f'request and no default value provided. Inputs expected to be in the set {{{_join(known)}}}.'
    )

  def check_inputs(self, inputs: Mapping[str, np.ndarray]) -> None:
    """Checks names, dtypes, ranks, fixed sizes and that there are as many rows of all.

    Raises:
      ServingError: INVALID_ARGUMENT.
    """
    self.check_names(inputs)
    rows = None
    for index, (alias, field) in enumerate(self.inputs.items()):
      value = inputs[alias]
      if value.dtype != field.dtype:
        raise errors.invalid_argument(
          f'Expects arg[{index}] to be {_type_name(field.dtype)} but {_type_name(value.dtype)} is'
          ' provided'
        )
      # The usual case without a call.
      shape = value.shape
      if not (shape and shape[1:] == field.inner or field.accepts(shape)):
        expected = ','.join('?' if dim is None else str(dim) for dim in field.dims)
        given = ','.join(map(str, shape))
        raise errors.invalid_argument(
          f'Shape of tensor {alias} [{given}] is not compatible with expected shape [{expected}].'
        )
      if self.is_batchable:
        if rows is not None and shape[0] != rows:
          raise errors.invalid_argument(
            'Batching Run() input tensors must have equal 0th-dimension size'
          )
        rows = shape[0]

  def select_outputs(self, output_filter: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns the aliases to answer with.

    Args:
      output_filter: aliases; empty for all.

    Raises:
      ServingError: INVALID_ARGUMENT for an alias that is unknown or there twice, and for a
        signature without outputs.
    """
    if not self._all_outputs:
      raise errors.invalid_argument('Must specify at least one target to fetch or execute.')
    if not output_filter:
      return self._all_outputs
    for alias in output_filter:
      if alias not in self.outputs:
        raise errors.invalid_argument(
          f'output tensor alias not found in signature: {alias} Outputs expected to be in the set '
          f'{{{",".join(self.outputs)}}}.'
        )
    if len(set(output_filter)) < len(output_filter):
      twice = next(alias for alias in output_filter if list(output_filter).count(alias) > 1)
      raise errors.invalid_argument(f'duplicate output tensor alias: {twice}')
    return tuple(sorted(output_filter))


def _field(info: meta_graph_pb2.TensorInfo) -> Field:
  dims = None
  if not info.tensor_shape.unknown_rank:
    dims = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
  inner = dims[1:] if dims and dims[0] is None and None not in dims[1:] else None
  return Field(info.name, np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype), dims, inner)


def _type_name(dtype: np.dtype) -> str:
  number = tf.as_dtype(dtype).as_datatype_enum
  return types_pb2.DataType.Name(number).removeprefix('DT_').lower()


def _join(names: set[str]) -> str:
  return ','.join(sorted(names))
