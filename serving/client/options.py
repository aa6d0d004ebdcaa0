"""How a client talks to a server: deadlines, retries, TLS, token. Plain data, checked at once."""

import dataclasses
import json
import pathlib
from collections.abc import Callable

# How often a call may be tried anew, and when: the stock server sheds load with RESOURCE_EXHAUSTED.
MAX_RETRIES = 3
RETRYABLE = ('UNAVAILABLE', 'RESOURCE_EXHAUSTED')


@dataclasses.dataclass(frozen=True)
class Deadlines:
  """How long each kind of call may take, retries included, in seconds.

  Attributes:
    connect: until the server is reached and the model known; the only call that waits for a server.
    act: choosing actions and drawing latents.
    adapt: encoding and updating.
    describe: asking which version is the newest.
  """

  connect: float = 10.0
  act: float = 0.25
  adapt: float = 2.0
  describe: float = 2.0

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if not value > 0:
        raise ValueError(f'Deadlines.{field.name} must be positive seconds, got {value!r}')


@dataclasses.dataclass(frozen=True)
class Retries:
  """Exponential backoff with jitter; gRPC itself retries, so it holds for both kinds of client.

  All calls are pure functions of the request, so that repeating one is harmless.

  Attributes:
    number: retries after the first attempt, at most `MAX_RETRIES`; 0 for none.
    initial_seconds: wait before the first retry, give or take the jitter (a fifth).
    max_seconds: longest wait.
    multiplier: growth of the wait.
  """

  number: int = MAX_RETRIES
  initial_seconds: float = 0.02
  max_seconds: float = 1.0
  multiplier: float = 2.0

  def __post_init__(self):
    if not 0 <= self.number <= MAX_RETRIES:
      raise ValueError(f'Retries.number must be between 0 and {MAX_RETRIES}, got {self.number!r}')
    if not 0 < self.initial_seconds <= self.max_seconds or not self.multiplier >= 1:
      raise ValueError(
        'Retries needs 0 < initial_seconds <= max_seconds and a multiplier of at least 1, got '
        f'{self.initial_seconds!r}, {self.max_seconds!r} and {self.multiplier!r}'
      )

  def service_config(self) -> str:
    """Returns the gRPC service config, JSON."""
    method = {'name': [{}]}
    if self.number:
      method['retryPolicy'] = {
        'maxAttempts': self.number + 1,
        'initialBackoff': f'{self.initial_seconds:.3f}s',
        'maxBackoff': f'{self.max_seconds:.3f}s',
        'backoffMultiplier': self.multiplier,
        'retryableStatusCodes': list(RETRYABLE),
      }
    return json.dumps({'methodConfig': [method]})


@dataclasses.dataclass(frozen=True)
class Tls:
  """TLS, mutual where a key and certificate of the client are given; PEM contents, not paths.

  Attributes:
    root_certificates: authorities that the server's certificate is checked against; None for the
      system's.
    private_key: the client's key.
    certificate_chain: the client's certificate.
    server_name: the name to expect in the server's certificate, where it is not the address.
  """

  root_certificates: bytes | None = None
  private_key: bytes | None = dataclasses.field(default=None, repr=False)
  certificate_chain: bytes | None = None
  server_name: str | None = None

  def __post_init__(self):
    if (self.private_key is None) != (self.certificate_chain is None):
      raise ValueError(
        'Tls.private_key and Tls.certificate_chain go together: give both or neither'
      )

  @classmethod
  def from_files(
    cls,
    *,
    ca_file: str | None = None,
    key_file: str | None = None,
    cert_file: str | None = None,
    server_name: str | None = None,
  ) -> 'Tls':
    """Reads PEM files.

    Raises:
      OSError: if one cannot be read.
    """

    def read(path: str | None) -> bytes | None:
      return None if path is None else pathlib.Path(path).read_bytes()

    return cls(read(ca_file), read(key_file), read(cert_file), server_name)


@dataclasses.dataclass(frozen=True)
class Options:
  """Everything about the way to a server but its address.

  Attributes:
    model_name: name of the servable with encoder and policy.
    version_label: follow the version with this label instead of the newest one.
    tls: None for plaintext.
    token: bearer token, or a function that returns the one in force; None for none.
    send_token_in_plaintext: allow a token without TLS to a server that is not on this machine, for
      example behind a proxy that adds TLS.
    deadlines: see `Deadlines`.
    retries: see `Retries`.
    max_message_bytes: largest message sent or received; gRPC's own default is 4 MiB.
  """

  model_name: str = 'pearl'
  version_label: str | None = None
  tls: Tls | None = None
  token: str | Callable[[], str] | None = dataclasses.field(default=None, repr=False)
  send_token_in_plaintext: bool = False
  deadlines: Deadlines = Deadlines()
  retries: Retries = Retries()
  max_message_bytes: int = 16 * 2**20

  def __post_init__(self):
    if not self.model_name:
      raise ValueError('Options.model_name must not be empty')
    if self.max_message_bytes < 2**16:
      raise ValueError(
        f'Options.max_message_bytes must be at least {2**16}, got {self.max_message_bytes!r}'
      )
