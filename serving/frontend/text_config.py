"""TF Serving's small configuration files in protocol buffer text form: SSL and monitoring.

The messages are described here, because the `tensorflow-serving-api` wheel lacks them: names and
numbers of their fields are those of TF Serving's `config/*.proto`, so the same files are read.
"""

import dataclasses
import pathlib

from google.protobuf import (
  descriptor_pb2,
  descriptor_pool,
  message,
  message_factory,
  text_format,
)

PROMETHEUS_PATH = '/monitoring/prometheus/metrics'
"""Where TF Serving shows its metrics unless the file says otherwise."""

_PACKAGE = 'pearl.serving.config'  # Not tensorflow.serving: another wheel may define that.
_BOOL = descriptor_pb2.FieldDescriptorProto.TYPE_BOOL
_STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
# Message -> fields in the order of their numbers; a name in place of a type is a message above.
_MESSAGES = {
  'SSLConfig': {
    'server_key': _STRING,
    'server_cert': _STRING,
    'custom_ca': _STRING,
    'client_verify': _BOOL,
  },
  'PrometheusConfig': {'enable': _BOOL, 'path': _STRING},
  'MonitoringConfig': {'prometheus_config': 'PrometheusConfig'},
}


class ConfigFileError(ValueError):
  """A configuration file that cannot be read; the message names it."""


@dataclasses.dataclass(frozen=True)
class SslConfig:
  """How the server proves who it is, and whether its clients must.

  Attributes:
    server_key: private key, PEM.
    server_cert: certificate chain, PEM.
    custom_ca: certificates that clients' certificates must descend from, PEM; may be empty.
    client_verify: whether a client without a valid certificate is turned away (mutual TLS).
  """

  server_key: str
  server_cert: str
  custom_ca: str = ''
  client_verify: bool = False

  def __post_init__(self):
    for name in ('server_key', 'server_cert'):
      if '-----BEGIN' not in getattr(self, name):
        raise ValueError(f'{name} must hold the contents of a PEM file, not its path')
    if self.client_verify and not self.custom_ca:
      raise ValueError('client_verify needs custom_ca, the authority that signs the clients')


def read_ssl_config(path: str) -> SslConfig:
  """Reads the file of `--ssl_config_file`: an SSLConfig with the contents of PEM files.

  Raises:
    ConfigFileError: if the file cannot be read, or does not hold keys and certificates.
  """
  config = _read(path, 'SSLConfig')
  try:
    return SslConfig(config.server_key, config.server_cert, config.custom_ca, config.client_verify)
  except ValueError as error:
    raise ConfigFileError(f'{path}: {error}') from None


def read_metrics_path(path: str) -> str | None:
  """Reads the file of `--monitoring_config_file`; returns the metrics' path, None if disabled.

  Raises:
    ConfigFileError: if the file cannot be read.
  """
  config = _read(path, 'MonitoringConfig').prometheus_config
  if not config.enable:
    return None
  if config.path and not config.path.startswith('/'):
    raise ConfigFileError(f'{path}: the path of the metrics must start with /: {config.path!r}')
  return config.path or PROMETHEUS_PATH


def _read(path: str, name: str) -> message.Message:
  try:
    text = pathlib.Path(path).read_text()
    return text_format.Parse(text, _new_message(name))
  except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
    raise ConfigFileError(f"invalid protobuf file '{path}': {error}") from None


def _new_message(name: str) -> message.Message:
  pool = descriptor_pool.DescriptorPool()
  file = descriptor_pb2.FileDescriptorProto(
    name='pearl_serving_config.proto', package=_PACKAGE, syntax='proto3'
  )
  for message_name, fields in _MESSAGES.items():
    description = file.message_type.add(name=message_name)
    for number, (field, kind) in enumerate(fields.items(), start=1):
      added = description.field.add(
        name=field, number=number, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
      )
      if isinstance(kind, str):
        added.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
        added.type_name = f'.{_PACKAGE}.{kind}'
      else:
        added.type = kind
  pool.Add(file)
  return message_factory.GetMessageClass(pool.FindMessageTypeByName(f'{_PACKAGE}.{name}'))()
