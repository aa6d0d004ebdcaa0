"""Opens gRPC channels from `options.Options`, for the blocking and the asyncio client alike."""

import ipaddress

import grpc
from grpc import aio

from serving.client import options as options_lib

_KEEPALIVE_MILLISECONDS = 60_000
# gRPC derives TCP_USER_TIMEOUT from it, so a peer that vanished is noticed within this time.
_KEEPALIVE_TIMEOUT_MILLISECONDS = 10_000


def open_blocking(address: str, options: options_lib.Options) -> grpc.Channel:
  """Returns a channel for blocking calls; nothing is sent yet.

  Args:
    address: 'host:port' or 'unix:path'.
    options: see there.

  Raises:
    ValueError: if the address is empty, or a token would travel in plaintext.
  """
  _check(address, options)
  arguments = _arguments(options)
  if options.tls is None:
    return grpc.insecure_channel(address, options=arguments)
  return grpc.secure_channel(address, _credentials(options.tls), options=arguments)


def open_asyncio(address: str, options: options_lib.Options) -> aio.Channel:
  """Returns the same for asyncio, bound to the running loop."""
  _check(address, options)
  arguments = _arguments(options)
  if options.tls is None:
    return aio.insecure_channel(address, options=arguments)
  return aio.secure_channel(address, _credentials(options.tls), options=arguments)


def metadata(options: options_lib.Options) -> tuple[tuple[str, str], ...] | None:
  """Returns what goes with every call: the token, asked for anew each time."""
  token = options.token() if callable(options.token) else options.token
  return None if token is None else (('authorization', f'Bearer {token}'),)


def _check(address: str, options: options_lib.Options) -> None:
  if not address:
    raise ValueError("the server's address must be 'host:port', got an empty text")
  sends_token = options.token is not None and not options.send_token_in_plaintext
  if sends_token and options.tls is None and not _is_local(address):
    raise ValueError(
      f'a token would travel to {address} in plaintext: set Options.tls, or '
      'send_token_in_plaintext if something else protects the way'
    )


def _is_local(address: str) -> bool:
  if address.startswith(('unix:', 'unix-abstract:')):
    return True
  host = address.rpartition(':')[0].strip('[]')
  if host == 'localhost':
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


def _credentials(tls: options_lib.Tls) -> grpc.ChannelCredentials:
  return grpc.ssl_channel_credentials(
    root_certificates=tls.root_certificates,
    private_key=tls.private_key,
    certificate_chain=tls.certificate_chain,
  )


def _arguments(options: options_lib.Options) -> list[tuple[str, str | int]]:
  arguments = [
    ('grpc.service_config', options.retries.service_config()),
    ('grpc.enable_retries', 1),
    ('grpc.max_send_message_length', options.max_message_bytes),
    ('grpc.max_receive_message_length', options.max_message_bytes),
    ('grpc.keepalive_time_ms', _KEEPALIVE_MILLISECONDS),
    ('grpc.keepalive_timeout_ms', _KEEPALIVE_TIMEOUT_MILLISECONDS),
  ]
  if options.tls is not None and options.tls.server_name is not None:
    arguments.append(('grpc.ssl_target_name_override', options.tls.server_name))
  return arguments
