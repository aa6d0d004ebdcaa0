"""Who may talk to the server: TLS credentials, bearer tokens, and where plaintext is allowed.

Used for both ports. The files are read again when they change.
"""

import hmac
import ipaddress
import os
import pathlib
import ssl
from collections.abc import Awaitable, Callable, Iterable

import grpc
from grpc import aio

from serving.server import options

AUTHORIZATION = 'authorization'
"""The metadata key, or header, that carries `Bearer <token>`."""
UNAUTHENTICATED_TEXT = 'a valid bearer token is required'
_MIN_TOKEN_LENGTH = 16
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
    if min(map(len, self._tokens)) < _MIN_TOKEN_LENGTH:
      raise ValueError(
        f'a token is shorter than {_MIN_TOKEN_LENGTH} characters; `openssl rand -hex 32` makes one'
      )

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
    tls: key, certificates and, for mutual TLS, the clients' authority, PEM; None for plaintext.
    tokens: None for nobody to need one.
    ssl_context: the same as `tls` for the HTTP port.
  """

  def __init__(self, settings: options.ServerOptions):
    """Reads the files that options name, and checks what that exposes.

    Raises:
      ValueError: if a file is wrong, or the server would be reached from elsewhere without TLS, or
        without tokens or clients' certificates, and that is not explicitly allowed.
    """
    self._settings = settings
    self._seen = self._state()
    self.tls: tuple[bytes, ...] | None = None
    self.tokens: Tokens | None = None
    self.ssl_context: ssl.SSLContext | None = None
    self._read()
    self._check_exposure()

  @property
  def needs_client_certificate(self) -> bool:
    """Whether a client without a valid certificate is turned away."""
    return bool(self._settings.tls_client_ca)

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

  def grpc_credentials(self) -> grpc.ServerCredentials:
    """Returns the credentials of the gRPC port, which follow what `renew` has read."""
    handed_out = []

    def configuration() -> grpc.ServerCertificateConfiguration | None:
      if handed_out == [self.tls]:
        return None  # As before.
      handed_out[:] = [self.tls]
      key, certificate, *authority = self.tls
      return grpc.ssl_server_certificate_configuration(
        [(key, certificate)], root_certificates=authority[0] if authority else None
      )

    return grpc.dynamic_ssl_server_credentials(
      configuration(),
      configuration,
      require_client_authentication=self.needs_client_certificate,
    )

  def _read(self) -> None:
    settings = self._settings
    tls = tokens = context = None
    if settings.tls_cert:
      try:
        context = self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        tls = tuple(pathlib.Path(path).read_bytes() for path in self._tls_paths())
      except (OSError, ValueError) as error:  # SSLError is an OSError.
        raise ValueError(
          f'key or certificate is not usable: {error}; see --tls_key={settings.tls_key},'
          f' --tls_cert={settings.tls_cert}, --tls_client_ca={settings.tls_client_ca}'
        ) from None
    if settings.auth_token_file:
      try:
        lines = pathlib.Path(settings.auth_token_file).read_text().splitlines()
        stripped = (line.strip() for line in lines)
        tokens = Tokens(line for line in stripped if line and not line.startswith('#'))
      except (OSError, ValueError) as error:
        raise ValueError(f'--auth_token_file={settings.auth_token_file}: {error}') from None
    self.tls, self.tokens = tls, tokens
    # The one that a running server has takes over what a fresh one has found good.
    self.ssl_context = self._load(self.ssl_context) if self.ssl_context else context

  def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
    settings = self._settings
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    if settings.tls_client_ca:
      context.load_verify_locations(settings.tls_client_ca)
      context.verify_mode = ssl.CERT_REQUIRED
    return context

  def _tls_paths(self) -> list[str]:
    settings = self._settings
    return [path for path in (settings.tls_key, settings.tls_cert, settings.tls_client_ca) if path]

  def _state(self) -> list[tuple[int, int, int] | None]:
    found = []
    for path in filter(None, [*self._tls_paths(), self._settings.auth_token_file]):
      try:
        status = os.stat(path)
        found.append((status.st_ino, status.st_size, status.st_mtime_ns))
      except OSError:
        found.append(None)
    return found

  def _check_exposure(self) -> None:
    host = self._settings.host
    if self._settings.allow_insecure_remote or is_loopback(host):
      return
    unless = 'or --allow_insecure_remote if something in front protects the port'
    if self.tls is None:
      raise ValueError(
        f'listening on {host} without TLS is refused; give --tls_key and --tls_cert, {unless}'
      )
    if self.tokens is None and not self.needs_client_certificate:
      raise ValueError(
        f'listening on {host} for anybody is refused; give --auth_token_file or --tls_client_ca,'
        f' {unless}'
      )


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


def is_loopback(host: str) -> bool:
  """Tells whether only this machine reaches an address; any name but localhost counts as no."""
  if host == 'localhost':
    return True
  try:
    return ipaddress.ip_address(host.strip('[]')).is_loopback
  except ValueError:
    return False
