"""Configuration: gin files in, one resolved text out.

This is the only module that parses gin. A run keeps its resolved text, so that every later process
(resume, evaluation, export) rebuilds the same experiment from the run folder alone.
"""

import contextlib
import functools
import importlib
import importlib.util
import io
import logging
import os
import pathlib
import re
import sysconfig
import tokenize
import traceback
from collections.abc import Iterator, Sequence

import gin

_PACKAGE = pathlib.Path(__file__).parents[1]
_GIN = pathlib.Path(gin.__file__).parent
# Marks the files that are opened here, where gin itself would look for includes in one folder only.
_SCHEME = 'pearl_tf:'
_INCLUDE = re.compile(r"""^(include\s+['"])(.*?)(['"])""", re.MULTILINE)
_CONFIGURABLE = re.compile(r'^@gin\.', re.MULTILINE)
# What run folders and files of earlier versions say, and what it is called now.
_RENAMED = {
  'backup_class': 'target_class',
  'ValueBackup': 'ValueTarget',
  'TargetCriticBackup': 'CriticTarget',
  r'(?<!\.)Training\.((?:gradient_steps_per_|meta_batch_|context_|batch_|replay_|steps_per_)'
  r'\w*)': r'PearlTraining.\1',
}


class ConfigError(ValueError):
  """The configuration cannot be used; the message says which part and what to do."""


@contextlib.contextmanager
def as_config_error() -> Iterator[None]:
  """Turns what gin and this library raise on an unusable configuration into `ConfigError`.

  What a user's own code raises, or a library that it calls, keeps its type and its traceback.

  Raises:
    ConfigError: on an impossible number, an unknown or ambiguous name, or a wrong syntax.
  """
  try:
    yield
  except Exception as error:
    if not _is_of_the_configuration(error):
      raise
    # gin says which call it made, with the configurable's address in memory.
    text = re.sub(r"\n  In call to configurable '.*", '', str(error), flags=re.DOTALL)
    if isinstance(error, SyntaxError) and error.text:
      text += f'\n    {error.text.strip()}'
    raise ConfigError(text) from error


def _is_of_the_configuration(error: Exception) -> bool:
  """Tells whether gin or this library complained, and not somebody's own code or its libraries."""
  # Without this module's own frame and that of the `with` block.
  frames = traceback.extract_tb(error.__traceback__)[2:]
  if not frames or isinstance(error, ImportError | OSError) or _has_users_frame(frames):
    return False
  if isinstance(error, tokenize.TokenError):  # Of gin's parser: a bracket that is not closed.
    return True
  last = pathlib.Path(frames[-1].filename)
  is_meant = isinstance(error, ValueError | TypeError) and frames[-1].line.startswith('raise')
  return _GIN in last.parents or (_PACKAGE in last.parents and is_meant)


def _has_users_frame(frames: Sequence[traceback.FrameSummary]) -> bool:
  """Tells whether a file of neither this library, its dependencies nor Python is among them."""
  known = [_PACKAGE, *map(pathlib.Path, sysconfig.get_paths().values())]
  files = (pathlib.Path(frame.filename) for frame in frames if frame.filename[0] != '<')
  return any(not any(folder in file.parents for folder in known) for file in files)


def load(gin_files: Sequence[str | os.PathLike], gin_bindings: Sequence[str] = ()) -> str:
  """Parses configuration files and bindings and returns the resolved text.

  Args:
    gin_files: gin files, later ones override earlier ones: paths, or names of shipped files
      (`cheetah_vel.gin`), which are found from any folder. What a file includes is looked for
      beside that file first, then likewise.
    gin_bindings: single bindings, override the files.

  Returns:
    Every binding in force, one canonical text whatever files it came from.

  Raises:
    ConfigError: if a file is missing, the syntax is wrong, or a name is unknown (a typo).
  """
  _import_configurables()
  paths = [_find(os.fspath(gin_file), beside=None) for gin_file in gin_files]
  gin.clear_config()
  gin.config.register_file_reader(_open, _is_ours)
  logging.disable(logging.ERROR)  # gin logs an error for every reader that does not know a file.
  try:
    # Not finalised, hence not locked: a user's family may be imported later and be configurable.
    with as_config_error():
      gin.parse_config_files_and_bindings(
        [f'{_SCHEME}{path}' for path in paths],
        [_located(binding, pathlib.Path()) for binding in gin_bindings],
        finalize_config=False,
      )
  except ConfigError as error:
    text = str(error).replace(_SCHEME, '')
    raise ConfigError(f'the gin configuration cannot be parsed: {text}') from error
  except ModuleNotFoundError as error:
    if _has_users_frame(traceback.extract_tb(error.__traceback__)[1:]):
      raise  # A module that was found imports another one that was not.
    raise ConfigError(
      f'a gin file or binding imports what is not there: {error}\nIs its folder the working '
      'directory or on PYTHONPATH?'
    ) from error
  finally:
    logging.disable(logging.NOTSET)
  return gin.config_str(max_line_length=100)


def shipped(name: str) -> pathlib.Path | None:
  """Returns the gin file of that name in `trainers/configs`, None if there is none."""
  found = importlib.util.find_spec('trainers')
  folders = found.submodule_search_locations if found is not None else []
  paths = [pathlib.Path(folder, 'configs', name) for folder in folders]
  return next((path for path in paths if path.is_file()), None)


def _find(name: str, *, beside: pathlib.Path | None) -> pathlib.Path:
  """Returns the path of a gin file that a user or a file names."""
  path = pathlib.Path(name)
  candidates = [path] if beside is None else [beside / path, path]
  found = next((path.resolve() for path in candidates if path.is_file()), None) or shipped(name)
  if found is None:
    where = 'the working directory' if beside is None else f'{beside} or the working directory'
    raise ConfigError(
      f'there is no gin file {name!r} in {where}, and none of that name is shipped in '
      'trainers/configs'
    )
  return found


def renamed(text: str) -> str:
  """Returns a gin text with the names of today."""
  for old, new in _RENAMED.items():
    text = re.sub(rf'\b{old}\b', new, text)
  return text


def _located(text: str, folder: pathlib.Path) -> str:
  """Returns a gin text with the names of today, and what it includes replaced by what was found."""
  return _INCLUDE.sub(
    lambda match: f'{match[1]}{_SCHEME}{_find(match[2], beside=folder)}{match[3]}', renamed(text)
  )


class _GinFile(io.StringIO):
  """A gin file whose includes name what they were found to be; `name` is for gin's messages."""

  def __init__(self, path: pathlib.Path):
    super().__init__(_located(path.read_text(), path.parent))
    self.name = str(path)


def _is_ours(name: str) -> bool:
  return name.startswith(_SCHEME)


def _open(name: str) -> _GinFile:
  return _GinFile(pathlib.Path(name.removeprefix(_SCHEME)))


def load_text(text: str) -> str:
  """Parses a resolved text, for example a run folder's `config.gin`, and returns it."""
  _import_configurables()
  gin.clear_config()
  with as_config_error():
    gin.parse_config(renamed(text))
  return gin.config_str(max_line_length=100)


def bound_names() -> set[str]:
  """Returns what stands left of the equals signs of the configuration in force."""
  return set(re.findall(r'^([\w./]+) = ', gin.config_str(), re.MULTILINE))


@functools.cache
def _import_configurables() -> None:
  """Imports every module of the library that gin may configure: gin files may name all of them."""
  for path in sorted(_PACKAGE.rglob('*.py')):
    if _CONFIGURABLE.search(path.read_text()):
      importlib.import_module('.'.join(path.relative_to(_PACKAGE.parent).with_suffix('').parts))
