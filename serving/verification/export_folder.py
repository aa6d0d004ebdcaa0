"""Finds the versions to verify below a folder, and judges the configuration beside them."""

import pathlib

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from serving.verification import graph_index

CONFIG_FILE = 'models.config'


def version_dirs(folder: str | pathlib.Path, *, all_versions: bool = False) -> list[pathlib.Path]:
  """Returns the versions below an export, a model or a version folder.

  Args:
    folder: `EXPORT`, `EXPORT/pearl` or `EXPORT/pearl/3`.
    all_versions: not only the newest one of each model.

  Raises:
    ValueError: if there is none.
  """
  folder = pathlib.Path(folder)
  if (folder / graph_index.FILE_NAME).is_file():
    return [folder]
  if not folder.is_dir():
    raise ValueError(f'{folder} is no folder; name one that serving.export wrote')
  models = [folder] if _versions(folder) else _models(folder)
  found = []
  for model in models:
    versions = _versions(model)
    found += versions if all_versions else versions[-1:]
  if found:
    return found
  if _is_version(folder):
    return [folder]
  raise ValueError(
    f'{folder} holds no model; name an export folder, or <model>/ or <model>/<version>/ in it'
  )


def config_problems(folder: str | pathlib.Path) -> list[str]:
  """Returns what a server would not take in `models.config`; none if there is no such file."""
  path = pathlib.Path(folder) / CONFIG_FILE
  if not path.is_file():
    return []
  try:
    config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
  except text_format.ParseError as error:
    return [f'{path} is no ModelServerConfig: {error}']
  models = config.model_config_list.config
  found = [f'{path} lists no model'] if not models else []
  for model in models:
    if model.model_platform != 'tensorflow':
      found.append(f"{path}: model_platform of {model.name!r} must be 'tensorflow'")
  names = [model.name for model in models]
  if len(set(names)) < len(names):
    found.append(f'{path}: a name is listed twice in {names}')
  return found


def _models(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the folders that are meant to be served: those of `models.config` if there is one.

  An export may hold more, such as TF-Agents' own export of the policy, which no server can run.
  """
  path = folder / CONFIG_FILE
  if path.is_file() and not config_problems(folder):
    config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
    listed = [folder / model.base_path for model in config.model_config_list.config]
    return sorted(filter(pathlib.Path.is_dir, listed))
  return sorted(filter(pathlib.Path.is_dir, folder.iterdir()))


def _versions(model: pathlib.Path) -> list[pathlib.Path]:
  return sorted(filter(_is_version, model.iterdir()), key=lambda path: int(path.name))


def _is_version(path: pathlib.Path) -> bool:
  return path.is_dir() and path.name.isascii() and path.name.isdigit()
