"""What travels: arrays as TensorFlow Serving's messages and back, and a model's sizes.

Owns the encoding and the checks of data before it is sent; opens no connection. TensorFlow Serving
checks no shapes, and in a batch one client's wrong shape would fail its neighbours' calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy import typing

from serving.client import errors, pearl_pb2

SIGNATURES = 'signature_def'
# TensorFlow's number of the data type, its bytes, and the field of its typed values.
_TYPES = {1: ('<f4', 'float_val'), 3: ('<i4', 'int_val'), 9: ('<i8', 'int64_val')}
_NUMBERS = {np.dtype(code).newbyteorder('='): number for number, (code, _) in _TYPES.items()}
_MAX_ELEMENTS = 2**24
# The signatures a session needs, each with the inputs it sends; `update` may be missing.
_REQUIRED = {
  'encode': ('context', 'num_transitions'),
  'sample_z': ('eta', 'precision', 'count', 'latent_tag', 'seed'),
  'act': ('observation', 'z', 'latent_tag', 'action'),
}
_BELIEF = ('eta', 'precision', 'count', 'mean', 'variance', 'latent_tag', 'status')
_OUTPUTS = {
  'encode': _BELIEF,
  'update': _BELIEF,
  'sample_z': ('z', 'status'),
  'act': ('action', 'status'),
  'act_sample': ('action', 'status'),
}


class Sizes(NamedTuple):
  """Sizes of one version of a model.

  Attributes:
    observation_size: `O`.
    action_size: `A`; actions are in [-1, 1].
    latent_size: `L`.
    context_size: `C`, numbers per transition.
    has_update: whether there is a signature `update`. That a model refuses it (a recurrent encoder)
      shows only when it is called.
  """

  observation_size: int
  action_size: int
  latent_size: int
  context_size: int
  has_update: bool

  @property
  def uses_next_observation(self) -> bool:
    """Whether a transition for the encoder includes the next observation."""
    return self.context_size > self.observation_size + self.action_size + 1


def model_spec(
  name: str, version: int | None, label: str | None = None, signature: str = ''
) -> pearl_pb2.ModelSpec:
  """Returns which model is meant; without a version the one with the label, or the newest."""
  spec = pearl_pb2.ModelSpec(name=name, signature_name=signature)
  if version is not None:
    spec.version.value = version
  elif label is not None:
    spec.version_label = label
  return spec


def predict_request(
  spec: pearl_pb2.ModelSpec, inputs: Mapping[str, np.ndarray]
) -> pearl_pb2.PredictRequest:
  """Returns the request of a call; all outputs are asked for, which is what servers warm up."""
  request = pearl_pb2.PredictRequest(model_spec=spec)
  for name, array in inputs.items():
    tensor = request.inputs[name]
    tensor.dtype = _NUMBERS[array.dtype]
    for size in array.shape:
      tensor.tensor_shape.dim.add().size = size
    tensor.tensor_content = array.astype(_TYPES[tensor.dtype][0], copy=False).tobytes()
  return request


def outputs_of(
  response: pearl_pb2.PredictResponse, signature: str, num_rows: int
) -> dict[str, np.ndarray]:
  """Returns the arrays of an answer.

  Args:
    response: the answer.
    signature: what was called, for messages.
    num_rows: how many rows each array must have.

  Raises:
    ModelMismatchError: if some are missing, cannot be read or have another number of rows.
    RowError: if the model refuses a row, of the kind of the first.
  """
  outputs = {name: _decode(name, tensor) for name, tensor in response.outputs.items()}
  for name, array in outputs.items():
    if array.ndim == 0 or len(array) != num_rows:
      raise errors.ModelMismatchError(
        f'signature {signature!r} answered {name!r} of shape {list(array.shape)} for {num_rows} '
        'row(s)'
      )
  if missing := sorted(set(_OUTPUTS[signature]) - set(outputs)):
    raise errors.ModelMismatchError(f'signature {signature!r} answered without {missing}')
  check_status(outputs['status'], signature)
  return outputs


def check_status(statuses: Sequence[int], signature: str) -> None:
  """Raises the exception of the first row that was refused; statuses `[B] int32`, 0 where fine."""
  refused = [row for row, status in enumerate(statuses) if status]
  if refused:
    status = int(statuses[refused[0]])
    raise errors.BY_STATUS.get(status, errors.RowError)(status, refused, signature)


def sizes_of(response: pearl_pb2.GetModelMetadataResponse) -> Sizes:
  """Returns the sizes that follow from a model's signatures.

  Raises:
    ModelMismatchError: if it is not a PEARL model.
  """
  signatures = pearl_pb2.SignatureDefMap.FromString(response.metadata[SIGNATURES].value)
  widths: dict[str, dict[str, int | None]] = {}
  for name, signature in signatures.signature_def.items():
    tensors = {**signature.outputs, **signature.inputs}
    dims = {key: tensor.tensor_shape.dim for key, tensor in tensors.items()}
    widths[name] = {key: dim[-1].size if dim else None for key, dim in dims.items()}
  return sizes_from(widths, response.model_spec.name)


def sizes_from(widths: Mapping[str, Mapping[str, int | None]], model: str) -> Sizes:
  """Returns the sizes of a model.

  Args:
    widths: last dimension of each input and output of each signature, where it is known.
    model: its name, for messages.

  Raises:
    ModelMismatchError: if it is not a PEARL model.
  """
  for name, tensors in _REQUIRED.items():
    if name not in widths:
      raise errors.ModelMismatchError(
        f'model {model!r} has no signature {name!r}, only {sorted(widths)}: is it an export of '
        'encoder and policy in one?'
      )
    if missing := sorted(set(tensors) - set(widths[name])):
      raise errors.ModelMismatchError(f'signature {name!r} of model {model!r} lacks {missing}')

  def width(signature: str, tensor: str) -> int:
    found = widths[signature][tensor]
    if found is None or found < 1:
      raise errors.ModelMismatchError(
        f'model {model!r} does not tell the width of {tensor!r}, the last dimension of its shape'
      )
    return found

  found = Sizes(
    observation_size=width('act', 'observation'),
    action_size=width('act', 'action'),
    latent_size=width('act', 'z'),
    context_size=width('encode', 'context'),
    has_update='update' in widths,
  )
  short = found.observation_size + found.action_size + 1
  if found.context_size not in (short, short + found.observation_size):
    raise errors.ModelMismatchError(
      f'model {model!r} takes transitions of {found.context_size} numbers; with observations of '
      f'{found.observation_size} and actions of {found.action_size} they should have {short}, or '
      f'{short + found.observation_size} with the next observation'
    )
  return found


def floats(name: str, value: typing.ArrayLike, shape: Sequence[int | None]) -> np.ndarray:
  """Returns finite numbers as float32.

  Args:
    name: what it is, for the message.
    value: real numbers of any type.
    shape: expected; None for any size.

  Raises:
    InvalidInputError: if these are not real numbers of that shape, finite as float32.
  """
  try:
    array = np.asarray(value)
  except ValueError as error:
    raise errors.InvalidInputError(f'{name} is no array: {error}') from error
  if array.dtype.kind not in 'fiu':
    raise errors.InvalidInputError(f'{name} must be real numbers, got dtype {array.dtype}')
  fits = len(shape) == array.ndim and all(
    wanted in (None, size) for wanted, size in zip(shape, array.shape)
  )
  if not fits:
    raise errors.InvalidInputError(f'{name} must have shape {list(shape)}, got {list(array.shape)}')
  with np.errstate(over='ignore'):
    converted = array.astype(np.float32)
  if not np.isfinite(converted).all():
    where = tuple(int(index) for index in np.argwhere(~np.isfinite(converted))[0])
    raise errors.InvalidInputError(f'{name}{list(where)} is {array[where]}, not a finite float32')
  return converted


def _decode(name: str, tensor: pearl_pb2.Tensor) -> np.ndarray:
  """Returns the array of either encoding; too few typed values: the last one is repeated."""
  shape = [dim.size for dim in tensor.tensor_shape.dim]
  size = math.prod(shape)
  if tensor.dtype not in _TYPES or min(shape, default=0) < 0 or size > _MAX_ELEMENTS:
    raise errors.ModelMismatchError(f'output {name!r} has type {tensor.dtype} and shape {shape}')
  code, field = _TYPES[tensor.dtype]
  if tensor.tensor_content:
    array = np.frombuffer(tensor.tensor_content, code)
  else:
    array = np.fromiter(getattr(tensor, field), code)
    if 0 < len(array) < size:
      array = np.pad(array, (0, size - len(array)), mode='edge')
    elif not len(array):
      array = np.zeros(size, code)
  if len(array) != size:
    raise errors.ModelMismatchError(
      f'output {name!r} has {len(array)} numbers for a shape of {shape}'
    )
  return array.reshape(shape).astype(np.dtype(code).newbyteorder('='), copy=False)
