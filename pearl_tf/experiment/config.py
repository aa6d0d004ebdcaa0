"""Configuration: gin files in, one resolved text out.

This is the only module that parses gin. A run keeps its resolved text, so that every later process
(resume, evaluation, export) rebuilds the same experiment from the run folder alone.
"""

import contextlib
import functools
import importlib
import logging
import pathlib
import re
from collections.abc import Iterator, Sequence

import gin

_PACKAGE = pathlib.Path(__file__).parents[1]
_CONFIGURABLE = re.compile(r'^@gin\.', re.MULTILINE)


class ConfigError(ValueError):
  """The configuration cannot be used; the message says which part and what to do."""


@contextlib.contextmanager
def as_config_error() -> Iterator[None]:
  """Turns what gin and constructors raise on an unusable configuration into `ConfigError`.

  Raises:
    ConfigError: on an impossible number, a wrong type, an unknown or ambiguous name, or a required
      binding that is missing.
  """
  try:
    yield
  except (ValueError, TypeError, AttributeError, KeyError, RuntimeError, SyntaxError) as error:
    # gin has no type of its own for a missing required binding.
    if isinstance(error, RuntimeError) and not str(error).startswith('Required bindings'):
      raise
    # gin shows the configurable's address in memory, which tells a user nothing.
    text = re.sub(r' \(<[^\n]*>\)', '', str(error))
    if isinstance(error, SyntaxError) and error.text:
      text += f'\n    {error.text.strip()}'
    raise ConfigError(text) from error


def load(gin_files: Sequence[str], gin_bindings: Sequence[str] = ()) -> str:
  """Parses configuration files and bindings and returns the resolved text.

  Args:
    gin_files: paths of gin files, later ones override earlier ones.
    gin_bindings: single bindings, override the files.

  Returns:
    Every binding in force, one canonical text whatever files it came from.

  Raises:
    ConfigError: if a file is missing, the syntax is wrong, or a name is unknown (a typo).
  """
  _import_configurables()
  for gin_file in gin_files:
    if not pathlib.Path(gin_file).is_file():
      raise ConfigError(
        f'there is no gin file {gin_file!r}; those shipped are in trainers/configs, and --gin_file '
        'is relative to the working directory'
      )
    # An `include` names a file beside the one it stands in. Absolute, because gin takes a relative
    # folder for a package, too, and fails where it is one without code.
    gin.add_config_file_search_path(str(pathlib.Path(gin_file).resolve().parent))
  gin.clear_config()
  # gin looks for an included file in several places and logs an error for each but the last.
  logging.disable(logging.ERROR)
  try:
    # Not finalised, hence not locked: a user's family may be imported later and be configurable.
    with as_config_error():
      gin.parse_config_files_and_bindings(
        list(gin_files), list(gin_bindings), finalize_config=False
      )
  except (ConfigError, ImportError, OSError) as error:
    raise ConfigError(f'the gin configuration cannot be parsed: {error}') from error
  finally:
    logging.disable(logging.NOTSET)
  return gin.config_str(max_line_length=100)


def load_text(text: str) -> str:
  """Parses a resolved text, for example a run folder's `config.gin`, and returns it."""
  _import_configurables()
  gin.clear_config()
  with as_config_error():
    gin.parse_config(text)
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
