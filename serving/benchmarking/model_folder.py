"""The model that is served in a benchmark: a copy, so that new versions can be published to it."""

import pathlib
import shutil

from serving.benchmarking import workloads
from serving.verification import export_folder


class ModelFolder:
  """The base path of one model.

  Attributes:
    base_path: what the server watches.
    version_dir: the newest version.
  """

  def __init__(self, export_dir: str | pathlib.Path, base_path: pathlib.Path):
    """Copies the newest version of an export.

    Args:
      export_dir: as `serving.export` wrote it.
      base_path: an empty or missing folder.

    Raises:
      ValueError: if the export has no version of the model.
    """
    found = export_folder.version_dirs(pathlib.Path(export_dir, workloads.MODEL))[-1]
    self.base_path = base_path
    self.base_path.mkdir(parents=True, exist_ok=True)
    self.version_dir = self._publish(found, int(found.name))

  def publish_again(self) -> int:
    """Publishes the same files as the next version, by a rename; returns its number."""
    self.version_dir = self._publish(self.version_dir, int(self.version_dir.name) + 1)
    return int(self.version_dir.name)

  def _publish(self, source: pathlib.Path, version: int) -> pathlib.Path:
    staged = self.base_path / f'.tmp-{version}'
    shutil.copytree(source, staged)
    return staged.rename(self.base_path / str(version))
