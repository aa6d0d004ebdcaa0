"""A gRPC server in the test's own process, with a toy model and faults on demand.

It speaks TensorFlow Serving's API through the official stubs and decodes tensors with TensorFlow's
own functions, so it shares no code with the client that is tested against it. The toy model is a
few lines of NumPy, so that a test can compute by itself what must come out.
"""

import threading
import time
from concurrent import futures
from typing import NamedTuple

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
  get_model_metadata_pb2,
  get_model_status_pb2,
  predict_pb2,
  prediction_service_pb2_grpc,
)

FOREIGN = 9
REFUSAL = 'assertion failed: [update is not supported: the toy encoder reads a whole context]'
_STATE = ('eta', 'precision', 'count', 'latent_tag')
_FLOAT, _INT32, _INT64 = (tensor.as_datatype_enum for tensor in (tf.float32, tf.int32, tf.int64))


class ToyModel:
  """One version: a transition says what its numbers add up to, in every entry of the latent.

  `encode`: precision is the number of transitions, eta the sum of all their numbers, in each of the
  `L` entries. `sample_z`: mean plus seed[0] / 2^32. `act`: `gain` times the sum of observation and
  latent. `act_sample`: the same plus seed[1] / 2^32.
  """

  def __init__(
    self,
    latent_tag: int,
    *,
    observation_size: int = 2,
    action_size: int = 2,
    latent_size: int = 3,
    uses_next_observation: bool = False,
    supports_update: bool = True,
    gain: float = 0.1,
  ):
    self.latent_tag = latent_tag
    self.observation_size = observation_size
    self.action_size = action_size
    self.latent_size = latent_size
    self.context_size = observation_size * (1 + uses_next_observation) + action_size + 1
    self.supports_update = supports_update
    self.gain = gain

  def run(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the outputs of a signature."""
    return getattr(self, f'_{signature}')(**inputs)

  def _encode(self, context, num_transitions):
    rows, length, width = context.shape
    assert width == self.context_size, (width, self.context_size)
    mask = np.arange(length)[np.newaxis] < num_transitions[:, np.newaxis]
    total = np.where(mask, context.sum(axis=-1), 0).sum(axis=-1)
    eta = np.repeat(total[:, np.newaxis], self.latent_size, axis=1)
    precision = np.repeat(num_transitions[:, np.newaxis], self.latent_size, axis=1)
    return self._state(eta, precision, num_transitions, np.full([rows], self.latent_tag))

  def _update(self, context, num_transitions, eta, precision, count, latent_tag):
    if not self.supports_update:
      raise ValueError(REFUSAL)
    new = self._encode(context, num_transitions)
    return self._state(
      eta + new['eta'], precision + new['precision'], count + num_transitions, latent_tag
    )

  def _state(self, eta, precision, count, latent_tag):
    has_evidence = count[:, np.newaxis] > 0
    safe = np.where(has_evidence, precision, 1)
    return {
      'eta': eta.astype(np.float32),
      'precision': precision.astype(np.float32),
      'count': count.astype(np.int32),
      'mean': np.where(has_evidence, eta / safe, 0).astype(np.float32),
      'variance': (1 / safe).astype(np.float32),
      'latent_tag': latent_tag.astype(np.int64),
      'status': self._status(latent_tag),
    }

  def _sample_z(self, eta, precision, count, latent_tag, seed):
    mean = self._state(eta, precision, count, latent_tag)['mean']
    z = (mean + seed[:, :1] / 2**32).astype(np.float32)
    return {'z': z, 'latent_tag': latent_tag, 'status': self._status(latent_tag)}

  def _act(self, observation, z, latent_tag, seed=None):
    total = self.gain * (observation.sum(axis=-1) + z.sum(axis=-1))
    if seed is not None:
      total = total + seed[:, 1] / 2**32
    action = np.repeat(total[:, np.newaxis], self.action_size, axis=1).astype(np.float32)
    return {'action': action, 'status': self._status(latent_tag)}

  _act_sample = _act

  def _status(self, latent_tag):
    return np.where(latent_tag == self.latent_tag, 0, FOREIGN).astype(np.int32)

  def signatures(self) -> get_model_metadata_pb2.SignatureDefMap:
    """Returns the metadata of the model, with everything a client reads of it."""
    floats = {
      'context': [-1, -1, self.context_size],
      'observation': [-1, self.observation_size],
      'action': [-1, self.action_size],
      **{name: [-1, self.latent_size] for name in ('z', 'eta', 'precision')},
    }
    inputs = {
      'encode': ('context', 'num_transitions'),
      'update': ('context', 'num_transitions', *_STATE),
      'sample_z': (*_STATE, 'seed'),
      'act': ('observation', 'z', 'latent_tag'),
      'act_sample': ('observation', 'z', 'latent_tag', 'seed'),
    }
    result = get_model_metadata_pb2.SignatureDefMap()

    def fill(tensors, name):
      shape = floats.get(name, [-1, 2] if name == 'seed' else [-1])
      dtype = _FLOAT if name in floats else _INT64 if name == 'latent_tag' else _INT32
      tensors[name].dtype = dtype
      for size in shape:
        tensors[name].tensor_shape.dim.add().size = size

    for signature, names in inputs.items():
      definition = result.signature_def[signature]
      for name in names:
        fill(definition.inputs, name)
      if signature.startswith('act'):
        fill(definition.outputs, 'action')
    return result


class ReceivedCall(NamedTuple):
  """A call as the server saw it: `signature` is 'GetModelMetadata' for that method."""

  signature: str
  version: int | None
  inputs: dict[str, np.ndarray]
  metadata: dict[str, str]
  seconds_left: float
  time: float


class _Fault(NamedTuple):
  code: grpc.StatusCode
  details: str
  signature: str | None


class ScriptedServer(prediction_service_pb2_grpc.PredictionServiceServicer):
  """Serves versions of one model; used as a context manager.

  Attributes:
    versions: the models by version number; may be changed while it serves.
    calls: what was received, faults included.
    delay_seconds: how long every call takes.
    token: bearer token that every call must carry; None for none.
    address: where it listens.
  """

  def __init__(
    self,
    versions: dict[int, ToyModel],
    *,
    token: str | None = None,
    credentials: grpc.ServerCredentials | None = None,
    address: str = '127.0.0.1:0',
  ):
    self.versions = versions
    self.calls: list[ReceivedCall] = []
    self.delay_seconds = 0.0
    self.token = token
    self._faults: list[_Fault] = []
    self._lock = threading.Lock()
    self._server = grpc.server(futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self, self._server)
    status = grpc.unary_unary_rpc_method_handler(
      self._status,
      request_deserializer=get_model_status_pb2.GetModelStatusRequest.FromString,
      response_serializer=get_model_status_pb2.GetModelStatusResponse.SerializeToString,
    )
    self._server.add_generic_rpc_handlers(
      (
        grpc.method_handlers_generic_handler(
          'tensorflow.serving.ModelService', {'GetModelStatus': status}
        ),
      )
    )
    if credentials is None:
      port = self._server.add_insecure_port(address)
    else:
      port = self._server.add_secure_port(address, credentials)
    self.address = f'{address.rpartition(":")[0]}:{port}'

  def __enter__(self) -> 'ScriptedServer':
    self._server.start()
    return self

  def __exit__(self, *unused_exception) -> None:
    self._server.stop(None).wait()

  def fail_next(
    self, code: grpc.StatusCode, *, times: int = 1, details: str = '', signature: str | None = None
  ) -> None:
    """Answers the next calls, of one signature only where it is given, with an error."""
    with self._lock:
      self._faults += [_Fault(code, details, signature)] * times

  def received(self, signature: str) -> list[ReceivedCall]:
    """Returns the calls of one signature."""
    return [call for call in self.calls if call.signature == signature]

  def Predict(self, request, context):  # The name is the service's.
    inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
    signature = request.model_spec.signature_name
    model, version = self._receive(signature, request, inputs, context)
    try:
      outputs = model.run(signature, inputs)
    except ValueError as error:
      context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    response = predict_pb2.PredictResponse()
    response.model_spec.version.value = version
    if request.output_filter:
      context.abort(grpc.StatusCode.INTERNAL, 'servers warm up all outputs, not some')
    for name, array in outputs.items():
      # Typed fields, as TensorFlow Serving answers.
      proto = response.outputs[name]
      proto.CopyFrom(tf.make_tensor_proto(array.ravel().tolist(), array.dtype, array.shape))
    return response

  def GetModelMetadata(self, request, context):  # The name is the service's.
    model, version = self._receive('GetModelMetadata', request, {}, context)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = version
    response.metadata['signature_def'].Pack(model.signatures())
    return response

  def _status(self, request, context):
    self._receive('GetModelStatus', request, {}, context)
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in self.versions:
      state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
      response.model_version_status.add(version=version, state=state)
    return response

  def _receive(self, signature, request, inputs, context) -> tuple[ToyModel, int]:
    spec = request.model_spec
    wanted = spec.version.value if spec.HasField('version') else None
    metadata = dict(context.invocation_metadata())
    call = ReceivedCall(
      signature, wanted, inputs, metadata, context.time_remaining(), time.monotonic()
    )
    with self._lock:
      self.calls.append(call)
      fault = next((f for f in self._faults if f.signature in (None, signature)), None)
      if fault is not None:
        self._faults.remove(fault)
    time.sleep(self.delay_seconds)
    if fault is not None:
      context.abort(fault.code, fault.details)
    if self.token is not None and metadata.get('authorization') != f'Bearer {self.token}':
      context.abort(grpc.StatusCode.UNAUTHENTICATED, 'a valid bearer token is required')
    version = max(self.versions, default=0) if wanted is None else wanted
    if version not in self.versions:
      identity = f'Latest({spec.name})' if wanted is None else f'Specific({spec.name}, {wanted})'
      context.abort(grpc.StatusCode.NOT_FOUND, f'Servable not found for request: {identity}')
    return self.versions[version], version
