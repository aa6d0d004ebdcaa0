"""The whole server: models, both ports and their life from start to drained.

`EmbeddedServer` lives in an event loop, `in_background` gives it a thread with one, and
`serving.frontend.process` a process of its own.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import ssl
import threading
from collections.abc import Iterator

from absl import logging
from aiohttp import web
from grpc import aio
from grpc_reflection.v1alpha import reflection

from serving import errors
from serving.frontend import (
  health,
  limits,
  model_service,
  monitoring,
  options,
  prediction_service,
  predictor,
  rest,
  security,
  text_config,
)
from serving.model_server import batcher, batching_config, manager, model_config

# Beside predict requests: health, status, metadata; a reserve, so that overload does not hide them.
_OTHER_RPCS = 64
_MIN_PING_MS = 5_000
_PING_MS = 10_000
_SECRETS_POLL_SECONDS = 1.0
_DRAIN_POLL_SECONDS = 0.02
_QUIET_POLLS = 10
_LAST_CALLS_SECONDS = 0.1


class EmbeddedServer:
  """A server in the running event loop.

  Args:
    settings: how to serve.

  Raises:
    ValueError: if the settings or the files they name make no sense, or would expose the server.
    errors.ServingError: if the model configuration is wrong.
  """

  def __init__(self, settings: options.ServerOptions):
    self.options = settings
    self._access = security.Access(settings)
    self._models_text = ''
    self.models = manager.ModelManager(
      self._read_models(),
      poll_seconds=settings.file_system_poll_wait_seconds,
      allow_version_labels_for_unavailable_models=(
        settings.allow_version_labels_for_unavailable_models
      ),
      num_load_retries=settings.max_num_load_retries,
      load_retry_seconds=settings.load_retry_interval_micros / 1e6,
      warm_up=settings.enable_model_warmup,
      on_load=self._load_ended,
    )
    self._in_flight = limits.InFlight(settings.grpc_max_threads)
    self.metrics = monitoring.Metrics(
      model_names=self.models.names, num_in_flight=lambda: self.num_in_flight
    )
    self._batcher = batcher.Batcher(_batching(settings), on_batch=self.metrics.batch_ran)
    self._predictor = predictor.Predictor(
      self.models,
      self._batcher,
      size_limits=limits.SizeLimits(
        rows=settings.max_request_rows,
        sequence_length=settings.max_sequence_length,
        steps=settings.max_request_steps,
        elements=settings.max_tensor_elements,
      ),
      in_flight=self._in_flight,
      metrics=self.metrics,
    )
    self._health = health.Health(self.models.is_ready)
    self._server: aio.Server | None = None
    self._rest: web.AppRunner | None = None
    self._follower: asyncio.Task | None = None
    self._reloads: set[asyncio.Task] = set()
    self._watcher: asyncio.Task | None = None
    self._ssl_context: ssl.SSLContext | None = None
    # What this server has put there, and no other.
    self._own_files: list[pathlib.Path] = []
    self.port: int | None = None
    self.rest_port: int | None = None

  @property
  def address(self) -> str:
    """Where gRPC is spoken: host:port, or unix:path if there is a socket only."""
    if self.port is None:
      return f'unix:{os.path.abspath(self.options.grpc_socket_path)}'
    return _join(self.options.host, self.port)

  @property
  def rest_address(self) -> str | None:
    """Where HTTP is spoken, as host:port; None if it is off."""
    return None if self.rest_port is None else _join(self.options.host, self.rest_port)

  @property
  def num_in_flight(self) -> int:
    """The number of predict requests being answered."""
    return self._in_flight.count

  @property
  def num_queued(self) -> int:
    """The number of those that wait for their batch."""
    return self._batcher.queued

  async def start(self) -> None:
    """Loads the models, then opens the ports: whoever can connect can be answered.

    Raises:
      errors.ServingError: if a model cannot be loaded.
      OSError: if an address cannot be had.
    """
    try:
      await self.models.start()
      await self._start_grpc()
      if self.options.rest_api_port:
        await self._start_rest()
    except BaseException:
      await self.stop(grace_seconds=0)
      raise
    if self.options.model_config_file_poll_wait_seconds and self.options.model_config_file:
      self._follower = asyncio.create_task(self._follow_model_config())
    logging.info('serving gRPC at %s, HTTP at %s', self.address, self.rest_address)
    if self.options.ready_file:
      _write_ready_file(self)
      self._own_files.append(pathlib.Path(self.options.ready_file))
    self._watcher = asyncio.create_task(self._watch_secrets())

  async def stop(self, *, grace_seconds: float | None = None) -> None:
    """Drains: health says NOT_SERVING, nothing new is accepted, what runs is finished.

    Args:
      grace_seconds: after which running requests are cut off; by default that of the options.
    """
    grace = self.options.grace_seconds if grace_seconds is None else grace_seconds
    tasks = [task for task in (self._follower, self._watcher, *self._reloads) if task is not None]
    for task in tasks:
      task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await self._health.drain()
    if self._server is not None:
      # gRPC would cancel what has been sent already and waits for this loop to accept it.
      await asyncio.sleep(min(_LAST_CALLS_SECONDS, grace))
      await self._stop_grpc(grace)
    if self._rest is not None:
      await self._rest.cleanup()
    await self._batcher.close()
    await self.models.stop()
    for path in self._own_files:
      path.unlink(missing_ok=True)
    self._own_files.clear()

  def _load_ended(
    self, name: str, version: int, seconds: float, error: errors.ServingError | None
  ) -> None:
    del version
    self.metrics.load_ended(name, seconds=seconds, succeeded=error is None)

  async def _start_grpc(self) -> None:
    settings = self.options
    interceptors = [security.TokenInterceptor(self._access)] if self._access.tokens else []
    self._server = aio.server(
      interceptors=interceptors,
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
        *options.channel_arguments(settings.grpc_channel_arguments),
      ],
      maximum_concurrent_rpcs=2 * settings.grpc_max_threads + _OTHER_RPCS,
    )
    self._add_services(self._server)
    if settings.grpc_socket_path:
      socket_path = pathlib.Path(os.path.abspath(settings.grpc_socket_path))
      _check_nobody_listens(socket_path)  # gRPC would take the other server's socket away.
      self._bind(f'unix:{socket_path}', secure=False)
      self._own_files.append(socket_path)
    if settings.port or not settings.grpc_socket_path:
      self.port = self._bind(
        _join(settings.host, settings.port), secure=self._access.ssl is not None
      )
    await self._server.start()
    await self._health.start()

  def _bind(self, address: str, *, secure: bool) -> int:
    try:
      if secure:
        return self._server.add_secure_port(address, security.grpc_credentials(self._access))
      return self._server.add_insecure_port(address)
    except RuntimeError as error:
      raise OSError(f'cannot listen at {address}: {error}') from None

  def _add_services(self, server: aio.Server) -> None:
    settings = self.options
    names = [prediction_service.SERVICE, model_service.SERVICE]
    root = pathlib.Path(settings.reload_root) if settings.enable_reload_config_rpc else None
    server.add_generic_rpc_handlers(
      (
        prediction_service.PredictionService(self._predictor, self.models).handler(),
        model_service.ModelService(self.models, reload_root=root).handler(),
      )
    )
    if settings.enable_grpc_healthcheck_service:
      self._health.add_to(server)
      names.append(health.SERVICE)
    if settings.enable_grpc_reflection:
      reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)

  async def _start_rest(self) -> None:
    settings = self.options
    api = rest.RestApi(
      self._predictor,
      self.models,
      self.metrics,
      settings=rest.RestSettings(
        timeout_seconds=settings.rest_api_timeout_in_ms / 1000,
        max_body_bytes=settings.max_message_bytes,
        max_elements=settings.max_tensor_elements,
        metrics_path=_metrics_path(settings),
      ),
      access=self._access,
    )
    self._rest = web.AppRunner(
      api.application(),
      access_log=None,
      handler_cancellation=True,
      shutdown_timeout=settings.grace_seconds,
    )
    await self._rest.setup()
    port = max(settings.rest_api_port, 0)
    tls = self._access.ssl
    context = self._ssl_context = security.ssl_context(tls) if tls else None
    await web.TCPSite(self._rest, settings.host, port, ssl_context=context).start()
    self.rest_port = self._rest.addresses[0][1]

  async def _stop_grpc(self, grace: float) -> None:
    """Waits for predict requests only: a client that watches our health stays for ever."""
    stopping = asyncio.create_task(self._server.stop(grace))
    deadline = asyncio.get_running_loop().time() + grace
    quiet_polls = 0
    while not stopping.done() and asyncio.get_running_loop().time() < deadline:
      await asyncio.wait([stopping], timeout=_DRAIN_POLL_SECONDS)
      # Not at the first zero: requests may have come and not begun, or ended and not been sent.
      quiet_polls = 0 if self._in_flight.count else quiet_polls + 1
      if quiet_polls >= _QUIET_POLLS:
        break
    await self._server.stop(0)
    await stopping

  def _read_models(self) -> tuple[model_config.ModelConfig, ...]:
    settings = self.options
    if not settings.model_config_file:
      return model_config.single(settings.model_name, os.path.abspath(settings.model_base_path))
    try:
      self._models_text = pathlib.Path(settings.model_config_file).read_text()
    except (OSError, UnicodeDecodeError) as error:
      raise text_config.ConfigFileError(f'--model_config_file: {error}') from None
    return model_config.from_text(
      self._models_text, pathlib.Path(settings.model_config_file).parent
    )

  async def _watch_secrets(self) -> None:
    """Takes over certificates and tokens whose files have changed."""
    while True:
      await asyncio.sleep(_SECRETS_POLL_SECONDS)
      try:
        renewed = self._access.renew()
      except ValueError as error:
        logging.error('what is in force stays in force: %s', error)
        continue
      if renewed and self._ssl_context is not None:
        security.load_certificates(self._ssl_context, self._access.ssl)

  async def _follow_model_config(self) -> None:
    """Reloads when the file has changed; one that is wrong is reported and leaves all as it is."""
    while True:
      await asyncio.sleep(self.options.model_config_file_poll_wait_seconds)
      before = self._models_text
      try:
        models = self._read_models()
      except (ValueError, errors.ServingError) as error:
        logging.error('%s is not followed: %s', self.options.model_config_file, error)
        continue
      if self._models_text != before:
        logging.info('%s has changed', self.options.model_config_file)
        # Not awaited: it may wait for a version that never comes, while the file is mended.
        task = asyncio.create_task(self._reload(models))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

  async def _reload(self, models: tuple[model_config.ModelConfig, ...]) -> None:
    try:
      await self.models.reload(models)
    except errors.ServingError as error:
      logging.error('%s is not followed: %s', self.options.model_config_file, error)


@dataclasses.dataclass(frozen=True)
class Background:
  """A server in a thread of its own.

  Attributes:
    server: the server; its methods belong to the loop.
    loop: the thread's event loop.
  """

  server: EmbeddedServer
  loop: asyncio.AbstractEventLoop

  @property
  def address(self) -> str:
    """As of `EmbeddedServer`."""
    return self.server.address

  @property
  def rest_address(self) -> str | None:
    """As of `EmbeddedServer`."""
    return self.server.rest_address


@contextlib.contextmanager
def in_background(settings: options.ServerOptions) -> Iterator[Background]:
  """Serves from another thread of this process while the block runs, then drains.

  Raises:
    Exception: what `EmbeddedServer` and its `start` raise.
  """
  loop = asyncio.new_event_loop()
  thread = threading.Thread(target=loop.run_forever, name='embedded-server', daemon=True)
  thread.start()

  def call(coroutine):
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

  async def make() -> EmbeddedServer:
    server = EmbeddedServer(settings)
    await server.start()
    return server

  try:
    server = call(make())
    try:
      yield Background(server, loop)
    finally:
      call(server.stop())
  finally:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def _check_nobody_listens(path: pathlib.Path) -> None:
  with socket.socket(socket.AF_UNIX) as probe:
    try:
      probe.connect(str(path))
    except OSError:
      return
  raise OSError(f'another server listens at unix:{path}; stop it or give another path')


def _write_ready_file(server: EmbeddedServer) -> None:
  path = pathlib.Path(server.options.ready_file)
  text = json.dumps(
    {'address': server.address, 'rest_address': server.rest_address, 'pid': os.getpid()}
  )
  temporary = path.with_name(f'.{path.name}.tmp')
  temporary.write_text(text)
  temporary.replace(path)


def _metrics_path(settings: options.ServerOptions) -> str | None:
  if not settings.monitoring_config_file:
    return text_config.PROMETHEUS_PATH
  return text_config.read_metrics_path(settings.monitoring_config_file)


def _batching(settings: options.ServerOptions) -> batching_config.BatchingConfig:
  if settings.batching_parameters_file:
    try:
      text = pathlib.Path(settings.batching_parameters_file).read_text()
    except (OSError, UnicodeDecodeError) as error:
      raise text_config.ConfigFileError(f'--batching_parameters_file: {error}') from None
    config = batching_config.from_text(text)
  else:
    config = batching_config.BatchingConfig(
      max_call_size=settings.max_request_rows, max_queued_calls=settings.max_queued_requests
    )
  return dataclasses.replace(config, enabled=settings.enable_batching)


def _join(host: str, port: int) -> str:
  try:
    socket.inet_pton(socket.AF_INET6, host)
  except OSError:
    return f'{host}:{port}'
  return f'[{host}]:{port}'
