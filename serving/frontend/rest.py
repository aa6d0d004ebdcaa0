"""The HTTP port: TF Serving's REST API for status, metadata and predict, and the metrics.

Paths, forms, texts and status codes are TF Serving's. Classify and regress are answered by 501.
"""

import asyncio
import dataclasses
import json
import re
import time
from collections.abc import Awaitable, Callable

import grpc
from absl import logging
from aiohttp import web
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from serving import errors
from serving.frontend import (
  model_service,
  monitoring,
  prediction_service,
  predictor,
  rest_json,
  security,
)
from serving.model_server import manager

_CODE = grpc.StatusCode
HTTP_STATUS = {
  _CODE.INVALID_ARGUMENT: 400,
  _CODE.FAILED_PRECONDITION: 400,
  _CODE.OUT_OF_RANGE: 400,
  _CODE.UNAUTHENTICATED: 401,
  _CODE.PERMISSION_DENIED: 403,
  _CODE.NOT_FOUND: 404,
  _CODE.ALREADY_EXISTS: 409,
  _CODE.ABORTED: 409,
  _CODE.RESOURCE_EXHAUSTED: 429,
  _CODE.CANCELLED: 499,
  _CODE.UNIMPLEMENTED: 501,
  _CODE.UNAVAILABLE: 503,
  _CODE.DEADLINE_EXCEEDED: 504,
  _CODE.UNKNOWN: 500,
  _CODE.INTERNAL: 500,
  _CODE.DATA_LOSS: 500,
}
"""The HTTP status of each gRPC code."""

_VERSION = r'(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?'
_PREDICT_PATH = re.compile(
  rf'/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)', re.IGNORECASE
)
_STATUS_PATH = re.compile(
  rf'/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?P<metadata>/metadata)?', re.IGNORECASE
)
_API_PREFIX = '/v1/'
_MAX_VERSION = 2**63 - 1
# A larger body is parsed beside the event loop, which answers others meanwhile.
_LARGE_BODY_BYTES = 2**16


@dataclasses.dataclass(frozen=True)
class RestSettings:
  """What can be set.

  Attributes:
    timeout_seconds: after which a predict request is given up.
    max_body_bytes: the largest request.
    max_elements: numbers in one tensor.
    metrics_path: where metrics are shown; None for nowhere.
  """

  timeout_seconds: float
  max_body_bytes: int
  max_elements: int
  metrics_path: str | None = None


