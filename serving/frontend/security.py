"""Who may talk to the server: TLS credentials, bearer tokens, and where plaintext is allowed.

Used for both ports. TF Serving knows TLS only; tokens and the rule that nothing leaves the machine
unprotected by accident are ours.
"""

import contextlib
import hmac
import ipaddress
import os
import pathlib
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Iterable

import grpc
from grpc import aio

from serving.frontend import options, text_config

AUTHORIZATION = 'authorization'
"""The metadata key, or header, that carries `Bearer <token>`."""
MIN_TOKEN_LENGTH = 16
UNAUTHENTICATED_TEXT = 'a valid bearer token is required'
# Probes cannot send metadata, and the answer tells nothing about models or data.
_OPEN_TO_ALL = '/grpc.health.v1.Health/'


class Tokens:
  """The accepted bearer tokens.

  Comparing takes the same time wherever a wrong token differs, and whichever token is right.
  """

  def __init__(self, tokens: Iterable[str]):
    self._tokens = tuple(token.encode() for token in tokens)
    if not self._tokens:
      raise ValueError('no token: one per line is expected')
    if min(map(len, self._tokens)) < MIN_TOKEN_LENGTH:
      raise ValueError(
        f'a token is shorter than {MIN_TOKEN_LENGTH} characters; `openssl rand -hex 32` makes one'
      )

  @classmethod
  def read(cls, path: str) -> 'Tokens':
    """Reads a file with one token per line; empty lines and those starting with # do not count.

    Raises:
      text_config.ConfigFileError: if the file cannot be read or holds no usable token.
    """
    try:
      lines = [line.strip() for line in pathlib.Path(path).read_text().splitlines()]
      return cls(line for line in lines if line and not line.startswith('#'))
    except (OSError, ValueError) as error:
      raise text_config.ConfigFileError(f'{path}: {error}') from None

  def accept(self, authorization: str | bytes | None) -> bool:
    """Tells whether the value of an `authorization` header holds one of the tokens."""
    if authorization is None:
      return False
    if isinstance(authorization, str):  # HTTP's bytes beyond ASCII come as lone surrogates.
      authorization = authorization.encode(errors='surrogateescape')
    scheme, _, token = authorization.partition(b' ')
    accepted = False
    for known in self._tokens:  # Every one: leaving early would tell which.
      accepted |= hmac.compare_digest(known, token)
    return accepted and scheme.lower() == b'bearer'


class Access:
  """What protects a server.

  Attributes:
    ssl: None for plaintext.
    tokens: None for nobody to need one.
  """

  def __init__(self, settings: options.ServerOptions):
    """Reads the files that options name, and checks what that exposes.

    Raises:
      ValueError: if a file is wrong, or as `check_exposure`.
    """
    self._paths = [path for path in (settings.ssl_config_file, settings.auth_token_file) if path]
    self._ssl_path, self._tokens_path = settings.ssl_config_file, settings.auth_token_file
    self._seen = self._state()
    self.ssl: text_config.SslConfig | None = None
    self.tokens: Tokens | None = None
    self._read()
    if settings.port or settings.rest_api_port or not settings.grpc_socket_path:
      check_exposure(
        settings.host,
        ssl_config=self.ssl,
        has_tokens=self.tokens is not None,
        allow_insecure=settings.allow_insecure_remote,
      )

  def renew(self) -> bool:
    """Reads the files again if they have changed; returns whether they had.

    Raises:
      ValueError: if one of them is wrong; what was in force stays so.
    """
    state = self._state()
    if state == self._seen:
      return False
    self._seen = state
    self._read()
    return True

  def _read(self) -> None:
    tls = text_config.read_ssl_config(self._ssl_path) if self._ssl_path else None
    if tls is not None:
      ssl_context(tls)  # Whether key and certificate belong together.
    tokens = Tokens.read(self._tokens_path) if self._tokens_path else None
    self.ssl, self.tokens = tls, tokens

  def _state(self) -> list[tuple[int, int, int] | None]:
    found = []
    for path in self._paths:
      try:
        status = os.stat(path)
        found.append((status.st_ino, status.st_size, status.st_mtime_ns))
      except OSError:
        found.append(None)
    return found


