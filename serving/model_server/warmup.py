"""Warm-up records: calls that an export brings along and that must succeed before it is served."""

import pathlib
from collections.abc import Iterator
from typing import Protocol

import grpc
import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf import message
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from serving import errors
from serving.model_server import signatures

FILE = pathlib.PurePath('assets.extra', 'tf_serving_warmup_requests')
MAX_RECORDS = 1000
# Allowed by TensorFlow Serving, but of services that this server does not have.
_SKIPPED = frozenset({'classify_log', 'regress_log', 'multi_inference_log'})


class Runnable(Protocol):
  """The part of a servable that is needed here."""

  def signature(self, name: str = '') -> signatures.Signature:
    """Returns a signature."""

  def run(self, signature_name, inputs, output_names) -> dict[str, np.ndarray]:
    """Runs it."""


def read(version_dir: pathlib.Path) -> Iterator[prediction_log_pb2.PredictLog]:
  """Yields the calls recorded for a version; none if there is no file.

  Raises:
    ServingError: INVALID_ARGUMENT for more than 1000 records or one that is none, UNIMPLEMENTED for
      another kind of record.
    tf.errors.DataLossError: If the file is broken.
  """
  path = version_dir / FILE
  if not path.is_file():
    return
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
      yield log.predict_log
    elif kind in _SKIPPED:
      logging.warning('%s: record %d is a %s, which is skipped', path, number, kind)
    else:
      raise errors.ServingError(
        grpc.StatusCode.UNIMPLEMENTED, f'Unsupported log_type for warmup: {kind} in {path}'
      )


def replay(servable: Runnable, version_dir: pathlib.Path) -> int:
  """Runs the records of a version.

  Returns:
    Number of calls made.

  Raises:
    ServingError: Whatever a call failed with, and as `read`.
    tf.errors.DataLossError: If the file is broken.
  """
  calls = 0
  for log in read(version_dir):
    calls += 1
    try:
      _predict(servable, log.request)
    except errors.ServingError as error:
      raise errors.ServingError(
        error.code, f'warm-up record {calls} of {version_dir / FILE}: {error.message}'
      ) from error
  return calls


def _predict(servable: Runnable, request: predict_pb2.PredictRequest) -> None:
  signature = servable.signature(request.model_spec.signature_name)
  inputs = {alias: tf.make_ndarray(value) for alias, value in request.inputs.items()}
  signature.check_inputs(inputs)
  servable.run(signature.name, inputs, signature.select_outputs(request.output_filter))
