"""Warm-up records: requests that a server replays before a version becomes available.

They also are a smoke test inside the server: a version whose record fails is not served. There is
one per signature and per size that the server's batching makes (`server_config`).
"""

import pathlib

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from pearl_tf.export import server_config, serving_module

FILE = pathlib.PurePath('assets.extra', 'tf_serving_warmup_requests')
CONTEXT_LENGTHS = (16, 64, 256)
# Batches of longer contexts are rare, and would make records large and loading slow.
_MAX_CONTEXT_ROWS = 512


def write(
  directory: pathlib.Path,
  servable: serving_module.Servable,
  *,
  latent_tag: int,
  supports_update: bool,
) -> None:
  """Writes the records of a servable into its version directory.

  Args:
    directory: the version directory.
    servable: what is saved there; all its signatures but the unsupported get records.
    latent_tag: of this export, so that the records run the same path as real calls.
    supports_update: whether `update` answers at all.
  """
  path = directory / FILE
  path.parent.mkdir(exist_ok=True)
  random = np.random.default_rng(0)
  with tf.io.TFRecordWriter(str(path)) as writer:
    for signature in servable.signatures:
      if signature == 'update' and not supports_update:
        continue
      specs = servable.inputs(signature)
      sizes = _sizes('context' in specs)
      if signature == serving_module.DEFAULT:
        sizes = sizes[:1]  # Another name for a signature that has them all.
      for batch_size, length in sizes:
        inputs = {
          name: _example(spec, batch_size, length, latent_tag, random)
          for name, spec in specs.items()
        }
        writer.write(_record(servable.name, signature, inputs).SerializeToString())


def _sizes(has_context: bool) -> list[tuple[int, int]]:
  lengths = CONTEXT_LENGTHS if has_context else (1,)
  return [
    (batch_size, length)
    for length in lengths
    for batch_size in (1, server_config.MAX_BATCH_SIZE)
    if batch_size * length <= _MAX_CONTEXT_ROWS
  ]


def _example(
  spec: tf.TensorSpec, batch_size: int, length: int, latent_tag: int, random: np.random.Generator
) -> np.ndarray:
  """Returns an input that every signature accepts with status 0."""
  if spec.name == 'latent_tag':
    return np.full([batch_size], latent_tag, np.int64)
  if spec.name in ('num_transitions', 'count'):
    return np.full([batch_size], length, np.int32)
  free = [batch_size, length]
  shape = [free[axis] if size is None else size for axis, size in enumerate(spec.shape)]
  if spec.dtype == tf.int32:
    return random.integers(2**31 - 1, size=shape, dtype=np.int32)
  return random.uniform(0.1, 1.0, shape).astype(np.float32)


def _record(
  model: str, signature: str, inputs: dict[str, np.ndarray]
) -> prediction_log_pb2.PredictionLog:
  request = predict_pb2.PredictRequest()
  request.model_spec.name = model
  request.model_spec.signature_name = signature
  for name, value in inputs.items():
    tensor = request.inputs[name]
    tensor.dtype = tf.as_dtype(value.dtype).as_datatype_enum
    for size in value.shape:
      tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = value.tobytes()
  return prediction_log_pb2.PredictionLog(
    predict_log=prediction_log_pb2.PredictLog(request=request)
  )
