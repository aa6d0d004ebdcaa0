"""The two text files with which a stock TensorFlow Serving serves an export.

Base paths are relative, so that an export may be copied anywhere: `serving.server` takes them from
the folder of the file, a stock server wants them made absolute (docs/serving.md).
"""

import pathlib
from collections.abc import Iterable

from pearl_tf.data import files

MODELS_FILE = 'models.config'
BATCHING_FILE = 'batching.config'
MAX_BATCH_SIZE = 64
# A client that pins a version for an episode finds it after the next one has appeared.
NUM_SERVED_VERSIONS = 2


def write(directory: pathlib.Path, names: Iterable[str]) -> None:
  """Writes both files: after a first version, so that a server started on them finds one.

  Args:
    directory: the export directory.
    names: of the servables in it.
  """
  files.write_text(directory / MODELS_FILE, models_config(names))
  files.write_text(directory / BATCHING_FILE, batching_config())


def models_config(names: Iterable[str]) -> str:
  """Returns a `ModelServerConfig` with some servables of an export."""
  models = [
    f"""  config {{
    name: "{name}"
    base_path: "{name}"
    model_platform: "tensorflow"
    model_version_policy {{ latest {{ num_versions: {NUM_SERVED_VERSIONS} }} }}
  }}
"""
    for name in names
  ]
  return f'model_config_list {{\n{"".join(models)}}}\n'


def batching_config() -> str:
  """Returns `BatchingParameters`: no waiting, and contexts of different lengths in one batch.

  No `allowed_batch_sizes`: with them one request of no rows ends a stock server (2.15).
  """
  return (
    f'max_batch_size {{ value: {MAX_BATCH_SIZE} }}\n'
    'batch_timeout_micros { value: 0 }\n'
    'max_enqueued_batches { value: 100 }\n'
    'pad_variable_length_inputs: true\n'
  )
