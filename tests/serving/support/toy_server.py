"""A server of the toy model in a thread, for tests of one feature of the server."""

import atexit
import contextlib
import dataclasses
import functools
import json
import pathlib
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator

import grpc

from serving.server import options, server
from tests.serving.support import toy_model

MODEL = 'toy'
VERSION = 3


@dataclasses.dataclass(frozen=True)
class Reply:
  """An HTTP answer.

  Attributes:
    status: like 200.
    content_type: without parameters.
    text: the body.
  """

  status: int
  content_type: str
  text: str

  @property
  def json(self) -> object:
    """The body, parsed."""
    return json.loads(self.text)


@functools.cache
def base_path() -> pathlib.Path:
  """Returns the folder of the model's versions; made once per process, removed at its end."""
  folder = pathlib.Path(tempfile.mkdtemp())
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  toy_model.save(folder / str(VERSION))
  return folder


def settings(**changes: object) -> options.ServerOptions:
  """Returns options that serve the model at any free ports."""
  given = {
    'model_name': MODEL,
    'model_base_path': str(base_path()),
    'port': 0,
    'rest_api_port': options.REST_ANY_PORT,
    'grace_seconds': 5.0,
  }
  return options.ServerOptions(**given | changes)


@contextlib.contextmanager
def serving(**changes: object) -> Iterator[server.Server]:
  """Serves while the block runs."""
  with server.in_background(settings(**changes)) as running:
    yield running


def http(
  url: str, body: object = None, *, method: str | None = None, headers=None, context=None
) -> Reply:
  """Sends a request, JSON if there is a body; errors are replies like any other.

  Args:
    url: with scheme.
    body: bytes are sent as they are, anything else as JSON.
    method: GET, or POST with a body, by default.
    headers: to send.
    context: for TLS.
  """
  if body is not None and not isinstance(body, bytes):
    body = json.dumps(body).encode()
  request = urllib.request.Request(url, body, headers or {}, method=method)
  try:
    with urllib.request.urlopen(request, timeout=60, context=context) as response:
      return _reply(response)
  except urllib.error.HTTPError as error:
    with error:
      return _reply(error)


def failure(call, *args, **kwargs) -> grpc.RpcError:
  """Returns the error of a call that fails.

  Raises:
    AssertionError: if it succeeds.
  """
  try:
    call(*args, **kwargs)
  except grpc.RpcError as error:
    return error
  raise AssertionError('the call should have failed')


def _reply(response) -> Reply:
  return Reply(response.status, response.headers.get_content_type(), response.read().decode())
