"""How a client talks to a server: deadlines, TLS, token. What cannot work is refused here."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable
from typing import Any

MAX_SECONDS = 86_400.0
"""Longest deadline; gRPC takes one of some centuries for one that has passed."""
_MESSAGE_BYTES = (2**16, 2**31 - 1)


def check_seconds(name: str, value: Any) -> float:
  """Returns a number of seconds that a call can be given.

  Raises:
    ValueError: if it is no number in (0, 86400]; names it.
  """
  if not isinstance(value, numbers.Real) or isinstance(value, bool):
    raise ValueError(f'{name} must be a number of seconds, got {value!r}')
  if not 0 < value <= MAX_SECONDS:  # NaN, too.
    raise ValueError(f'{name} must be in (0, {MAX_SECONDS:.0f}] seconds, got {value!r}')
  return float(value)


@dataclasses.dataclass(frozen=True)
class Deadlines:
  """How long each operation may take, in seconds, however many calls and attempts it needs.

  Attributes:
    act: `step`, unless it is given a `timeout`.
    begin: beginning an episode: the newest version, the latent.
    adapt: taking transitions into the belief.
    connect: until a server that accepts the connection has described its model.
  """

  act: float = 0.25
  begin: float = 2.0
  adapt: float = 2.0
  connect: float = 10.0

  def __post_init__(self):
    for field in dataclasses.fields(self):
      check_seconds(f'Deadlines.{field.name}', getattr(self, field.name))


@dataclasses.dataclass(frozen=True)
class Tls:
  """TLS, mutual where a key and certificate of the client are given.

  All are paths of PEM files. They are read again, and the connection renewed, when they change.

  Attributes:
    ca_file: authorities that the server's certificate is checked against; None for the system's.
    key_file: the client's key.
    cert_file: the client's certificate.
    server_name: the name to expect in the server's certificate, where it is not the address.
  """

  ca_file: str | None = None
  key_file: str | None = None
  cert_file: str | None = None
  server_name: str | None = None

  def __post_init__(self):
    if (self.key_file is None) != (self.cert_file is None):
      raise ValueError('Tls.key_file and Tls.cert_file go together: give both or neither')


@dataclasses.dataclass(frozen=True)
class Options:
  """Everything about the way to a server but its address.

  Attributes:
    model_name: name of the servable with encoder and policy.
    version_label: follow the version with this label instead of the newest one.
    tls: None for plaintext.
    token: bearer token, or a function that returns the one in force; white space at its ends is
      dropped. None for none.
    token_file: a file with it instead, read again when it changes.
    send_token_in_plaintext: allow a token without TLS to a server that is not on this machine, for
      example behind a proxy that adds TLS.
    deadlines: see `Deadlines`.
    max_message_bytes: largest message sent or received, at least 65536.
  """

  model_name: str = 'pearl'
  version_label: str | None = None
  tls: Tls | None = None
  token: str | Callable[[], str] | None = dataclasses.field(default=None, repr=False)
  token_file: str | None = None
  send_token_in_plaintext: bool = False
  deadlines: Deadlines = Deadlines()
  max_message_bytes: int = 2**24

  def __post_init__(self):
    if not isinstance(self.model_name, str) or not self.model_name:
      raise ValueError(f'Options.model_name must be a text, not empty, got {self.model_name!r}')
    if self.token is not None and self.token_file is not None:
      raise ValueError('Options.token and Options.token_file exclude each other')
    if self.token is not None and not callable(self.token):
      clean_token(self.token, 'Options.token')
    low, high = _MESSAGE_BYTES
    if not isinstance(self.max_message_bytes, int) or not low <= self.max_message_bytes <= high:
      raise ValueError(
        f'Options.max_message_bytes must be an integer of {low} to {high}, got '
        f'{self.max_message_bytes!r}'
      )


def clean_token(token: Any, name: str) -> str:
  """Returns a token without white space at its ends.

  Raises:
    ValueError: if it cannot travel in a header; the message does not show it.
  """
  if not isinstance(token, str):
    raise ValueError(f'{name} must be a text, got one of type {type(token).__name__}')
  token = token.strip()
  if not token or not all('!' <= letter <= '~' for letter in token):
    raise ValueError(
      f'{name} must be one or more printable ASCII letters without white space between them; it '
      f'has {len(token)} letters, and is not shown here'
    )
  return token


def check_count(name: str, value: Any, *, least: int) -> int:
  """Returns a whole number.

  Raises:
    ValueError: if it is none, or below `least`; names it.
  """
  is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  if not is_whole or value < least:
    raise ValueError(f'{name} must be an integer of at least {least}, got {value!r}')
  return int(value)
