"""One version of a model in memory: judged, loaded, warmed up, run, lent, closed.

The execution is TensorFlow Serving's: a graph, a session, and a callable for each signature. It
needs neither tracing nor Python per op, and gives its memory back when closed.
"""

import ctypes
import gc
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self

import grpc
import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf import message
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

# `tf.compat.v1.saved_model.load` is this and a warning that it is deprecated.
from tensorflow.python.saved_model import loader_impl
from tensorflow_serving.apis import prediction_log_pb2

from serving import judge
from serving.server import errors, signature

RECORDS = pathlib.PurePath('assets.extra', 'tf_serving_warmup_requests')
"""Calls that an export brings along and that must succeed before it is served."""
_MAX_RECORDS = 1000
# Allowed by TensorFlow Serving, but of services that this server does not have.
_SKIPPED = frozenset({'classify_log', 'regress_log', 'multi_inference_log'})


class Servable:
  """A loaded version.

  It is lent out by `with servable:`, within the event loop only, and must not be closed before
  `num_leases` is zero.

  Attributes:
    name: of the model.
    version: number of its folder.
    protos: SignatureDef by key, as exported, the loader's own included.
    signatures: those that clients can call, by key.
    num_leases: how many blocks use it.
  """

  def __init__(self, name: str, version: int, path: pathlib.Path):
    """Loads the graph tagged `serve`, restores its variables and makes the callables; see `load`.

    A callable is made here and not at a first call, as that takes a tenth of a second.
    """
    self.name = name
    self.version = version
    self.num_leases = 0
    config = config_pb2.ConfigProto(
      allow_soft_placement=True,
      device_count={'GPU': 0},
      intra_op_parallelism_threads=1,
      # Ops run in the thread that calls: handing them to a pool costs more than most of them do.
      inter_op_parallelism_threads=-1,
    )
    graph = tf.Graph()
    self._session = tf.compat.v1.Session(graph=graph, config=config)
    try:
      with graph.as_default():
        loader = loader_impl.SavedModelLoader(str(path))
        meta_graph = loader.load(self._session, [tf.saved_model.SERVING])
      self.protos: dict[str, meta_graph_pb2.SignatureDef] = dict(meta_graph.signature_def)
      self.signatures = {
        key: signature.Signature(proto, key)
        for key, proto in self.protos.items()
        if key not in judge.HOUSEKEEPING_SIGNATURES
      }
      self._callables = {
        key: self._make_callable(found) for key, found in self.signatures.items() if found.outputs
      }
    except BaseException:
      self.close()
      raise

  @classmethod
  def load(cls, path: pathlib.Path, *, name: str, version: int) -> Self:
    """Loads a version and replays its warm-up records.

    Args:
      path: folder with `saved_model.pb`.
      name: of the model.
      version: its number.

    Raises:
      ServingError: if the files are incomplete, if the graph holds what stock TensorFlow Serving
        cannot run, or if a record fails.
    """
    servable = None
    try:
      _check(path)
      servable = cls(name, version, path)
      for number, log in enumerate(records(path), start=1):
        servable._replay(number, log)
    except Exception as error:
      if servable is not None:
        servable.close()
      raise errors.from_exception(error) from error
    return servable

  def find(self, key: str = '') -> signature.Signature:
    """Returns a signature; an empty name means `serving_default`.

    Raises:
      ServingError: FAILED_PRECONDITION if there is none of that name.
    """
    found = self.signatures.get(key or judge.DEFAULT_SIGNATURE)
    if found is None:
      raise errors.failed_precondition(
        f'Serving signature key "{key or judge.DEFAULT_SIGNATURE}" not found.'
      )
    return found

  def run(
    self, key: str, inputs: Mapping[str, np.ndarray], output_names: Sequence[str]
  ) -> dict[str, np.ndarray]:
    """Runs the graph in the calling thread; several threads may do so at once.

    Args:
      key: of a signature.
      inputs: arrays that passed `Signature.check_inputs`.
      output_names: aliases that `Signature.select_outputs` gave.

    Raises:
      ServingError: with the code of the op that failed.
    """
    found = self.signatures[key]
    try:
      values = self._callables[key](*[inputs[alias] for alias in found.inputs])
    except Exception as error:
      raise errors.from_exception(error) from error
    outputs = dict(zip(found.outputs, values, strict=True))
    if len(output_names) == len(outputs):
      return outputs
    return {alias: outputs[alias] for alias in output_names}

  def __enter__(self) -> Self:
    self.num_leases += 1
    return self

  def __exit__(self, *exc_info):
    self.num_leases -= 1

  def close(self) -> None:
    """Frees variables and graph."""
    self._session.close()
    self._session = None
    self._callables = {}

  def _make_callable(self, found: signature.Signature) -> Callable[..., list[np.ndarray]]:
    options = config_pb2.CallableOptions(
      feed=[field.name for field in found.inputs.values()],
      fetch=[field.name for field in found.outputs.values()],
    )
    # Keras' way as well. The public `make_callable` looks up the feeds in Python at each call and
    # takes three times as long.
    return self._session._make_callable_from_options(options)

  def _replay(self, number: int, log: prediction_log_pb2.PredictLog) -> None:
    request = log.request
    try:
      found = self.find(request.model_spec.signature_name)
      inputs = {alias: tf.make_ndarray(value) for alias, value in request.inputs.items()}
      found.check_inputs(inputs)
      self.run(found.name, inputs, found.select_outputs(request.output_filter))
    except errors.ServingError as error:
      raise errors.ServingError(error.code, f'warm-up record {number}: {error.message}') from error


