"""Warm-up records: requests that a server replays before a version becomes available.

They also are a smoke test inside the server: a version whose record fails is not served. There is
one per signature, with what the agent itself answers where the exporter knows it, so that
`serving.verify_export` can hold the files against the agent.
"""

import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from pearl_tf.export import serving_module

FILE = pathlib.PurePath('assets.extra', 'tf_serving_warmup_requests')
Arrays = dict[str, np.ndarray]
# Of a record: rows and transitions.
_ROWS, _LENGTH = 2, 16


def write(
  directory: pathlib.Path,
  servable: serving_module.Servable,
  *,
  answer: Callable[[str, Arrays], Arrays],
  latent_tag: int = 0,
  supports_update: bool = True,
) -> None:
  """Writes the records of a servable into its version directory.

  Args:
    directory: the version directory.
    servable: what is saved there; all its signatures but the unsupported get records.
    answer: returns what the agent answers to a call of a signature, as far as it is known
      otherwise than by the servable.
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
      inputs = {
        name: _example(spec, latent_tag, random)
        for name, spec in servable.inputs(signature).items()
      }
      log = prediction_log_pb2.PredictLog(request=predict_pb2.PredictRequest())
      log.request.model_spec.name = servable.name
      log.request.model_spec.signature_name = signature
      _fill(log.request.inputs, inputs)
      _fill(log.response.outputs, answer(signature, inputs))
      writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


def _example(spec: tf.TensorSpec, latent_tag: int, random: np.random.Generator) -> np.ndarray:
  """Returns an input that every signature accepts with status 0."""
  if spec.name == 'latent_tag':
    return np.full([_ROWS], latent_tag, np.int64)
  if spec.name in ('num_transitions', 'count'):
    return np.full([_ROWS], _LENGTH, np.int32)
  free = [_ROWS, _LENGTH]
  shape = [free[axis] if size is None else size for axis, size in enumerate(spec.shape)]
  if spec.dtype == tf.int32:
    return random.integers(2**31 - 1, size=shape, dtype=np.int32)
  return random.uniform(0.1, 1.0, shape).astype(np.float32)


def _fill(target, arrays: Arrays) -> None:
  for name, value in arrays.items():
    tensor = target[name]
    tensor.dtype = tf.as_dtype(value.dtype).as_datatype_enum
    for size in value.shape:
      tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = value.tobytes()
