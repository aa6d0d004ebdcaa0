"""The gRPC services: prediction, model status, health and reflection.

Methods are added by hand instead of by the generated code of the `tensorflow-serving-api` wheel:
its `*_service_pb2.py` cannot be imported with protobuf 4, so that reflection would not know the
services; and with its `add_..._to_server` grpc.aio answers UNKNOWN and logs a traceback for bytes
that are no message, where TensorFlow Serving answers INTERNAL without a text.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
  classification_pb2,
  get_model_metadata_pb2,
  get_model_status_pb2,
  inference_pb2,
  model_management_pb2,
  predict_pb2,
  regression_pb2,
)

from serving.server import errors, models, predict

PREDICTION_SERVICE = 'tensorflow.serving.PredictionService'
MODEL_SERVICE = 'tensorflow.serving.ModelService'
SIGNATURE_DEF = 'signature_def'
"""The only metadata field there is."""
# Whether the model is there: the whole server, TensorFlow Serving's short name, and the full one.
HEALTH_OF_THE_MODEL = ('', 'PredictionService', PREDICTION_SERVICE)
# Answers whether or not it is.
HEALTH_OF_ITS_STATUS = ('ModelService', MODEL_SERVICE)
_HEALTH_PERIOD_SECONDS = 0.5
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# The implementation, and the types of request and answer; the first may raise `ServingError`.
_Rpc = tuple[
  Callable[[message.Message, aio.ServicerContext], Awaitable[message.Message]],
  type[message.Message],
  type[message.Message],
]


class Services:
  """What the gRPC port offers, and its health.

  Args:
    served: the model.
    predictor: answers predict requests.
  """

  def __init__(self, served: models.Models, predictor: predict.Predictor):
    self._models = served
    self._predictor = predictor
    self._health = health.aio.HealthServicer()
    self._follower: asyncio.Task | None = None

  def add_to(self, server: aio.Server) -> None:
    """Registers all services."""
    prediction = {
      'Predict': (self._predict, predict_pb2.PredictRequest, predict_pb2.PredictResponse),
      'GetModelMetadata': (
        self._metadata,
        get_model_metadata_pb2.GetModelMetadataRequest,
        get_model_metadata_pb2.GetModelMetadataResponse,
      ),
      # Calls made for tf.Example, which no signature of ours takes.
      'Classify': (
        _unimplemented,
        classification_pb2.ClassificationRequest,
        classification_pb2.ClassificationResponse,
      ),
      'Regress': (
        _unimplemented,
        regression_pb2.RegressionRequest,
        regression_pb2.RegressionResponse,
      ),
      'MultiInference': (
        _unimplemented,
        inference_pb2.MultiInferenceRequest,
        inference_pb2.MultiInferenceResponse,
      ),
    }
    status = {
      'GetModelStatus': (
        self._status,
        get_model_status_pb2.GetModelStatusRequest,
        get_model_status_pb2.GetModelStatusResponse,
      ),
      # Whoever may call it decides which programs this process runs.
      'HandleReloadConfigRequest': (
        _unimplemented,
        model_management_pb2.ReloadConfigRequest,
        model_management_pb2.ReloadConfigResponse,
      ),
    }
    apis = 'tensorflow_serving/apis'
    server.add_generic_rpc_handlers(
      (
        _service(PREDICTION_SERVICE, prediction, f'{apis}/prediction_service.proto'),
        _service(MODEL_SERVICE, status, f'{apis}/model_service.proto'),
      )
    )
    health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
    names = [PREDICTION_SERVICE, MODEL_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)

  async def start(self) -> None:
    """Sets the health of all names and goes on following the model."""
    for name in HEALTH_OF_ITS_STATUS:
      await self._health.set(name, _SERVING)
    await self._update_health()
    self._follower = asyncio.create_task(self._follow())

  async def drain(self) -> None:
    """Says NOT_SERVING for all names, for good."""
    if self._follower is not None:
      self._follower.cancel()
      await asyncio.gather(self._follower, return_exceptions=True)
    await self._health.enter_graceful_shutdown()

  async def _follow(self) -> None:
    while True:
      await asyncio.sleep(_HEALTH_PERIOD_SECONDS)
      await self._update_health()

  async def _update_health(self) -> None:
    # TensorFlow Serving says SERVING as soon as its port is open.
    for name in HEALTH_OF_THE_MODEL:
      await self._health.set(name, _SERVING if self._models.is_ready() else _NOT_SERVING)

  async def _predict(
    self, request: predict_pb2.PredictRequest, context: aio.ServicerContext
  ) -> predict_pb2.PredictResponse:
    remaining = context.time_remaining()
    deadline = None if remaining is None else time.monotonic() + remaining
    return await self._predictor.predict(request, deadline=deadline)

  async def _metadata(
    self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: aio.ServicerContext
  ) -> get_model_metadata_pb2.GetModelMetadataResponse:
    del context
    return metadata(self._models, request)

  async def _status(
    self, request: get_model_status_pb2.GetModelStatusRequest, context: aio.ServicerContext
  ) -> get_model_status_pb2.GetModelStatusResponse:
    del context
    return status(self._models, request)


def metadata(
  served: models.Models, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
  """Answers a metadata request.

  Raises:
    errors.ServingError: INVALID_ARGUMENT for another field than `signature_def`, and as
      `predict.resolve`.
  """
  spec = request.model_spec if request.HasField('model_spec') else None
  if spec is not None and not request.metadata_field:
    raise errors.invalid_argument(
      'GetModelMetadataRequest must specify at least one metadata_field'
    )
  for field in request.metadata_field:
    if field != SIGNATURE_DEF:
      raise errors.invalid_argument(f'Metadata field {field} is not supported')
  response = get_model_metadata_pb2.GetModelMetadataResponse()
  found = predict.resolve(served, spec)
  predict.fill_spec(response.model_spec, found)
  signatures = get_model_metadata_pb2.SignatureDefMap()
  for name, signature in found.protos.items():
    signatures.signature_def[name].CopyFrom(signature)
  response.metadata[SIGNATURE_DEF].Pack(signatures)
  return response


def status(
  served: models.Models, request: get_model_status_pb2.GetModelStatusRequest
) -> get_model_status_pb2.GetModelStatusResponse:
  """Answers a status request; a label in it is ignored, as in TensorFlow Serving.

  Raises:
    errors.ServingError: INVALID_ARGUMENT without a model, NOT_FOUND for an unknown one or an
      unknown version.
  """
  if not request.HasField('model_spec'):
    raise errors.invalid_argument('Missing ModelSpec')
  spec = request.model_spec
  version = spec.version.value if spec.HasField('version') else None
  response = get_model_status_pb2.GetModelStatusResponse()
  for number, found in served.statuses(spec.name, version):
    added = response.model_version_status.add(version=number, state=found.state)
    added.status.error_code = found.error.code.value[0] if found.error else 0
    added.status.error_message = found.error.message if found.error else ''
  return response


async def _unimplemented(request: message.Message, context: aio.ServicerContext) -> message.Message:
  del request, context
  raise errors.ServingError(
    grpc.StatusCode.UNIMPLEMENTED, 'this server answers Predict, GetModelMetadata, GetModelStatus'
  )


def _service(name: str, rpcs: Mapping[str, _Rpc], file: str) -> grpc.GenericRpcHandler:
  """Returns the handler of a service that a .proto file defines, and lets reflection know it."""
  _describe(name, rpcs, file)
  return grpc.method_handlers_generic_handler(
    name, {method: _handler(*rpc) for method, rpc in rpcs.items()}
  )


def _describe(name: str, rpcs: Mapping[str, _Rpc], file: str) -> None:
  """Adds the service to protobuf's pool of descriptors, unless it is there."""
  pool = descriptor_pool.Default()
  try:
    pool.FindFileContainingSymbol(name)
    return
  except KeyError:
    pass
  package, _, short_name = name.rpartition('.')
  description = descriptor_pb2.FileDescriptorProto(name=file, package=package, syntax='proto3')
  described = description.service.add(name=short_name)
  dependencies = set()
  for method, (_, *kinds) in rpcs.items():
    dependencies.update(kind.DESCRIPTOR.file.name for kind in kinds)
    types = [f'.{kind.DESCRIPTOR.full_name}' for kind in kinds]
    described.method.add(name=method, input_type=types[0], output_type=types[1])
  description.dependency.extend(sorted(dependencies))
  pool.Add(description)


def _handler(
  answer: Callable, request_type: type[message.Message], response_type: type[message.Message]
) -> grpc.RpcMethodHandler:
  def parse(content: bytes) -> message.Message | None:
    try:
      return request_type.FromString(content)
    except message.DecodeError:
      return None

  async def handle(
    request: message.Message | None, context: aio.ServicerContext
  ) -> message.Message:
    if request is None:
      await context.abort(grpc.StatusCode.INTERNAL, '')
    try:
      return await answer(request, context)
    except errors.ServingError as error:
      await context.abort(error.code, error.message)

  return grpc.unary_unary_rpc_method_handler(
    handle, request_deserializer=parse, response_serializer=response_type.SerializeToString
  )
