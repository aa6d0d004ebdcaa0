"""Warm-up records: calls that an export brings along and that must succeed before it is served."""

import pathlib
from typing import Protocol

import grpc
import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf import message
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from serving import errors
from serving.model_server import signatures

MAX_RECORDS = 1000
# Allowed by TensorFlow Serving, but of services that this server does not have.
_SKIPPED = frozenset({'classify_log', 'regress_log', 'multi_inference_log'})


class Runnable(Protocol):
  """The part of a servable that is needed here."""

  def signature(self, name: str = '') -> signatures.Signature:
    """Returns a signature."""

  def run(self, signature_name, inputs, output_names) -> dict[str, np.ndarray]:
    """Runs it."""


def replay(servable: Runnable, path: pathlib.Path) -> int:
  """Runs the records of a file.

  Args:
    servable: What to warm up.
    path: TFRecord file of PredictionLog; nothing happens if it is missing.

  Returns:
    Number of calls made.

  Raises:
    ServingError: INVALID_ARGUMENT for more than 1000 records, UNIMPLEMENTED for another kind of
      record, or whatever a call failed with.
    tf.errors.DataLossError: If the file is broken.
  """
  if not path.is_file():
    return 0
  calls = 0
  records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
  for number, record in enumerate(records, start=1):
    if number > MAX_RECORDS:
      raise errors.invalid_argument(
        f'Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}'
      )
    try:
      log = prediction_log_pb2.PredictionLog.FromString(record)
    except message.DecodeError as error:
      raise errors.invalid_argument(
        f'Failed to parse warmup record {number} from {path}'
      ) from error
    kind = log.WhichOneof('log_type')
    if kind == 'predict_log':
      try:
        _predict(servable, log.predict_log.request)
      except errors.ServingError as error:
        raise errors.ServingError(
          error.code, f'warm-up record {number} of {path}: {error.message}'
        ) from error
      calls += 1
    elif kind in _SKIPPED:
      logging.warning('%s: record %d is a %s, which is skipped', path, number, kind)
    else:
      raise errors.ServingError(
        grpc.StatusCode.UNIMPLEMENTED, f'Unsupported log_type for warmup: {kind} in {path}'
      )
  return calls


def _predict(servable: Runnable, request: predict_pb2.PredictRequest) -> None:
  signature = servable.signature(request.model_spec.signature_name)
  inputs = {alias: tf.make_ndarray(value) for alias, value in request.inputs.items()}
  signature.check_inputs(inputs)
  servable.run(signature.name, inputs, signature.select_outputs(request.output_filter))
