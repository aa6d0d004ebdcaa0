"""The whole server: the model, both ports and their life from start to drained.

`Server` lives in an event loop, `in_background` gives it a thread with one, and
`serving.server.process` a process of its own.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import threading
from collections.abc import Iterator

from absl import logging
from aiohttp import web
from grpc import aio

from serving.server import access, http, models, options, predict, services

# Beside predict requests: health, status, metadata; a reserve, so that overload does not hide them.
_OTHER_RPCS = 64
_MIN_PING_MS = 5_000
_PING_MS = 10_000
_SECRETS_POLL_SECONDS = 1.0
_DRAIN_POLL_SECONDS = 0.02
_QUIET_POLLS = 10
_LAST_CALLS_SECONDS = 0.1


class Server:
  """A server in the running event loop.

  Args:
    settings: how to serve.

  Raises:
    ValueError: if the files that settings name make no sense, or would expose the server.

  Attributes:
    port: of gRPC, once started.
    rest_port: of HTTP; None if it is off.
  """

  def __init__(self, settings: options.ServerOptions):
    self.options = settings
    self._access = access.Access(settings)
    self.models = models.Models(
      settings.model_name,
      pathlib.Path(os.path.abspath(settings.model_base_path)),
      keep=settings.keep_versions,
      poll_seconds=settings.file_system_poll_wait_seconds,
      on_load=lambda succeeded: self.predictor.metrics.load_ended(succeeded),
    )
    self.predictor = predict.Predictor(
      self.models,
      max_in_flight=settings.grpc_max_threads,
      max_steps=settings.max_request_steps,
    )
    self._services = services.Services(self.models, self.predictor)
    self._grpc: aio.Server | None = None
    self._http: web.AppRunner | None = None
    self._watcher: asyncio.Task | None = None
    self._has_ready_file = False
    self.port: int | None = None
    self.rest_port: int | None = None

  @property
  def address(self) -> str:
    """Where gRPC is spoken, host:port."""
    return _join(self.options.host, self.port)

  @property
  def rest_address(self) -> str | None:
    """Where HTTP is spoken, host:port; None if it is off."""
    return None if self.rest_port is None else _join(self.options.host, self.rest_port)

  async def start(self) -> None:
    """Loads the model, then opens the ports: whoever can connect can be answered.

    Raises:
      errors.ServingError: if the model cannot be loaded.
      OSError: if an address cannot be had.
    """
    try:
      await self.models.start()
      await self._start_grpc()
      if self.options.rest_api_port:
        await self._start_http()
    except BaseException:
      await self.stop(grace_seconds=0)
      raise
    logging.info('serving gRPC at %s, HTTP at %s', self.address, self.rest_address)
    if self.options.ready_file:
      self._write_ready_file()
    self._watcher = asyncio.create_task(self._watch_secrets())

  async def stop(self, *, grace_seconds: float | None = None) -> None:
    """Drains: health says NOT_SERVING, nothing new is accepted, what runs is finished.

    Args:
      grace_seconds: after which running requests are cut off; by default that of the options.
    """
    grace = self.options.grace_seconds if grace_seconds is None else grace_seconds
    if self._watcher is not None:
      self._watcher.cancel()
      await asyncio.gather(self._watcher, return_exceptions=True)
    await self._services.drain()
    if self._grpc is not None:
      # gRPC would cancel what has been sent already and waits for this loop to accept it.
      await asyncio.sleep(min(_LAST_CALLS_SECONDS, grace))
      await self._stop_grpc(grace)
    if self._http is not None:
      await self._http.cleanup()
    await self.predictor.close()
    await self.models.stop()
    if self._has_ready_file:
      pathlib.Path(self.options.ready_file).unlink(missing_ok=True)

  async def _start_grpc(self) -> None:
    settings = self.options
    self._grpc = aio.server(
      interceptors=[access.TokenInterceptor(self._access)] if self._access.tokens else [],
      options=[
        ('grpc.max_receive_message_length', settings.max_message_bytes),
        ('grpc.max_send_message_length', -1),
        # Two servers on one port would share the calls by chance.
        ('grpc.so_reuseport', 0),
        # Clients may ask every few seconds whether the link is alive, with and without calls;
        # gRPC's default hangs up on who asks more than once in five minutes.
        ('grpc.keepalive_permit_without_calls', 1),
        ('grpc.http2.min_ping_interval_without_data_ms', _MIN_PING_MS),
        # And a client that is gone without a word frees what it holds.
        ('grpc.keepalive_time_ms', _PING_MS),
        ('grpc.keepalive_timeout_ms', _MIN_PING_MS),
      ],
      maximum_concurrent_rpcs=2 * settings.grpc_max_threads + _OTHER_RPCS,
    )
    self._services.add_to(self._grpc)
    address = _join(settings.host, settings.port)
    try:
      if self._access.tls:
        self.port = self._grpc.add_secure_port(address, self._access.grpc_credentials())
      else:
        self.port = self._grpc.add_insecure_port(address)
    except RuntimeError as error:
      raise OSError(f'cannot listen at {address}: {error}') from None
    await self._grpc.start()
    await self._services.start()

  async def _start_http(self) -> None:
    settings = self.options
    api = http.Api(
      self.models, self.predictor, max_body_bytes=settings.max_message_bytes, guard=self._access
    )
    self._http = web.AppRunner(
      api.application(),
      access_log=None,
      handler_cancellation=True,
      shutdown_timeout=settings.grace_seconds,
    )
    await self._http.setup()
    port = max(settings.rest_api_port, 0)
    site = web.TCPSite(self._http, settings.host, port, ssl_context=self._access.ssl_context)
    await site.start()
    self.rest_port = self._http.addresses[0][1]

  async def _stop_grpc(self, grace: float) -> None:
    """Waits for predict requests only: a client that watches our health stays for ever."""
    stopping = asyncio.create_task(self._grpc.stop(grace))
    deadline = asyncio.get_running_loop().time() + grace
    quiet_polls = 0
    while not stopping.done() and asyncio.get_running_loop().time() < deadline:
      await asyncio.wait([stopping], timeout=_DRAIN_POLL_SECONDS)
      # Not at the first zero: requests may have come and not begun, or ended and not been sent.
      quiet_polls = 0 if self.predictor.num_in_flight else quiet_polls + 1
      if quiet_polls >= _QUIET_POLLS:
        break
    await self._grpc.stop(0)
    await stopping

  async def _watch_secrets(self) -> None:
    """Takes over certificates and tokens whose files have changed."""
    while True:
      await asyncio.sleep(_SECRETS_POLL_SECONDS)
      try:
        if self._access.renew():
          logging.info('certificates and tokens are read anew')
      except ValueError as error:
        logging.error('what is in force stays in force: %s', error)

  def _write_ready_file(self) -> None:
    path = pathlib.Path(self.options.ready_file)
    addresses = {'address': self.address, 'rest_address': self.rest_address, 'pid': os.getpid()}
    temporary = path.with_name(f'.{path.name}.tmp')
    temporary.write_text(json.dumps(addresses))
    temporary.replace(path)
    self._has_ready_file = True


@contextlib.contextmanager
def in_background(settings: options.ServerOptions) -> Iterator[Server]:
  """Serves from another thread of this process while the block runs, then drains.

  Yields:
    The server; its methods belong to the other thread's event loop.

  Raises:
    Exception: what `Server` and its `start` raise.
  """
  loop = asyncio.new_event_loop()
  thread = threading.Thread(target=loop.run_forever, name='background-server', daemon=True)
  thread.start()

  def call(coroutine):
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

  async def make() -> Server:
    server = Server(settings)
    await server.start()
    return server

  try:
    server = call(make())
    try:
      yield server
    finally:
      call(server.stop())
  finally:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def _join(host: str, port: int) -> str:
  return f'[{host}]:{port}' if ':' in host else f'{host}:{port}'
