"""The two text files with which a stock TensorFlow Serving serves an export.

  tensorflow_model_server --model_config_file=DIR/models.config \
    --enable_batching --batching_parameters_file=DIR/batching.config
"""

import pathlib

from pearl_tf.export import serving_module

MODELS_FILE = 'models.config'
BATCHING_FILE = 'batching.config'
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
# A client that pins a version for an episode finds it after the next one has appeared.
NUM_SERVED_VERSIONS = 2


def models_config(export_dir: pathlib.Path) -> str:
  """Returns a `ModelServerConfig` with every servable below `export_dir`."""
  models = [
    f"""  config {{
    name: "{name}"
    base_path: "{export_dir.resolve() / name}"
    model_platform: "tensorflow"
    model_version_policy {{ latest {{ num_versions: {NUM_SERVED_VERSIONS} }} }}
  }}
"""
    for name in serving_module.SERVABLES
  ]
  return f'model_config_list {{\n{"".join(models)}}}\n'


def batching_config() -> str:
  """Returns `BatchingParameters`: no waiting, and contexts of different lengths in one batch."""
  sizes = ''.join(f'allowed_batch_sizes: {size}\n' for size in BATCH_SIZES)
  return (
    f'max_batch_size {{ value: {BATCH_SIZES[-1]} }}\n'
    'batch_timeout_micros { value: 0 }\n'
    'max_enqueued_batches { value: 100 }\n'
    'pad_variable_length_inputs: true\n'
    f'{sizes}'
  )
