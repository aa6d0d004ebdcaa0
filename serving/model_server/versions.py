"""Which versions of a model there are, and which of them a policy wants."""

import os
import pathlib
import re

from absl import logging

from serving.model_server import model_config

_NUMBER = re.compile(r'[0-9]{1,19}')
_MAX_INT64 = 2**63 - 1


def scan(base_path: pathlib.Path) -> dict[int, pathlib.Path]:
  """Finds the version folders of a model.

  Names that are no number are ignored, so that a version can be written beside its place and then
  renamed. Of names for the same number, such as 7 and 007, the shortest wins.

  Args:
    base_path: Folder of the model.

  Returns:
    Path by version.

  Raises:
    OSError: If the folder cannot be read.
  """
  found = {}
  for name in sorted(os.listdir(base_path), key=len, reverse=True):
    if not _NUMBER.fullmatch(name) or int(name) > _MAX_INT64:
      continue
    if int(name) in found:
      logging.warning('%s: several folders of version %d; taking %s', base_path, int(name), name)
    found[int(name)] = base_path / name
  return found


def wanted(
  found: dict[int, pathlib.Path], policy: model_config.VersionPolicy
) -> dict[int, pathlib.Path]:
  """Returns those of the versions found that a policy wants, largest first."""
  newest_first = sorted(found, reverse=True)
  if isinstance(policy, model_config.Latest):
    chosen = newest_first[: policy.num_versions]
  elif isinstance(policy, model_config.Specific):
    chosen = [version for version in newest_first if version in policy.versions]
  else:
    chosen = newest_first
  return {version: found[version] for version in chosen}
