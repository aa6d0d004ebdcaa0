"""Calls to prove a model with: its own warm-up records, and calls that it must refuse.

The records cover every signature, as the exporter writes one for each; a record's response, where
it has one, is what the trained agent answered before it was exported.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import prediction_log_pb2

from serving.verification import c_api, graph_index, signature_rules

WARMUP_FILE = 'assets.extra/tf_serving_warmup_requests'
MANIFEST_FILE = 'assets.extra/pearl_manifest.json'
_UPDATE = 'update'


class Call(NamedTuple):
  """A call of a signature.

  Attributes:
    name: what the report calls it.
    signature_name: the signature.
    inputs: array by input name, batch first.
    answers: what the agent in the exporter answered, by output name; empty if it was not recorded.
  """

  name: str
  signature_name: str
  inputs: dict[str, np.ndarray]
  answers: dict[str, np.ndarray]


class GoldenError(Exception):
  """Warm-up records that a server would not take either."""


def recorded_calls(version_dir: str | pathlib.Path) -> list[Call]:
  """Reads the warm-up records.

  Raises:
    GoldenError: if there is no file of them, or one that a server would not replay.
  """
  path = pathlib.Path(version_dir) / WARMUP_FILE
  if not path.is_file():
    raise GoldenError(f'{path} is missing; a server could not warm the model up, nor we prove it')
  try:
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
  except (tf.errors.DataLossError, ValueError) as error:
    raise GoldenError(f'{path} is damaged: {error}') from error
  return [_recorded_call(number, log) for number, log in enumerate(logs)]


def _recorded_call(number: int, log: prediction_log_pb2.PredictionLog) -> Call:
  kind = log.WhichOneof('log_type')
  if kind != 'predict_log':
    raise GoldenError(f'warm-up record {number} is a {kind}; write predict_log records only')
  request, response = log.predict_log.request, log.predict_log.response
  signature_name = request.model_spec.signature_name or signature_rules.DEFAULT_SIGNATURE
  inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
  shapes = ', '.join(f'{name} {list(value.shape)}' for name, value in sorted(inputs.items()))
  answers = {name: tf.make_ndarray(value) for name, value in response.outputs.items()}
  return Call(f'{signature_name}({shapes})', signature_name, inputs, answers)


def default_calls(calls: Sequence[Call], index: graph_index.GraphIndex) -> list[Call]:
  """Returns calls of the default signature, made of those of the signature that it repeats.

  Exporters give one function two names, and record it under the plainer one.
  """
  default = index.signatures.get(signature_rules.DEFAULT_SIGNATURE)
  if default is None or any(
    call.signature_name == signature_rules.DEFAULT_SIGNATURE for call in calls
  ):
    return []
  return [
    call._replace(
      name=call.name.replace(call.signature_name, signature_rules.DEFAULT_SIGNATURE, 1),
      signature_name=signature_rules.DEFAULT_SIGNATURE,
    )
    for call in calls
    if _form(index.signatures[call.signature_name]) == _form(default)
  ]


def _form(signature: meta_graph_pb2.SignatureDef) -> dict[str, dict[str, tuple[int, str]]]:
  return {
    kind: {name: (info.dtype, str(info.tensor_shape)) for name, info in tensors.items()}
    for kind, tensors in (('inputs', signature.inputs), ('outputs', signature.outputs))
  }


def refused_signatures(version_dir: str | pathlib.Path) -> frozenset[str]:
  """Returns the signatures that answer INVALID_ARGUMENT by design: a recurrent model's `update`."""
  path = pathlib.Path(version_dir) / MANIFEST_FILE
  if path.is_file() and not json.loads(path.read_text()).get('supports_update', True):
    return frozenset({_UPDATE})
  return frozenset()


def smallest_call(key: str, signature: meta_graph_pb2.SignatureDef) -> Call:
  """Returns a call of zeros in which every free dimension is 1."""
  inputs = {
    name: np.zeros(
      [1 if dimension.size == -1 else dimension.size for dimension in info.tensor_shape.dim],
      tf.dtypes.as_dtype(info.dtype).as_numpy_dtype,
    )
    for name, info in signature.inputs.items()
  }
  return Call(f'{key}(zeros)', key, inputs, {})


def doubled(call: Call) -> Call:
  """Returns a call with every row twice: what a batching server may make of two clients."""
  inputs = {name: np.concatenate([value, value]) for name, value in call.inputs.items()}
  return call._replace(name=f'{call.name} twice in one batch', inputs=inputs)


def with_faulty_rows(call: Call) -> Call:
  """Returns a call followed by as many rows of NaN and -1, as of a broken client in its batch."""
  inputs = {
    name: np.concatenate([value, np.full_like(value, _fault_like(value))])
    for name, value in call.inputs.items()
  }
  return call._replace(name=f'{call.name} and faulty rows in one batch', inputs=inputs)


def _fault_like(value: np.ndarray) -> np.ndarray:
  return np.array(np.nan if np.issubdtype(value.dtype, np.inexact) else -1).astype(value.dtype)


def fault(call: Call, index: graph_index.GraphIndex) -> str | None:
  """Returns why a server would refuse a call before it runs, or None."""
  signature = index.signatures.get(call.signature_name)
  if signature is None:
    return f'there is no signature {call.signature_name!r}'
  if set(call.inputs) != set(signature.inputs):
    return f'it has inputs {sorted(call.inputs)}, the signature {sorted(signature.inputs)}'
  for name, value in call.inputs.items():
    wanted = signature.inputs[name].dtype
    if tf.dtypes.as_dtype(value.dtype).as_datatype_enum != wanted:
      return f'input {name!r} is {value.dtype}, not {types_pb2.DataType.Name(wanted)}'
    if not c_api.can_feed(value.dtype):
      return f'input {name!r}: values of {value.dtype} cannot be given to the C API here'
    if not value.ndim:
      return f'input {name!r} is a scalar'
  return None