def records(version_dir: pathlib.Path) -> Iterator[prediction_log_pb2.PredictLog]:
  """Yields the warm-up records of a version; none if there is no file.

  Raises:
    ServingError: INVALID_ARGUMENT for more than 1000 records or one that is none, UNIMPLEMENTED for
      another kind of record.
    tf.errors.DataLossError: if the file is broken.
  """
  path = version_dir / RECORDS
  if not path.is_file():
    return
  for number, record in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator(), start=1):
    if number > _MAX_RECORDS:
      raise errors.invalid_argument(
        f'Number of warmup records exceeds the maximum ({_MAX_RECORDS}) at {path}'
      )
    try:
      log = prediction_log_pb2.PredictionLog.FromString(record)
    except message.DecodeError as error:
      raise errors.invalid_argument(f'Failed to parse warmup record {number}: {path}') from error
    kind = log.WhichOneof('log_type')
    if kind == 'predict_log':
      yield log.predict_log
    elif kind in _SKIPPED:
      logging.warning('%s: record %d is a %s, which is skipped', path, number, kind)
    else:
      raise errors.ServingError(
        grpc.StatusCode.UNIMPLEMENTED, f'Unsupported log_type for warmup: {kind} in {path}'
      )


def release_memory() -> None:
  """Returns what closed sessions held to the system.

  Graphs are full of reference cycles, and glibc keeps freed pages: without both steps a server
  that reloads often grows.
  """
  gc.collect()
  trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
  if trim is not None:  # Only glibc has it.
    trim(0)


def _check(path: pathlib.Path) -> None:
  """Refuses what a stock server could not run, and incomplete copies.

  What it could run but not batch is only logged.
  """
  try:
    index = judge.GraphIndex(judge.read(path))
  except judge.UnreadableModelError as error:
    found = (path / judge.FILE_NAME).is_file()
    code = grpc.StatusCode.OUT_OF_RANGE if found else grpc.StatusCode.NOT_FOUND
    raise errors.ServingError(code, str(error)) from error
  for problem in judge.signature_problems(index):
    logging.warning('%s: %s', path, problem)
  if problems := judge.op_problems(index):
    raise errors.failed_precondition(f'{path} must not be served: {"; ".join(problems)}')
  if any(placed.node.op == 'VarHandleOp' for placed in index.nodes()):
    # TensorFlow would load variables without their values.
    folder = path / 'variables'
    shards = [file.name for file in folder.glob('variables.data-*-of-*')]
    expected = {name.rpartition('-')[2] for name in shards}
    if not (folder / 'variables.index').is_file() or expected != {f'{len(shards):05d}'}:
      raise errors.ServingError(
        grpc.StatusCode.DATA_LOSS,
        f'{folder} lacks values of variables: an incomplete copy? Copy to a folder whose name is no'
        ' number, then rename it',
      )
