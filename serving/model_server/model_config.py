"""Which models a server serves: TensorFlow Serving's ModelServerConfig, checked.

`from_text` reads the file of `--model_config_file`, `from_proto` the request of a reload; both give
a tuple of `ModelConfig` that the manager can trust.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import grpc
from google.protobuf import text_format
from tensorflow_serving.config import file_system_storage_path_source_pb2 as source_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving import errors

PLATFORM = 'tensorflow'
_PolicyProto = source_pb2.FileSystemStoragePathSourceConfig.ServableVersionPolicy


@dataclasses.dataclass(frozen=True)
class Latest:
  """Serve the `num_versions` largest version numbers."""

  num_versions: int = 1


@dataclasses.dataclass(frozen=True)
class All:
  """Serve every version."""


@dataclasses.dataclass(frozen=True)
class Specific:
  """Serve exactly these versions."""

  versions: frozenset[int]


VersionPolicy = Latest | All | Specific


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """One model.

  Attributes:
    name: Name in `model_spec`.
    base_path: Absolute folder that holds a folder per version.
    policy: Which versions to serve.
    labels: Version by label.
  """

  name: str
  base_path: pathlib.Path
  policy: VersionPolicy = Latest()
  labels: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if not self.name:
      raise errors.invalid_argument('a model needs a name; set `name` in its ModelConfig')
    path = pathlib.Path(self.base_path)
    if not path.is_absolute():
      raise errors.invalid_argument(
        f'Expected model {self.name} to have an absolute path or URI; got base_path()={path}'
      )
    if '..' in path.parts:
      raise errors.invalid_argument(f'base_path of model {self.name} must not hold "..": {path}')
    object.__setattr__(self, 'base_path', path)


def single(name: str, base_path: str | pathlib.Path) -> tuple[ModelConfig, ...]:
  """Returns what `--model_name` and `--model_base_path` mean: the newest versions of one model.

  Two of them, so that a client that pins a version for an episode finds it after a hot reload.
  """
  return (ModelConfig(name, pathlib.Path(base_path), Latest(2)),)


def from_text(text: str, folder: pathlib.Path | None = None) -> tuple[ModelConfig, ...]:
  """Reads a ModelServerConfig in protobuf's text format.

  Args:
    text: The text.
    folder: What relative base paths are relative to; None to refuse them.

  Raises:
    ServingError: INVALID_ARGUMENT if it does not parse, and as `from_proto`.
  """
  try:
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
  except text_format.ParseError as error:
    raise errors.invalid_argument(f'Invalid protobuf file: ModelServerConfig: {error}') from error
  if folder is not None:
    for model in config.model_config_list.config:
      model.base_path = str(folder.resolve() / model.base_path)
  return from_proto(config)


def from_proto(config: model_server_config_pb2.ModelServerConfig) -> tuple[ModelConfig, ...]:
  """Checks a ModelServerConfig.

  Raises:
    ServingError: INVALID_ARGUMENT if it is empty or custom, names a model twice, has another
      platform than "tensorflow" or a base path that is relative or holds "..".
  """
  if config.WhichOneof('config') != 'model_config_list':
    raise errors.invalid_argument(
      'ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is '
      'currently supported'
    )
  models = tuple(_model(model) for model in config.model_config_list.config)
  check_unique(models)
  return models


def check_unique(models: Sequence[ModelConfig]) -> None:
  """Refuses an empty list and names listed twice.

  Raises:
    ServingError: INVALID_ARGUMENT.
  """
  if not models:
    raise errors.invalid_argument('the model config list is empty; name at least one model')
  names = set()
  for model in models:
    if model.name in names:
      raise errors.invalid_argument(
        f'Illegal to list model {model.name} multiple times in config list'
      )
    names.add(model.name)


def check_within(models: Sequence[ModelConfig], root: pathlib.Path) -> None:
  """Confines base paths to a folder, after following symbolic links.

  Raises:
    ServingError: PERMISSION_DENIED if one lies elsewhere.
  """
  root = root.resolve()
  for model in models:
    if not model.base_path.resolve().is_relative_to(root):
      raise errors.ServingError(
        grpc.StatusCode.PERMISSION_DENIED,
        f'base_path of model {model.name} must lie in {root}, got {model.base_path}',
      )


def _model(model: model_server_config_pb2.ModelConfig) -> ModelConfig:
  platform = model.model_platform
  if not platform and model.model_type == model_server_config_pb2.TENSORFLOW:
    platform = PLATFORM
  if platform != PLATFORM:
    raise errors.invalid_argument(
      f'Model {model.name!r} must have model_platform "{PLATFORM}", got {platform!r}; the platform '
      'of a served model cannot be changed either'
    )
  labels = dict(model.version_labels)
  return ModelConfig(
    model.name, pathlib.Path(model.base_path), _policy(model.model_version_policy), labels
  )


def _policy(policy: _PolicyProto) -> VersionPolicy:
  kind = policy.WhichOneof('policy_choice')
  if kind == 'all':
    return All()
  if kind == 'specific':
    if not policy.specific.versions:
      raise errors.invalid_argument('the policy `specific` needs at least one version')
    return Specific(frozenset(policy.specific.versions))
  # Zero counts as not set, as in TensorFlow Serving.
  return Latest(max(policy.latest.num_versions, 1))
