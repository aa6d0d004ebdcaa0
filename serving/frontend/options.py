"""Everything that can be set about a server, as one immutable record.

The fields bear the names of the flags of `serving.server`, TF Serving's where it has one, so that
options can be turned into a command line and back. Defaults that differ from TF Serving's are
marked in the description of the flag.
"""

import dataclasses

REST_ANY_PORT = -1
"""For `rest_api_port`: any free port, because 0 switches REST off, as in TF Serving."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions:
  """How to serve; see `python -m serving.server --help` for each field.

  Raises:
    ValueError: if a value makes no sense; the message names the flag.
  """

  # What is served.
  model_name: str = 'default'
  model_base_path: str = ''
  model_config_file: str = ''
  model_config_file_poll_wait_seconds: float = 0.0
  file_system_poll_wait_seconds: float = 1.0
  allow_version_labels_for_unavailable_models: bool = False
  max_num_load_retries: int = 0
  load_retry_interval_micros: int = 60_000_000
  enable_model_warmup: bool = True
  # Where.
  host: str = '127.0.0.1'
  port: int = 8500
  grpc_socket_path: str = ''
  rest_api_port: int = 0
  rest_api_timeout_in_ms: int = 30_000
  monitoring_config_file: str = ''
  # To whom.
  ssl_config_file: str = ''
  auth_token_file: str = ''
  allow_insecure_remote: bool = False
  enable_reload_config_rpc: bool = False
  reload_root: str = ''
  enable_grpc_healthcheck_service: bool = True
  enable_grpc_reflection: bool = True
  # How.
  enable_batching: bool = True
  batching_parameters_file: str = ''
  # How much.
  grpc_max_threads: int = 64
  grpc_channel_arguments: str = ''
  max_message_bytes: int = 2**20
  max_request_rows: int = 256
  max_sequence_length: int = 4096
  max_request_steps: int = 65_536
  max_tensor_elements: int = 2**22
  max_queued_requests: int = 1024
  # Its life.
  grace_seconds: float = 10.0
  ready_file: str = ''

  def __post_init__(self):
    if not self.model_config_file and not self.model_base_path:
      raise ValueError('give --model_base_path or --model_config_file')
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
    if self.enable_reload_config_rpc and not self.reload_root:
      raise ValueError(
        '--enable_reload_config_rpc needs --reload_root, the folder that models may be loaded from'
      )
    if self.monitoring_config_file and not self.rest_api_port:
      raise ValueError('--monitoring_config_file needs --rest_api_port, where metrics are shown')
    for name in _POSITIVE:
      if getattr(self, name) <= 0:
        raise ValueError(f'--{name} must be positive, got {getattr(self, name)}')
    for name in _NOT_NEGATIVE:
      if getattr(self, name) < 0:
        raise ValueError(f'--{name} must not be negative, got {getattr(self, name)}')
    channel_arguments(self.grpc_channel_arguments)

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


def channel_arguments(text: str) -> list[tuple[str, int | str]]:
  """Reads `--grpc_channel_arguments`, like 'grpc.max_connection_age_ms=2000,grpc.so_reuseport=0'.

  Raises:
    ValueError: if a part is not of the form name=value.
  """
  arguments = []
  for part in filter(None, text.split(',')):
    name, separator, value = part.partition('=')
    if not (name and separator and value):
      raise ValueError(f'--grpc_channel_arguments must be name=value,..., got {part!r}')
    arguments.append((name, int(value) if value.lstrip('-').isdigit() else value))
  return arguments


_POSITIVE = (
  'file_system_poll_wait_seconds',
  'rest_api_timeout_in_ms',
  'grpc_max_threads',
  'max_message_bytes',
  'max_request_rows',
  'max_sequence_length',
  'max_request_steps',
  'max_tensor_elements',
  'max_queued_requests',
)
_NOT_NEGATIVE = (
  'model_config_file_poll_wait_seconds',
  'max_num_load_retries',
  'load_retry_interval_micros',
  'grace_seconds',
)
