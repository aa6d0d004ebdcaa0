"""Everything that can be set about a server, as one immutable record; each field is a flag.

Names are TensorFlow Serving's where it has the same thing.
"""

import dataclasses

REST_ANY_PORT = -1
"""For `rest_api_port`: any free port, because 0 switches REST off, as in TensorFlow Serving."""


def _flag(default, text: str):
  return dataclasses.field(default=default, metadata={'help': text})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions:
  """How to serve.

  Raises:
    ValueError: if a value makes no sense; the message names the flag.
  """

  model_name: str = _flag('pearl', 'Name of the model.')
  model_base_path: str = _flag('', 'Folder with a folder per version of the model.')
  keep_versions: int = _flag(
    2, 'How many of the newest versions are served; clients pin one for an episode.'
  )
  file_system_poll_wait_seconds: float = _flag(1.0, 'How often new versions are looked for.')
  host: str = _flag(
    '127.0.0.1', 'Address to listen on, for both ports. TensorFlow Serving listens on all.'
  )
  port: int = _flag(8500, 'gRPC port; 0 for any free one.')
  rest_api_port: int = _flag(0, 'HTTP port for REST and metrics; 0 for none, -1 for any.')
  ready_file: str = _flag('', 'Write the addresses there, as JSON, once the model is loaded.')
  tls_key: str = _flag('', 'Private key of the server, PEM; covers HTTP as well.')
  tls_cert: str = _flag('', 'Certificate chain of the server, PEM.')
  tls_client_ca: str = _flag('', "Authority that clients' certificates must descend from, PEM.")
  auth_token_file: str = _flag('', 'Bearer tokens, one per line; every call needs one of them.')
  allow_insecure_remote: bool = _flag(
    False, 'Listen beyond this machine without TLS or without authentication.'
  )
  grpc_max_threads: int = _flag(
    64, 'Predict requests being answered at once; more get RESOURCE_EXHAUSTED.'
  )
  max_message_bytes: int = _flag(2**20, 'Largest request of either port.')
  max_request_steps: int = _flag(65_536, 'Largest product of rows and sequence length.')
  grace_seconds: float = _flag(10.0, 'How long SIGTERM waits for running requests.')

  def __post_init__(self):
    if not self.model_base_path:
      raise ValueError('give --model_base_path, the folder with a folder per version')
    if not self.model_name:
      raise ValueError('--model_name must not be empty')
    if found := sorted(set(self.model_base_path) & set('*?[]\\')):
      raise ValueError(
        f'--model_base_path={self.model_base_path} has {" ".join(found)} in its name, which '
        'TensorFlow takes for a pattern; choose a name without'
      )
    if not 0 <= self.port < 2**16:
      raise ValueError(f'--port must be between 0 and 65535, got {self.port}')
    if not REST_ANY_PORT <= self.rest_api_port < 2**16:
      raise ValueError(
        f'--rest_api_port must be a port, 0 (off) or {REST_ANY_PORT} (any free one), got'
        f' {self.rest_api_port}'
      )
    if self.port and self.port == self.rest_api_port:
      raise ValueError('--rest_api_port cannot be same as --port; use a different port for REST')
    if bool(self.tls_key) != bool(self.tls_cert) or self.tls_client_ca and not self.tls_cert:
      raise ValueError('--tls_key and --tls_cert go together, and --tls_client_ca needs both')
    for name in _POSITIVE:
      if getattr(self, name) <= 0:
        raise ValueError(f'--{name} must be positive, got {getattr(self, name)}')
    if self.grace_seconds < 0:
      raise ValueError(f'--grace_seconds must not be negative, got {self.grace_seconds}')

  def to_flags(self) -> list[str]:
    """Returns the command line of `serving.server` that means the same."""
    command = []
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if value == field.default:
        continue
      if field.type is bool:
        command.append(f'--{field.name}' if value else f'--no{field.name}')
      else:
        command.append(f'--{field.name}={value}')
    return command


_POSITIVE = (
  'keep_versions',
  'file_system_poll_wait_seconds',
  'grpc_max_threads',
  'max_message_bytes',
  'max_request_steps',
)
