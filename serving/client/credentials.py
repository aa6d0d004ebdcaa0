"""What lets a client in: token and certificates, read again when their files change.

A file that is away or empty for a moment is being replaced: until it is whole, what it held before
stays in force. No message shows what is secret.
"""

from __future__ import annotations

import ipaddress
import os
import pathlib
from collections.abc import Mapping

import grpc

from serving.client import errors
from serving.client import options as options_lib


class Credentials:
  """The token and certificates of one client.

  Attributes:
    has_token: whether every call brings a token.
    has_files: whether there are certificates that may change.
  """

  def __init__(self, address: str, options: options_lib.Options):
    """Reads nothing yet.

    Args:
      address: of the server.
      options: of the client.

    Raises:
      ValueError: if the address is empty, or a token would travel in plaintext.
    """
    if not isinstance(address, str) or not address.strip():
      raise ValueError(f"the server's address must be 'host:port', got {address!r}")
    self.has_token = options.token is not None or options.token_file is not None
    is_open = options.tls is None and not options.send_token_in_plaintext
    if self.has_token and is_open and not is_local(address):
      raise ValueError(
        f'a token would travel to {address} in plaintext: set Options.tls, or '
        'send_token_in_plaintext if something else protects the way'
      )
    self._address = address
    self._options = options
    tls = options.tls
    files = () if tls is None else (tls.ca_file, tls.key_file, tls.cert_file)
    self._files = [file for file in files if file is not None]
    self.has_files = bool(self._files)
    self._stamps = list(map(_stamp, self._files))
    self._token: tuple[tuple | None, str] | None = None

  def open(self, arguments: Mapping[str, str | int]) -> grpc.Channel:
    """Opens a channel with the certificates in force.

    Raises:
      CredentialsError: if a file cannot be read.
    """
    tls, arguments = self._options.tls, dict(arguments)
    if tls is None:
      return grpc.insecure_channel(self._address, list(arguments.items()))
    if tls.server_name is not None:
      arguments['grpc.ssl_target_name_override'] = tls.server_name
    stamps = list(map(_stamp, self._files))
    parts = (_read(tls.ca_file), _read(tls.key_file), _read(tls.cert_file))
    self._stamps = stamps
    return grpc.secure_channel(
      self._address, grpc.ssl_channel_credentials(*parts), list(arguments.items())
    )

  def have_changed(self) -> bool:
    """Tells whether the files of certificates are others than when the channel was opened."""
    stamps = list(map(_stamp, self._files))
    return stamps != self._stamps and None not in stamps

  def metadata(self) -> tuple[tuple[str, str], ...]:
    """Returns what goes with every call: the token in force.

    Raises:
      CredentialsError: if there is none that can be sent.
    """
    path, token = self._options.token_file, self._options.token
    if path is not None:
      stamp = _stamp(path)
      if self._token is None or stamp != self._token[0]:
        try:
          self._token = (stamp, _checked(_read(path).decode('ascii', 'replace'), path))
        except errors.CredentialsError:
          if self._token is None:
            raise
      token = self._token[1]
    elif callable(token):
      token = _checked(token(), 'the result of Options.token')
    return (('authorization', f'Bearer {token.strip()}'),)


def is_local(address: str) -> bool:
  """Tells whether an address is one of this machine."""
  if address.startswith(('unix:', 'unix-abstract:')):
    return True
  host = address.rpartition(':')[0].strip('[]')
  try:
    return host == 'localhost' or ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


def _checked(token: object, name: str) -> str:
  try:
    return options_lib.clean_token(token, name)
  except ValueError as error:
    raise errors.CredentialsError(str(error)) from None


def _read(path: str | None) -> bytes | None:
  try:
    return None if path is None else pathlib.Path(path).read_bytes()
  except OSError as error:
    raise errors.CredentialsError(f'{path} cannot be read: {error}') from error


def _stamp(path: str) -> tuple[int, int, int] | None:
  """Returns what changes with a file's contents; None if it is not there."""
  try:
    status = os.stat(path)
  except OSError:
    return None
  return status.st_mtime_ns, status.st_size, status.st_ino
