"""Hypothesis strategies for requests that no honest client sends, mixed with those that some do.

Most start from a valid request and get a few faults, because what is wrong everywhere is refused
at the first check and never gets to the others.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from serving.server import tensors
from tests.serving.support import contract_cases

_MAX_ROWS = 3
_MAX_LENGTH = 5
_MAX_FAULTS = 2
_FLOATS = np.array(
  [0, -0.0, 1, -1, 0.5, 1e-45, 1e-30, 1e30, -1e38, 3.4e38, np.inf, -np.inf, np.nan], np.float32
)
_INTEGERS = np.array([0, 1, 2, 3, -1, 2**31 - 1, -(2**31)], np.int64)
_DIMENSIONS = st.sampled_from(
  [0, 1, 2, 3, 5, 7, 257, 4097, 2**16, 2**22, 2**31, 2**62, -1, -(2**63)]
)
_DTYPES = st.one_of(st.sampled_from([1, 3, 9]), st.sampled_from(types_pb2.DataType.values()))
_NAMES = st.one_of(st.sampled_from(['', 'context', 'z', 'nosuch']), st.text(max_size=8))


@dataclasses.dataclass(frozen=True)
class Model:
  """A model to make requests for.

  Attributes:
    name: of the model.
    signatures: SignatureDef by key.
    latent_tag: that its signatures accept; others are used as well.
  """

  name: str
  signatures: Mapping[str, meta_graph_pb2.SignatureDef]
  latent_tag: int


@st.composite
def tensor_protos(draw: st.DrawFn) -> tensor_pb2.TensorProto:
  """Draws a message that may be a tensor."""
  shape = draw(st.lists(_DIMENSIONS, max_size=4))
  proto = contract_cases.message(shape, draw(_DTYPES))
  kind = draw(st.integers(0, 5))
  if kind == 0:
    proto.tensor_content = draw(st.binary(max_size=32))
  elif kind == 1:
    proto.float_val.extend(draw(st.lists(st.floats(width=32), max_size=4)))
  elif kind == 2:
    proto.int_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4)))
    proto.half_val.extend(proto.int_val)
  elif kind == 3:
    proto.string_val.extend(draw(st.lists(st.binary(max_size=8), max_size=4)))
  elif kind == 4:
    proto.tensor_shape.unknown_rank = True
  return proto


@st.composite
def requests(draw: st.DrawFn, model: Model) -> predict_pb2.PredictRequest:
  """Draws a request for one of a model's signatures, with none to two faults."""
  name = draw(st.sampled_from(sorted(model.signatures)))
  request = _valid(draw, model, name)
  for _ in range(draw(st.integers(0, _MAX_FAULTS))):
    _add_fault(draw, request)
  return request


@st.composite
def messages(draw: st.DrawFn, valid: list[bytes]) -> bytes:
  """Draws bytes: of a valid message with some changed, cut, or put in; or just any."""
  if not draw(st.integers(0, 7)):
    return draw(st.binary(max_size=64))
  content = bytearray(draw(st.sampled_from(valid)))
  for _ in range(draw(st.integers(1, 4))):
    place = draw(st.integers(0, max(len(content) - 1, 0)))
    kind = draw(st.integers(0, 3))
    if kind == 0 and content:
      content[place] = draw(st.integers(0, 255))
    elif kind == 1:
      del content[place:]
    elif kind == 2:
      content[place:place] = draw(st.binary(max_size=8))
    else:
      content += content[place:]
  return bytes(content)


def _valid(draw: st.DrawFn, model: Model, signature: str) -> predict_pb2.PredictRequest:
  """Returns a request of right names, types and shapes; its numbers may be anything."""
  rows, length = draw(st.integers(0, _MAX_ROWS)), draw(st.integers(0, _MAX_LENGTH))
  # Numbers come from a generator of their own: drawing each of them would take most of the time.
  random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  share_of_odd_numbers = draw(st.sampled_from([0.0, 0.0, 0.1, 1.0]))
  inputs = {}
  for alias, info in model.signatures[signature].inputs.items():
    free = [rows, length]
    sizes = [dim.size for dim in info.tensor_shape.dim]
    shape = [free[min(axis, 1)] if size < 0 else size for axis, size in enumerate(sizes)]
    numpy_type = np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype)
    odd = random.random(shape) < share_of_odd_numbers
    if numpy_type.kind == 'f':
      values = np.where(odd, random.choice(_FLOATS, shape), random.normal(size=shape))
    else:
      right = {'latent_tag': model.latent_tag, 'num_transitions': length}.get(alias, 1)
      values = np.where(odd, random.choice(_INTEGERS, shape), right)
    with np.errstate(over='ignore'):
      array = values.astype(numpy_type)
    inputs[alias] = tensors.encode(array, as_content=draw(st.booleans()))
  return contract_cases.predict(signature, inputs, model=model.name)


def _add_fault(draw: st.DrawFn, request: predict_pb2.PredictRequest) -> None:
  """Makes one thing in a request wrong, or at least unusual."""
  alias = draw(st.sampled_from(sorted(request.inputs) or ['']))
  kind = draw(st.integers(0, 7))
  if kind <= 2:
    request.inputs[alias].CopyFrom(draw(tensor_protos()))
  elif kind == 3 and alias in request.inputs:
    del request.inputs[alias]
  elif kind == 4:
    request.inputs[draw(_NAMES)].CopyFrom(request.inputs[alias])
  elif kind == 5:
    request.output_filter.extend(draw(st.lists(_NAMES, max_size=3)))
  elif kind == 6:
    request.model_spec.signature_name = draw(_NAMES)
  else:
    request.model_spec.version.value = draw(st.integers(-(2**63), 2**63 - 1))
