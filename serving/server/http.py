"""The HTTP port: TensorFlow Serving's REST calls for status, metadata and predict, and metrics.

Predict takes both forms, by row (`instances`, answered by `predictions`) and by column (`inputs`,
answered by `outputs`); NaN, Infinity and -Infinity are numbers. Statuses are TensorFlow Serving's,
texts are not.
"""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import numpy as np
from absl import logging
from aiohttp import web
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from serving.server import access, errors, metrics, models, predict, services, signature

_CODE = grpc.StatusCode
HTTP_STATUS = {
  _CODE.INVALID_ARGUMENT: 400,
  _CODE.FAILED_PRECONDITION: 400,
  _CODE.OUT_OF_RANGE: 400,
  _CODE.UNAUTHENTICATED: 401,
  _CODE.PERMISSION_DENIED: 403,
  _CODE.NOT_FOUND: 404,
  _CODE.RESOURCE_EXHAUSTED: 429,
  _CODE.UNIMPLEMENTED: 501,
  _CODE.UNAVAILABLE: 503,
  _CODE.DEADLINE_EXCEEDED: 504,
}
"""The HTTP status of each gRPC code; 500 for all others."""
TIMEOUT_SECONDS = 30.0
_PATH = re.compile(
  r'/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d{1,18}))?(?P<rest>/metadata|:predict)?'
)
# A larger body is parsed beside the event loop, which answers others meanwhile.
_LARGE_BODY_BYTES = 2**16