class TokenInterceptor(aio.ServerInterceptor):
  """Answers UNAUTHENTICATED to every call without a token, health checks excepted."""

  def __init__(self, access: Access):
    self._access = access

    async def refuse(request, context):
      del request
      await context.abort(grpc.StatusCode.UNAUTHENTICATED, UNAUTHENTICATED_TEXT)

    self._refusal = grpc.unary_unary_rpc_method_handler(refuse)

  async def intercept_service(
    self,
    continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
    handler_call_details: grpc.HandlerCallDetails,
  ) -> grpc.RpcMethodHandler:
    if not handler_call_details.method.startswith(_OPEN_TO_ALL):
      metadata = dict(handler_call_details.invocation_metadata)
      if not self._access.tokens.accept(metadata.get(AUTHORIZATION)):
        return self._refusal
    return await continuation(handler_call_details)


def grpc_credentials(access: Access) -> grpc.ServerCredentials:
  """Returns the credentials of the gRPC port, which follow what `Access.renew` has read."""
  handed_out: list[text_config.SslConfig] = []

  def configuration() -> grpc.ServerCertificateConfiguration | None:
    config = access.ssl
    if handed_out == [config]:
      return None  # As before.
    handed_out[:] = [config]
    return grpc.ssl_server_certificate_configuration(
      [(config.server_key.encode(), config.server_cert.encode())],
      root_certificates=config.custom_ca.encode() or None,
    )

  return grpc.dynamic_ssl_server_credentials(
    configuration(), configuration, require_client_authentication=access.ssl.client_verify
  )


def ssl_context(config: text_config.SslConfig) -> ssl.SSLContext:
  """Returns the same for the HTTP port.

  Raises:
    text_config.ConfigFileError: if key and certificate do not belong together.
  """
  context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  context.minimum_version = ssl.TLSVersion.TLSv1_2
  load_certificates(context, config)
  if config.client_verify:
    context.verify_mode = ssl.CERT_REQUIRED
  return context


def load_certificates(context: ssl.SSLContext, config: text_config.SslConfig) -> None:
  """Puts key, certificate and authorities into a context, for the connections to come.

  Raises:
    text_config.ConfigFileError: if key and certificate do not belong together.
  """
  with contextlib.ExitStack() as stack:  # The standard library reads keys from files only.
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    paths = []
    for name, text in (('key', config.server_key), ('cert', config.server_cert)):
      path = os.path.join(folder, name)
      with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), 'w') as file:
        file.write(text)
      paths.append(path)
    try:
      context.load_cert_chain(certfile=paths[1], keyfile=paths[0])
      if config.custom_ca:
        context.load_verify_locations(cadata=config.custom_ca)
    except (ssl.SSLError, ValueError) as error:
      raise text_config.ConfigFileError(f'key or certificate is not usable: {error}') from None


def is_loopback(host: str) -> bool:
  """Tells whether only this machine reaches an address; any name but localhost counts as no."""
  if host == 'localhost':
    return True
  try:
    return ipaddress.ip_address(host.strip('[]')).is_loopback
  except ValueError:
    return False


def check_exposure(
  host: str, *, ssl_config: text_config.SslConfig | None, has_tokens: bool, allow_insecure: bool
) -> None:
  """Refuses to listen beyond this machine without encryption and authentication.

  Raises:
    ValueError: if the host is not loopback, and TLS or both of token and client certificates are
      missing, and that is not explicitly allowed.
  """
  if allow_insecure or is_loopback(host):
    return
  if ssl_config is None:
    raise ValueError(
      f'listening on {host} without TLS is refused; give --ssl_config_file, or'
      ' --allow_insecure_remote if something in front protects the port'
    )
  if not (has_tokens or ssl_config.client_verify):
    raise ValueError(
      f'listening on {host} for anybody is refused; give --auth_token_file, or client_verify in'
      ' --ssl_config_file, or --allow_insecure_remote if something in front protects the port'
    )
