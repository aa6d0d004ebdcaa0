"""Versions that tell who they are: each adds its own number, and takes memory that shows.

Made once and copied, so that a test may publish dozens of them within seconds.
"""

import pathlib
import shutil
import struct

import tensorflow as tf

MODEL = 'numbered'
_FILE = 'saved_model.pb'
# Stands for the number in the original; its bytes occur nowhere else.
_PLACEHOLDER = 987654.0


class Publisher:
  """Publishes versions of one model, each complete or not at all.

  Args:
    base_path: the model's folder, watched by a server.
    num_megabytes: memory that each loaded version takes.
  """

  def __init__(self, base_path: pathlib.Path, *, num_megabytes: int = 0):
    self.base_path = base_path
    self._original = base_path / '.original'
    base_path.mkdir(exist_ok=True)
    self._save(num_megabytes)

  def stage(self, version: int) -> pathlib.Path:
    """Writes a version beside its place; a rename to its number publishes it."""
    staged = self.base_path / f'.tmp-{version}'
    shutil.copytree(self._original, staged)
    content = (staged / _FILE).read_bytes()
    numbered = content.replace(_bytes(_PLACEHOLDER), _bytes(version))
    if numbered == content:
      raise RuntimeError(f'{staged / _FILE} holds no number to replace')
    (staged / _FILE).write_bytes(numbered)
    return staged

  def publish(self, version: int) -> pathlib.Path:
    """Adds a version; returns its folder."""
    return self.stage(version).rename(self.base_path / str(version))

  def _save(self, num_megabytes: int) -> None:
    model = tf.Module()
    model.ballast = tf.Variable(tf.zeros([num_megabytes * 2**18 + 1]))

    @tf.function
    def add_number(values):
      return {'values': values + _PLACEHOLDER + model.ballast[0]}

    traced = add_number.get_concrete_function(tf.TensorSpec([None, 1], tf.float32, 'values'))
    tf.saved_model.save(model, str(self._original), signatures={'serving_default': traced})


def _bytes(number: float) -> bytes:
  """Returns a float32 as it lies in a graph."""
  return struct.pack('<f', number)