class Api:
  """The handlers; `application` puts them together.

  Args:
    served: the model.
    predictor: answers predict requests.
    max_body_bytes: the largest request.
    guard: who may call.
  """

  def __init__(
    self,
    served: models.Models,
    predictor: predict.Predictor,
    *,
    max_body_bytes: int,
    guard: access.Access,
  ):
    self._models = served
    self._predictor = predictor
    self._max_body_bytes = max_body_bytes
    self._access = guard

  def application(self) -> web.Application:
    """Returns the application for a server."""
    application = web.Application(client_max_size=self._max_body_bytes, middlewares=[self._guard])
    application.router.add_get(metrics.PATH, self._show_metrics)
    application.router.add_route('*', '/v1/{path:.*}', self._dispatch)
    return application

  @web.middleware
  async def _guard(
    self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
  ) -> web.StreamResponse:
    """Lets in who has a token, and turns errors into answers."""
    try:
      tokens = self._access.tokens
      if tokens and not tokens.accept(request.headers.get(access.AUTHORIZATION)):
        raise errors.ServingError(_CODE.UNAUTHENTICATED, access.UNAUTHENTICATED_TEXT)
      return await handler(request)
    except errors.ServingError as error:
      return _error(HTTP_STATUS.get(error.code, 500), error.message)
    except web.HTTPException as error:
      return _error(error.status, error.text)
    except Exception:  # The outermost handler: logged with its traceback, and no text leaks out.
      logging.exception('%s %s failed', request.method, request.path)
      return _error(500, 'internal error; the log of the server says more')

  async def _show_metrics(self, request: web.Request) -> web.Response:
    del request
    return web.Response(
      body=self._predictor.metrics.exposition(), headers={'Content-Type': metrics.CONTENT_TYPE}
    )

  async def _dispatch(self, request: web.Request) -> web.Response:
    match = _PATH.fullmatch(request.path)
    rest = (match['rest'] or '') if match else ''
    if match is None or request.method != ('POST' if rest == ':predict' else 'GET'):
      raise errors.invalid_argument(f'Malformed request: {request.method} {request.path}')
    spec = model_pb2.ModelSpec(name=match['name'])
    if match['version']:
      spec.version.value = int(match['version'])
    if rest == ':predict':
      deadline = time.monotonic() + TIMEOUT_SECONDS
      try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
          text = await self._predict(await request.read(), spec, deadline)
      except TimeoutError:
        raise errors.ServingError(
          _CODE.DEADLINE_EXCEEDED, f'no answer within {TIMEOUT_SECONDS} seconds'
        ) from None
      return web.Response(text=text, content_type='application/json')
    answer = self._metadata(spec) if rest else self._status(spec)
    return web.Response(text=json.dumps(answer, indent=1), content_type='application/json')

  async def _predict(self, body: bytes, spec: model_pb2.ModelSpec, deadline: float) -> str:
    document = await _call(parse, body, size=len(body))
    with self._predictor.call(spec, document.get('signature_name', '')) as call:
      inputs = await _call(to_arrays, document, call.signature, size=len(body))
      outputs = await self._predictor.run(call, inputs, deadline=deadline)
      size = sum(array.nbytes for array in outputs.values())
      return await _call(to_json, outputs, 'instances' in document, size=size)

  def _status(self, spec: model_pb2.ModelSpec) -> dict:
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
    return _to_dict(services.status(self._models, request))

  def _metadata(self, spec: model_pb2.ModelSpec) -> dict:
    field = services.SIGNATURE_DEF
    request = get_model_metadata_pb2.GetModelMetadataRequest(
      model_spec=spec, metadata_field=[field]
    )
    response = services.metadata(self._models, request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[field].Unpack(signatures)
    return {
      'model_spec': _to_dict(response.model_spec),
      'metadata': {field: _to_dict(signatures)},
    }


def parse(body: bytes) -> dict[str, Any]:
  """Reads the JSON object of a predict request.

  Raises:
    errors.ServingError: INVALID_ARGUMENT if it is none, or has not one of `inputs` and `instances`.
  """
  try:
    document = json.loads(body)
  except (ValueError, RecursionError) as error:  # Decoding errors are ValueErrors too.
    raise errors.invalid_argument(f'JSON Parse error: {error or "nested too deeply"}') from None
  if not isinstance(document, dict) or ('inputs' in document) == ('instances' in document):
    raise errors.invalid_argument("the body must be an object with either 'inputs' or 'instances'")
  if not isinstance(document.get('signature_name', ''), str):
    raise errors.invalid_argument("'signature_name' key must be a string value.")
  return document


def to_arrays(document: Mapping[str, Any], found: signature.Signature) -> dict[str, np.ndarray]:
  """Turns a request into arrays of the types that a signature wants.

  Raises:
    errors.ServingError: INVALID_ARGUMENT if values or names do not fit.
  """
  if 'inputs' in document:
    columns = document['inputs']
    if not isinstance(columns, dict):
      columns = dict.fromkeys(list(found.inputs)[:1], columns)
  else:
    columns = _columns(document['instances'], found)
  found.check_names(columns)
  return {name: _array(name, value, found.inputs[name].dtype) for name, value in columns.items()}


def to_json(outputs: Mapping[str, np.ndarray], by_row: bool) -> str:
  """Writes the answer; a single output goes without its name.

  Raises:
    errors.ServingError: INVALID_ARGUMENT if rows are wanted and the outputs differ in their number.
  """
  values = {name: array.tolist() for name, array in outputs.items()}
  if not by_row:
    answer = values if len(values) > 1 else next(iter(values.values()))
    return json.dumps({'outputs': answer})
  if len({array.shape[:1] for array in outputs.values()}) > 1 or () in {
    array.shape for array in outputs.values()
  }:
    raise errors.invalid_argument('outputs have inconsistent batch sizes; ask by column')
  rows = zip(*values.values(), strict=True)
  answer = [dict(zip(values, row, strict=True)) if len(values) > 1 else row[0] for row in rows]
  return json.dumps({'predictions': answer})


def _columns(rows: Any, found: signature.Signature) -> dict[str, list]:
  if not isinstance(rows, list) or not rows:
    raise errors.invalid_argument("'instances' must be a list with a row for each")
  if not isinstance(rows[0], dict):
    return dict.fromkeys(list(found.inputs)[:1], rows)
  for index, row in enumerate(rows):
    if not isinstance(row, dict) or row.keys() != rows[0].keys():
      raise errors.invalid_argument(f'instance {index} has other keys than the first')
  return {name: [row[name] for row in rows] for name in rows[0]}


def _array(name: str, value: Any, dtype: np.dtype) -> np.ndarray:
  try:
    array = np.asarray(value)
  except (ValueError, OverflowError) as error:  # Rows of different lengths, nested too deeply.
    raise errors.invalid_argument(f'{name}: {error}') from None
  if array.size == 0:
    return array.astype(dtype)
  same_kind = array.dtype.kind == dtype.kind or array.dtype.kind == 'i' and dtype.kind == 'f'
  if not same_kind or array.dtype.kind not in 'fib':
    raise errors.invalid_argument(f'{name} must hold values of type {dtype.name}')
  with np.errstate(over='ignore'):
    converted = array.astype(dtype)
  overflows = np.isinf(converted) & np.isfinite(array) if dtype.kind == 'f' else converted != array
  if np.any(overflows):
    raise errors.invalid_argument(f'{name} holds a number out of the range of {dtype.name}')
  return converted


def _error(status: int, text: str | None) -> web.Response:
  return web.json_response({'error': text}, status=status)


def _to_dict(message) -> dict:
  return json_format.MessageToDict(
    message, including_default_value_fields=True, preserving_proto_field_name=True
  )


async def _call(function: Callable, *args: object, size: int):
  """Calls a function, in another thread if it has much to do."""
  if size > _LARGE_BODY_BYTES:
    return await asyncio.to_thread(function, *args)
  return function(*args)