class RestApi:
  """The handlers; `application` puts them together."""

  def __init__(
    self,
    answering: predictor.Predictor,
    models: manager.ModelManager,
    metrics: monitoring.Metrics,
    *,
    settings: RestSettings,
    access: security.Access | None = None,
  ):
    self._predictor = answering
    self._models = models
    self._metrics = metrics
    self._settings = settings
    self._access = access

  def application(self) -> web.Application:
    """Returns the application for a server."""
    application = web.Application(
      client_max_size=self._settings.max_body_bytes, middlewares=[self._guard]
    )
    if self._settings.metrics_path is not None:
      application.router.add_get(self._settings.metrics_path, self._show_metrics)
    application.router.add_route('*', '/{path:.*}', self._dispatch)
    return application

  @web.middleware
  async def _guard(
    self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
  ) -> web.StreamResponse:
    """Lets in who has a token, and turns errors into answers."""
    try:
      tokens = self._access.tokens if self._access is not None else None
      if tokens and not tokens.accept(request.headers.get(security.AUTHORIZATION)):
        raise errors.ServingError(_CODE.UNAUTHENTICATED, security.UNAUTHENTICATED_TEXT)
      return await handler(request)
    except errors.ServingError as error:
      return _error(HTTP_STATUS[error.code], error.message)
    except web.HTTPRequestEntityTooLarge as error:
      return _error(error.status, error.text)
    except web.HTTPException:
      raise
    except Exception:  # The outermost handler: logged with its traceback, and no text leaks out.
      logging.exception('%s %s failed', request.method, request.path)
      return _error(500, 'internal error; the log of the server says more')

  async def _show_metrics(self, request: web.Request) -> web.Response:
    del request
    return web.Response(
      body=self._metrics.exposition(), headers={'Content-Type': monitoring.CONTENT_TYPE}
    )

  async def _dispatch(self, request: web.Request) -> web.Response:
    path = request.path
    if not path.lower().startswith(_API_PREFIX):
      raise web.HTTPNotFound(
        text='<html><head><title>404 Not Found</title></head><body>Not Found</body></html>',
        content_type='text/html',
      )
    if request.method == 'POST' and (match := _PREDICT_PATH.fullmatch(path)):
      return await self._post(request, match)
    if request.method == 'GET' and (match := _STATUS_PATH.fullmatch(path)):
      return self._get(match)
    raise errors.invalid_argument(f'Malformed request: {request.method} {path}')

  async def _post(self, request: web.Request, match: re.Match) -> web.Response:
    method = match['method'].lower()
    if method != 'predict':
      raise errors.ServingError(
        _CODE.UNIMPLEMENTED, f'this server has no {method}; {prediction_service.UNIMPLEMENTED_TEXT}'
      )
    timeout = self._settings.timeout_seconds
    deadline = time.monotonic() + timeout
    try:
      async with asyncio.timeout(timeout):
        text = await self._predict(await request.read(), _spec(match), deadline)
    except TimeoutError:
      raise errors.ServingError(
        _CODE.DEADLINE_EXCEEDED, f'no answer within {timeout} seconds'
      ) from None
    return web.Response(text=text, content_type='application/json')

  async def _predict(self, body: bytes, spec: model_pb2.ModelSpec, deadline: float) -> str:
    document = await _call(rest_json.parse_body, body, size=len(body))
    name = rest_json.signature_name(document)
    with self._predictor.call(
      spec, name, entrypoint=predictor.REST, unknown_signature=_unknown_signature
    ) as call:
      infos = call.signature.proto.inputs
      inputs, form = await _call(
        lambda: rest_json.parse_inputs(document, infos, max_elements=self._settings.max_elements),
        size=len(body),
      )
      outputs = await self._predictor.run(call, inputs, (), deadline=deadline)
      size = sum(array.nbytes for array in outputs.values())
      return await _call(rest_json.format_outputs, outputs, form, size=size)

  def _get(self, match: re.Match) -> web.Response:
    if match['name'] is None:
      raise errors.invalid_argument('Missing model name in request.')
    spec = _spec(match)
    if match['metadata']:
      answer = self._metadata(spec)
    else:
      request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
      answer = _to_json(model_service.status(self._models, request))
    return web.Response(text=json.dumps(answer, indent=1), content_type='application/json')

  def _metadata(self, spec: model_pb2.ModelSpec) -> dict:
    field = prediction_service.SIGNATURE_DEF
    response = prediction_service.metadata(
      self._models,
      get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=[field]),
    )
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[field].Unpack(signatures)
    return {
      'model_spec': _to_json(response.model_spec),
      'metadata': {field: _to_json(signatures)},
    }


def _spec(match: re.Match) -> model_pb2.ModelSpec:
  spec = model_pb2.ModelSpec(name=match['name'])
  if match['version']:
    version = int(match['version'])
    if version > _MAX_VERSION:
      raise errors.invalid_argument(f'Failed to convert version: {version} to numeric.')
    spec.version.value = version
  elif match['label']:
    spec.version_label = match['label']
  return spec


def _unknown_signature(name: str) -> errors.ServingError:
  """The error of TF Serving's REST front, which has its own text and code."""
  return errors.invalid_argument(f'Serving signature name: "{name}" not found in signature def')


def _error(status: int, text: str) -> web.Response:
  return web.json_response({'error': text}, status=status)


def _to_json(message) -> dict:
  return json_format.MessageToDict(
    message, including_default_value_fields=True, preserving_proto_field_name=True
  )


async def _call(function: Callable, *args: object, size: int):
  """Calls a function, in another thread if it has much to do."""
  if size > _LARGE_BODY_BYTES:
    return await asyncio.to_thread(function, *args)
  return function(*args)
