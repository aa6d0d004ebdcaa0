"""An export in this process, in the place of a connection: the same sessions without a server."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from serving.client import channel, errors, manifest, wire
from serving.client import options as options_lib


class LocalModel:
  """One version of an export, run by TensorFlow here; a call takes as long as it takes.

  Attributes:
    manifest: what the export tells of itself.
    deadlines: the defaults; none of them is kept.
  """

  def __init__(self, path: pathlib.Path, version: int):
    """Loads it; use `load`."""
    import tensorflow as tf

    self.manifest = manifest.read_manifest(path)
    self.deadlines = options_lib.Deadlines()
    self._version = version
    self._model = tf.saved_model.load(str(path))
    self._functions = {name: self._model.signatures[name] for name in self._model.signatures}
    widths = {}
    for name, function in self._functions.items():
      specs = {**function.structured_outputs, **function.structured_input_signature[1]}
      widths[name] = {
        key: spec.shape[-1] if spec.shape.rank else None for key, spec in specs.items()
      }
    self._sizes = wire.sizes_from(widths, str(path))
    self._error = tf.errors.OpError

  def is_ready(self, timeout: float = 1.0) -> bool:
    """Returns True."""
    del timeout
    return True

  def close(self) -> None:
    """Does nothing; the model goes with its last session."""

  def __enter__(self) -> LocalModel:
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()

  def describe(
    self, limit: channel.Budget | None = None, version: int | None = None
  ) -> tuple[int, wire.Sizes]:
    """Returns number and sizes of the version."""
    del limit, version
    return self._version, self._sizes

  def sizes(self, version: int, budget: channel.Budget) -> wire.Sizes:
    """Returns the sizes of the version."""
    del version, budget
    return self._sizes

  def predict(
    self,
    signature: str,
    inputs: Mapping[str, np.ndarray],
    budget: channel.Budget,
    version: int | None = None,
  ) -> tuple[int, dict[str, np.ndarray]]:
    """Runs a signature; as of `channel.Connection`.

    Raises:
      CallError: if TensorFlow refuses, with its code.
    """
    import grpc
    import tensorflow as tf

    del budget, version
    tensors = {name: tf.constant(array) for name, array in inputs.items()}
    try:
      outputs = self._functions[signature](**tensors)
    except self._error as error:
      code = next(code for code in grpc.StatusCode if code.value[0] == error.error_code)
      raise errors.CallError(code, error.message, f'{signature} in process') from error
    arrays = {name: tensor.numpy() for name, tensor in outputs.items()}
    wire.check_status(arrays['status'], signature)
    return self._version, arrays


def load(path: str) -> LocalModel:
  """Loads an export into this process, which needs TensorFlow.

  Args:
    path: the folder of a version, like exports/pearl/3, or one of versions, of which the newest is
      taken, or what the exporter wrote, like exports.

  Raises:
    ValueError: if there is no export.
    ModelMismatchError: if it is not of a PEARL model.
  """
  folder = pathlib.Path(path)
  for root in (folder, folder / 'pearl'):
    versions = [child for child in root.glob('*/') if child.name.isdecimal()]
    if versions:
      folder = max(versions, key=lambda child: int(child.name))
      break
  if not (folder / 'saved_model.pb').is_file():
    raise ValueError(f'{path} has no saved_model.pb and no numbered version with one')
  return LocalModel(folder, int(folder.name) if folder.name.isdecimal() else 0)
