"""The connection to a server: opens the channel, makes the calls, tells what went wrong.

The one rule of retries: within its deadline a call is made again where the server, or the way to
it, said UNAVAILABLE or RESOURCE_EXHAUSTED, after 20 ms, 40 ms and so on up to 1 s, if that still
fits. All calls are pure functions of the request, so that repeating one is harmless.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Mapping

import grpc
import numpy as np

from serving.client import credentials, errors, pearl_pb2, wire
from serving.client import options as options_lib

_PREDICTION = '/tensorflow.serving.PredictionService/'
_METHODS = {
  'Predict': (_PREDICTION, pearl_pb2.PredictResponse),
  'GetModelMetadata': (_PREDICTION, pearl_pb2.GetModelMetadataResponse),
  'GetModelStatus': ('/tensorflow.serving.ModelService/', pearl_pb2.GetModelStatusResponse),
}
_AVAILABLE = 30
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_NOT_THERE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
# Longer than gRPC's watch of a connection takes to end, and than most calls.
_CLOSE_SECONDS, _RETIRE_SECONDS = 1.0, 60.0
_FIRST_WAIT_SECONDS = 0.02
_LONGEST_WAIT_SECONDS = 1.0
_ARGUMENTS = {
  'grpc.enable_retries': 0,
  # A link that died without a word is noticed after 14 s at the latest, with or without calls.
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 4_000,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.http2.max_pings_without_data': 0,
  # Waits between attempts to connect: 100 ms, growing to 800, give or take a fifth; gRPC's own
  # grow to two minutes. The third is how long one attempt may take.
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 800,
  'grpc.min_reconnect_backoff_ms': 2_000,
  'grpc.dns_min_time_between_resolutions_ms': 1_000,
  'grpc.use_local_subchannel_pool': 1,
}
_log = logging.getLogger(__name__)


class Budget:
  """The time that an operation has left.

  Attributes:
    seconds: what it had at first.
    setting: the name of the setting it comes from, for messages.
  """

  def __init__(self, seconds: float, setting: str):
    self.seconds = seconds
    self.setting = setting
    self._end = time.monotonic() + seconds

  def left(self) -> float:
    """Returns the seconds left, a moment if there are none: then the next call says so."""
    return max(self._end - time.monotonic(), 1e-4)


def budget(
  deadlines: options_lib.Deadlines, operation: str, timeout: float | None = None
) -> Budget:
  """Starts the time of an operation, a field of `Deadlines`; a timeout replaces it for once."""
  if timeout is not None:
    return Budget(options_lib.check_seconds('timeout', timeout), 'timeout')
  return Budget(getattr(deadlines, operation), f'Deadlines.{operation}')


class Connection:
  """A channel to one model of a server. Several sessions may share it, in several threads too.

  Attributes:
    address: of the server.
    options: as given.
    deadlines: of the options.
  """

  def __init__(self, address: str, options: options_lib.Options | None = None):
    """Opens a channel; nothing is sent yet.

    Args:
      address: 'host:port' or 'unix:path'.
      options: defaults to plaintext, no token, the model 'pearl'.

    Raises:
      ValueError: if the address is empty, or a token would travel in plaintext.
      CredentialsError: if a file cannot be read.
    """
    self.address = address
    self.options = options or options_lib.Options()
    self.deadlines = self.options.deadlines
    self._credentials = credentials.Credentials(address, self.options)
    self._lock = threading.Lock()
    self._sizes: dict[int, wire.Sizes] = {}
    self._has_answered = self._is_closed = False
    self._channel: grpc.Channel | None = None
    self._open()

  def __enter__(self) -> Connection:
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()

  def close(self) -> None:
    """Closes the channel; calls under way are cancelled a second later."""
    with self._lock:
      if not self._is_closed:
        self._is_closed = True
        self._discard(_CLOSE_SECONDS)

  def is_ready(self, timeout: float = 1.0) -> bool:
    """Tells whether a version of the model can be called; waits `timeout` seconds at most.

    Raises:
      CallError: if the server refuses to say, for example without a valid token.
    """
    request = pearl_pb2.GetModelStatusRequest(
      model_spec=wire.model_spec(self.options.model_name, None)
    )
    limit = budget(self.deadlines, 'connect', timeout)
    try:
      response = self._call('GetModelStatus', request, 'GetModelStatus', limit, tries_again=False)
    except errors.CallError as error:
      if error.code in (*_NOT_THERE, grpc.StatusCode.NOT_FOUND):
        return False
      raise
    return any(version.state == _AVAILABLE for version in response.model_version_status)

  def describe(
    self,
    limit: Budget | None = None,
    version: int | None = None,
    *,
    tries_again: bool = True,
  ) -> tuple[int, wire.Sizes]:
    """Returns number and sizes of a version, by default of the one in force.

    Args:
      limit: time for the call; by default that for beginning an episode.
      version: a version.
      tries_again: whether to keep to the rule of retries.

    Raises:
      CallError: if the server cannot be reached or refuses.
      ModelMismatchError: if the model is not PEARL's.
    """
    limit = limit or budget(self.deadlines, 'begin')
    request = pearl_pb2.GetModelMetadataRequest(
      model_spec=wire.model_spec(self.options.model_name, version, self.options.version_label),
      metadata_field=[wire.SIGNATURES],
    )
    response = self._call(
      'GetModelMetadata', request, 'GetModelMetadata', limit, version, tries_again=tries_again
    )
    number = response.model_spec.version.value
    self._sizes[number] = wire.sizes_of(response)
    return number, self._sizes[number]

  def sizes(self, version: int, budget: Budget) -> wire.Sizes:
    """Returns the sizes of a version; asks the server only for one it was not told of yet."""
    return self._sizes.get(version) or self.describe(budget, version)[1]

  def predict(
    self,
    signature: str,
    inputs: Mapping[str, np.ndarray],
    budget: Budget,
    version: int | None = None,
  ) -> tuple[int, dict[str, np.ndarray]]:
    """Runs a signature.

    Args:
      signature: its name.
      inputs: arrays of the signature's types, batch first, `B` rows.
      budget: time for the call, retries included.
      version: the version that is to answer; None for the one in force.

    Returns:
      The version that answered and all outputs, `B` rows each.

    Raises:
      VersionGoneError: if that version is not served any more.
      CallError: if the server cannot be reached in time or refuses.
      ModelMismatchError: if the answer cannot be read.
    """
    spec = wire.model_spec(self.options.model_name, version, self.options.version_label, signature)
    request = wire.predict_request(spec, inputs)
    response = self._call('Predict', request, signature, budget, version)
    num_rows = len(next(iter(inputs.values())))
    return response.model_spec.version.value, wire.outputs_of(response, signature, num_rows)

  def wait(self, seconds: float = 0.0) -> None:
    """Returns once the server has described its model; see `connect`."""
    give_up = time.monotonic() + seconds
    while True:
      try:
        self.describe(budget(self.deadlines, 'connect'), tries_again=False)
        return
      except errors.CallError as error:
        if error.code not in _NOT_THERE or time.monotonic() >= give_up:
          raise
        _log.info('waiting for the server: %s', error)
      time.sleep(min(0.2, max(give_up - time.monotonic(), 0.0)))

  def _call(self, method, request, name, budget, version=None, *, tries_again=True):
    wait = _FIRST_WAIT_SECONDS
    while True:
      if self._is_closed:
        raise errors.ClientError(f'the connection to {self.address} is closed')
      metadata = self._credentials.metadata() if self._credentials.has_token else None
      call = self._current()[method]
      try:
        response = call(request, timeout=budget.left(), metadata=metadata)
      except grpc.RpcError as error:
        pause = wait * random.uniform(0.8, 1.0)
        if not tries_again or error.code() not in _RETRIED or pause >= budget.left():
          raise self._failure(error, name, budget, version) from error
      else:
        self._has_answered = True
        return response
      time.sleep(pause)
      wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

  def _failure(self, error, name, budget, version) -> errors.CallError:
    code, details = error.code(), error.details() or ''
    kind = errors.CallError
    if code is grpc.StatusCode.NOT_FOUND and version is not None:
      kind = errors.VersionGoneError
    return kind(code, details, f'{name} at {self.address}', self._advice(code, details, budget))

  def _advice(self, code: grpc.StatusCode, details: str, budget: Budget) -> str:
    """Returns what the caller can do, as far as it is known."""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
      if not self._has_answered:
        return (
          f'nothing at {self.address} has answered within {budget.seconds:g} s, the limit set by '
          f'{budget.setting}: is this the address of the server, and does it expect TLS?'
        )
      return (
        f'no answer within {budget.seconds:g} s, the limit set by {budget.setting}: raise it, or '
        'see whether server and network are overloaded'
      )
    if code is grpc.StatusCode.UNAVAILABLE:
      if 'refused' in details or 'No such file' in details:
        return (
          f'nobody listens at {self.address}: is the server started, and is this its address? '
          'connect(wait_seconds=...) waits for one'
        )
      if 'DNS resolution failed' in details:
        return f'no machine is known by the name in {self.address!r}'
      if 'andshake' in details or 'certificate' in details.lower():
        return "TLS failed: do Options.tls and the server's certificate go together?"
    if code is grpc.StatusCode.UNAUTHENTICATED:
      return 'Options.token or token_file must hold a token that the server accepts'
    if code is grpc.StatusCode.NOT_FOUND:
      return f'Options.model_name is {self.options.model_name!r}: is it served, and this version?'
    return ''

  def _current(self) -> dict[str, grpc.UnaryUnaryMultiCallable]:
    """Returns the methods, of a new channel where the files of certificates have changed."""
    if self._credentials.has_files and self._credentials.have_changed():
      with self._lock:
        if self._credentials.have_changed() and not self._is_closed:
          # Where they cannot be read just now, the channel that is open will do.
          with contextlib.suppress(errors.CredentialsError):
            self._open()
            _log.info('certificates have changed: connecting to %s anew', self.address)
    return self._methods

  def _open(self) -> None:
    """Opens a channel in the place of the present one, which serves its calls to their end."""
    arguments = dict(_ARGUMENTS)
    arguments['grpc.max_send_message_length'] = self.options.max_message_bytes
    arguments['grpc.max_receive_message_length'] = self.options.max_message_bytes
    # What `http_proxy` names could not deliver it.
    arguments['grpc.enable_http_proxy'] = int(not credentials.is_local(self.address))
    channel = self._credentials.open(arguments)
    # Watching the connection keeps it served between calls: else gRPC looks at it every five
    # seconds, and neither pings nor attempts to connect come to their end in time.
    channel.subscribe(self._changed)
    if self._channel is not None:
      self._discard(_RETIRE_SECONDS)
    self._channel = channel
    self._methods = {
      name: channel.unary_unary(
        service + name,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
      )
      for name, (service, response) in _METHODS.items()
    }

  def _discard(self, seconds: float) -> None:
    """Closes the present channel in a while: its calls may end, and its watch must."""
    self._channel.unsubscribe(self._changed)
    timer = threading.Timer(seconds, self._channel.close)
    timer.daemon = True
    timer.start()

  def _changed(self, state: grpc.ChannelConnectivity) -> None:
    _log.debug('the connection to %s is %s', self.address, state.name)


def connect(
  address: str, options: options_lib.Options | None = None, *, wait_seconds: float = 0.0
) -> Connection:
  """Opens a connection and asks for the model.

  Args:
    address: 'host:port' or 'unix:path'.
    options: defaults to plaintext, no token, the model 'pearl'.
    wait_seconds: how long to wait for a server that is not there yet; by default not at all.

  Returns:
    The connection, a context manager that closes it.

  Raises:
    CallError: if there is no such server or model; says so at once where it is known.
    ModelMismatchError: if the model is not PEARL's.
    CredentialsError: if a token, key or certificate cannot be read or sent.
    ValueError: if the address is empty, or a token would travel in plaintext.
  """
  connection = Connection(address, options)
  try:
    connection.wait(wait_seconds)
  except BaseException:
    connection.close()
    raise
  return connection
