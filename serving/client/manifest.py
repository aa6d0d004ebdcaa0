"""What an export tells of itself, in a file that may be copied to a robot alone."""

from __future__ import annotations

import json
import pathlib
from typing import NamedTuple

_FILE = pathlib.PurePath('assets.extra', 'pearl_manifest.json')


class Manifest(NamedTuple):
  """What a robot wants to know of a model.

  Attributes:
    env_name: name of the task family.
    observation_size: `O`.
    action_size: `A`.
    action_bounds: lowest and highest action of the environment, `[A]` each; None if unknown.
    action_names: name of each entry of an action; None if unknown.
    observation_names: name of each entry of an observation; None if unknown.
  """

  env_name: str
  observation_size: int
  action_size: int
  action_bounds: tuple[list[float], list[float]] | None
  action_names: list[str] | None
  observation_names: list[str] | None


def read_manifest(path: str | pathlib.Path) -> Manifest:
  """Reads a manifest.

  Args:
    path: pearl_manifest.json, or the folder of a version, which has it in assets.extra.

  Raises:
    ValueError: if it cannot be read or is none.
  """
  path = pathlib.Path(path)
  path = path / _FILE if path.is_dir() else path
  try:
    values = json.loads(path.read_text())
    bounds = values.get('env_action_bounds')
    return Manifest(
      env_name=values['env_name'],
      observation_size=values['observation_size'],
      action_size=values['action_size'],
      action_bounds=None if bounds is None else (bounds['low'], bounds['high']),
      action_names=values.get('env_action_names'),
      observation_names=values.get('env_observation_names'),
    )
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f'{path} is no manifest of an export: {error!r}') from error
