"""Configuration: gin files in, one resolved text out.

This is the only module that parses gin. A run keeps its resolved text, so that every later process
(resume, evaluation, export) rebuilds the same experiment from the run folder alone.
"""

import importlib
import pathlib
from collections.abc import Sequence

import gin

# Whatever gin files may name must have been imported when they are parsed.
_CONFIGURABLE_MODULES = (
  'pearl_tf.agents.backups',
  'pearl_tf.agents.entropy',
  'pearl_tf.agents.pearl_agent',
  'pearl_tf.collect.schedule',
  'pearl_tf.environments.registry',
  'pearl_tf.environments.legacy_masses',
  'pearl_tf.environments.point_robot',
  'pearl_tf.evaluation.meta_test',
  'pearl_tf.experiment.numerics',
  'pearl_tf.experiment.tasks',
  'pearl_tf.experiment.training',
  'pearl_tf.networks.actor',
  'pearl_tf.networks.critic',
  'pearl_tf.networks.encoder',
  'pearl_tf.replay.cache',
  'pearl_tf.replay.tables',
)


class ConfigError(ValueError):
  """The configuration cannot be used; the message says which part and what to do."""


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
  for module in _CONFIGURABLE_MODULES:
    importlib.import_module(module)
  for gin_file in gin_files:
    if not pathlib.Path(gin_file).is_file():
      raise ConfigError(
        f'there is no gin file {gin_file!r}; those shipped are in trainers/configs, and --gin_file '
        'is relative to the working directory'
      )
  gin.clear_config()
  try:
    # Not finalised, hence not locked: a user's family may be imported later and be configurable.
    gin.parse_config_files_and_bindings(
      list(gin_files), list(gin_bindings), finalize_config=False
    )
  except (ValueError, SyntaxError, AttributeError, ImportError, OSError, TypeError) as error:
    raise ConfigError(f'the gin configuration cannot be parsed: {error}') from error
  return gin.config_str(max_line_length=100)


def load_text(text: str) -> str:
  """Parses a resolved text, for example a run folder's `config.gin`, and returns it."""
  for module in _CONFIGURABLE_MODULES:
    importlib.import_module(module)
  gin.clear_config()
  gin.parse_config(text)
  return gin.config_str(max_line_length=100)
