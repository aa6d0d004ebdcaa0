"""The gRPC service `tensorflow.serving.PredictionService`.

Predict and GetModelMetadata; the calls made for tf.Example are UNIMPLEMENTED, because no signature
of ours takes one.
"""

import time

import grpc
from google.protobuf import message
from grpc import aio
from tensorflow_serving.apis import (
  classification_pb2,
  get_model_metadata_pb2,
  inference_pb2,
  predict_pb2,
  regression_pb2,
)

from serving import errors
from serving.frontend import handlers, predictor
from serving.model_server import manager

SERVICE = 'tensorflow.serving.PredictionService'
SIGNATURE_DEF = 'signature_def'
"""The only metadata field there is."""
UNIMPLEMENTED_TEXT = 'this server answers Predict and GetModelMetadata only'


class PredictionService:
  """The methods; the work is done by a `Predictor`."""

  def __init__(self, answering: predictor.Predictor, models: manager.ModelManager):
    self._predictor = answering
    self._models = models

  def handler(self) -> grpc.GenericRpcHandler:
    """Returns what is added to a server."""
    rpc = handlers.Rpc
    return handlers.service(
      SERVICE,
      {
        'Classify': rpc(
          _unimplemented,
          classification_pb2.ClassificationRequest,
          classification_pb2.ClassificationResponse,
        ),
        'Regress': rpc(
          _unimplemented, regression_pb2.RegressionRequest, regression_pb2.RegressionResponse
        ),
        'Predict': rpc(self._predict, predict_pb2.PredictRequest, predict_pb2.PredictResponse),
        'MultiInference': rpc(
          _unimplemented, inference_pb2.MultiInferenceRequest, inference_pb2.MultiInferenceResponse
        ),
        'GetModelMetadata': rpc(
          self._metadata,
          get_model_metadata_pb2.GetModelMetadataRequest,
          get_model_metadata_pb2.GetModelMetadataResponse,
        ),
      },
      file='tensorflow_serving/apis/prediction_service.proto',
    )

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


def metadata(
  models: manager.ModelManager, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
  """Answers a metadata request.

  Raises:
    errors.ServingError: INVALID_ARGUMENT for another field than `signature_def`, and as
      `predictor.resolve`.
  """
  if not request.HasField('model_spec'):
    raise errors.invalid_argument('Missing ModelSpec')
  if not request.metadata_field:
    raise errors.invalid_argument(
      'GetModelMetadataRequest must specify at least one metadata_field'
    )
  for field in request.metadata_field:
    if field != SIGNATURE_DEF:
      raise errors.invalid_argument(f'Metadata field {field} is not supported')
  response = get_model_metadata_pb2.GetModelMetadataResponse()
  with predictor.resolve(models, request.model_spec) as lent:
    predictor.fill_spec(response.model_spec, lent)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in lent.signatures.items():
      signatures.signature_def[name].CopyFrom(signature)
  response.metadata[SIGNATURE_DEF].Pack(signatures)
  return response


async def _unimplemented(request: message.Message, context: aio.ServicerContext) -> message.Message:
  del request, context
  raise errors.ServingError(grpc.StatusCode.UNIMPLEMENTED, UNIMPLEMENTED_TEXT)
