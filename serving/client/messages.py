"""Calls as plain data, and their protocol buffers.

The logic of a session yields `Describe` and `Predict` and receives `Description` and `Prediction`;
it never sees a channel. This module turns the one into messages and messages into the other, for
the blocking and the asyncio client alike.
"""

from typing import NamedTuple

import numpy as np
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2, predict_pb2

from serving import tensors
from serving.client import errors, interface
from serving.client import options as options_lib

_SIGNATURES = 'signature_def'


class Describe(NamedTuple):
  """Asks for the version in force and its sizes.

  Attributes:
    wait_for_ready: wait for a server that cannot be reached yet.
  """

  deadline_seconds: float
  wait_for_ready: bool = False

  name = 'GetModelMetadata'


class Description(NamedTuple):
  """Answer to `Describe`."""

  version: int
  interface: interface.Interface


class Predict(NamedTuple):
  """Runs a signature of one version.

  Attributes:
    signature: its name.
    version: the version that is to answer.
    inputs: arrays of the signature's types, batch first.
    outputs: what to answer.
    deadline_seconds: time for the call, retries included.
  """

  signature: str
  version: int
  inputs: dict[str, np.ndarray]
  outputs: tuple[str, ...]
  deadline_seconds: float

  @property
  def name(self) -> str:
    """What messages call it."""
    return self.signature


class Prediction(NamedTuple):
  """Answer to `Predict`."""

  version: int
  outputs: dict[str, np.ndarray]


Call = Describe | Predict
Answer = Description | Prediction


def to_request(
  call: Call, options: options_lib.Options
) -> get_model_metadata_pb2.GetModelMetadataRequest | predict_pb2.PredictRequest:
  """Returns the request of a call."""
  spec = model_pb2.ModelSpec(name=options.model_name)
  if isinstance(call, Describe):
    if options.version_label is not None:
      spec.version_label = options.version_label
    return get_model_metadata_pb2.GetModelMetadataRequest(
      model_spec=spec, metadata_field=[_SIGNATURES]
    )
  spec.version.value = call.version
  spec.signature_name = call.signature
  request = predict_pb2.PredictRequest(model_spec=spec, output_filter=call.outputs)
  for name, array in call.inputs.items():
    request.inputs[name].CopyFrom(tensors.encode(array))
  return request


def from_response(
  call: Call,
  response: get_model_metadata_pb2.GetModelMetadataResponse | predict_pb2.PredictResponse,
) -> Answer:
  """Returns the answer in a response.

  Raises:
    ModelMismatchError: if the answer lacks something or cannot be read.
  """
  model, version = response.model_spec.name, response.model_spec.version.value
  if isinstance(call, Describe):
    signatures = get_model_metadata_pb2.SignatureDefMap()
    if not response.metadata[_SIGNATURES].Unpack(signatures):
      raise errors.ModelMismatchError(f'the server tells no signatures of model {model!r}')
    return Description(version, interface.from_signatures(signatures.signature_def, model))
  try:
    outputs = {name: tensors.decode(response.outputs[name]) for name in call.outputs}
  except tensors.TensorError as error:
    raise errors.ModelMismatchError(
      f'signature {call.signature!r} of model {model!r} gave no readable answer: {error}'
    ) from error
  return Prediction(version, outputs)
