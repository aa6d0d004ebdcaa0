"""The gRPC service `tensorflow.serving.ModelService`: state of the versions, and reloading.

Whoever may call HandleReloadConfigRequest decides which programs this process runs. So, unlike in
TF Serving, it is off unless enabled, and then confined to one folder.
"""

import pathlib

import grpc
from absl import logging
from grpc import aio
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2

from serving import errors
from serving.frontend import handlers
from serving.model_server import manager, model_config

SERVICE = 'tensorflow.serving.ModelService'
DISABLED_TEXT = (
  'HandleReloadConfigRequest is disabled; start the server with --enable_reload_config_rpc and'
  ' --reload_root'
)


class ModelService:
  """Answers from the manager's state.

  Args:
    models: the manager.
    reload_root: the folder that base paths of a reload must lie in; None forbids reloads.
  """

  def __init__(self, models: manager.ModelManager, *, reload_root: pathlib.Path | None):
    self._models = models
    self._reload_root = reload_root

  def handler(self) -> grpc.GenericRpcHandler:
    """Returns what is added to a server."""
    rpc = handlers.Rpc
    return handlers.service(
      SERVICE,
      {
        'GetModelStatus': rpc(
          self._status,
          get_model_status_pb2.GetModelStatusRequest,
          get_model_status_pb2.GetModelStatusResponse,
        ),
        'HandleReloadConfigRequest': rpc(
          self._reload,
          model_management_pb2.ReloadConfigRequest,
          model_management_pb2.ReloadConfigResponse,
        ),
      },
      file='tensorflow_serving/apis/model_service.proto',
    )

  async def _status(
    self, request: get_model_status_pb2.GetModelStatusRequest, context: aio.ServicerContext
  ) -> get_model_status_pb2.GetModelStatusResponse:
    del context
    return status(self._models, request)

  async def _reload(
    self, request: model_management_pb2.ReloadConfigRequest, context: aio.ServicerContext
  ) -> model_management_pb2.ReloadConfigResponse:
    """Replaces the list of models, if allowed; returns as soon as new models are ready."""
    del context
    if self._reload_root is None:
      raise errors.ServingError(grpc.StatusCode.PERMISSION_DENIED, DISABLED_TEXT)
    models = model_config.from_proto(request.config)
    model_config.check_within(models, self._reload_root)
    logging.info('reloading models %s', [model.name for model in models])
    await self._models.reload(models)
    return model_management_pb2.ReloadConfigResponse(status={'error_code': 0})


def status(
  models: manager.ModelManager, request: get_model_status_pb2.GetModelStatusRequest
) -> get_model_status_pb2.GetModelStatusResponse:
  """Answers a status request; a label in it is ignored, as in TF Serving.

  Raises:
    errors.ServingError: INVALID_ARGUMENT without a model, NOT_FOUND for an unknown one or an
      unknown version.
  """
  if not request.HasField('model_spec'):
    raise errors.invalid_argument('Missing ModelSpec')
  spec = request.model_spec
  version = spec.version.value if spec.HasField('version') else None
  response = get_model_status_pb2.GetModelStatusResponse()
  for found in models.statuses(spec.name, version):
    added = response.model_version_status.add(version=found.version, state=found.state)
    added.status.error_code = found.code
    added.status.error_message = found.message
  return response
