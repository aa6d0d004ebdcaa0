"""The two text files with which a stock TensorFlow Serving serves an export.

Base paths are relative, so that an export may be copied anywhere: `serving.server` takes them from
the folder of the file, a stock server wants them made absolute (docs/serving.md).
"""

from pearl_tf.export import serving_module

MODELS_FILE = 'models.config'
BATCHING_FILE = 'batching.config'
MAX_BATCH_SIZE = 64
# A client that pins a version for an episode finds it after the next one has appeared.
NUM_SERVED_VERSIONS = 2


def models_config() -> str:
  """Returns a `ModelServerConfig` with every servable of an export."""
  models = [
    f"""  config {{
    name: "{name}"
    base_path: "{name}"
    model_platform: "tensorflow"
    model_version_policy {{ latest {{ num_versions: {NUM_SERVED_VERSIONS} }} }}
  }}
"""
    for name in serving_module.SERVABLES
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
