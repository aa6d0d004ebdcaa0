"""The server that the contract's tests talk to: ours, or any other at an address.

To run the tests against stock TensorFlow Serving, write the models, serve them, and say where:

  python -m tests.serving.support.contract_server /tmp/contract
  tensorflow_model_server --port=8500 --model_config_file=/tmp/contract/models.config &
  TF_SERVING_MODELS=/tmp/contract TF_SERVING_ADDRESS=localhost:8500 \\
    pytest tests/serving/contract*_test.py

With TF_SERVING_BATCHING=1 the address is that of a server started with --enable_batching and
/tmp/contract/batching.config. The tests add and remove versions in that folder; each run needs a
fresh one. Without TF_SERVING_ADDRESS our server is started, once for each model.
"""

import atexit
import contextlib
import functools
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import grpc
from tensorflow_serving.apis import (
  get_model_status_pb2,
  model_service_pb2_grpc,
  predict_pb2,
  prediction_service_pb2_grpc,
)

from serving.server import options
from serving.server import server as server_lib
from tests.serving.support import contract_cases, toy_model

ADDRESS = 'TF_SERVING_ADDRESS'
BATCHING = 'TF_SERVING_BATCHING'
MODELS = 'TF_SERVING_MODELS'
# Small models, each changed by one test only.
TINY_MODELS = ('hot', 'broken', 'warmed', 'named', 'numbered', 'refused', 'removed')
# The longest that a server may take to notice a change, and to load what it found.
PATIENCE_SECONDS = 180.0
_POLL_SECONDS = 0.02
State = get_model_status_pb2.ModelVersionStatus


class UnderTest:
  """A server, as its clients see it, and the folder of its models.

  Args:
    address: where it speaks gRPC.
    folder: holds a folder for each model; the server polls it.
    is_stock: whether it is not ours.
    is_batched: whether it batches.
  """

  def __init__(self, address: str, folder: pathlib.Path, *, is_stock: bool, is_batched: bool):
    self.address = address
    self.folder = folder
    self.is_stock = is_stock
    self.is_batched = is_batched
    self.channel = grpc.insecure_channel(address)
    self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
    self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

  def predict(
    self, request: predict_pb2.PredictRequest, *, timeout: float = PATIENCE_SECONDS
  ) -> predict_pb2.PredictResponse:
    """Calls Predict."""
    return self.prediction.Predict(request, timeout=timeout)

  def states(self, model: str) -> dict[int, State]:
    """Returns the status of each version of a model; empty if it has none."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model
    try:
      response = self.models.GetModelStatus(request, timeout=PATIENCE_SECONDS)
    except grpc.RpcError as error:
      if error.code() is grpc.StatusCode.NOT_FOUND:
        return {}
      raise
    return {status.version: status for status in response.model_version_status}

  def wait_for_state(self, model: str, version: int, *states: int) -> State:
    """Waits until a version is in one of some states, and returns its status.

    Raises:
      TimeoutError: if that takes too long.
    """
    return wait_for(
      lambda: (
        status if (status := self.states(model).get(version)) and status.state in states else None
      ),
      f'{model} version {version} to get to {states}; it is {self.states(model)}',
    )

  def version_answering(self, model: str, version: int | None = None) -> int:
    """Calls a tiny model; returns the version in the answer."""
    request = contract_cases.predict(inputs=contract_cases.values(), model=model, version=version)
    return self.predict(request).model_spec.version.value

  def publish(self, model: str, name: str | int) -> pathlib.Path:
    """Adds a version of a tiny model under any name; returns its folder."""
    return copy_version(originals() / 'tiny', self.folder / model / str(name))


@contextlib.contextmanager
def serving(model: str = contract_cases.MODEL, **changes: object) -> Iterator[UnderTest]:
  """Connects to the server under test, or starts one.

  Args:
    model: that it must serve.
    **changes: options of our server.

  Raises:
    KeyError: if an address is given without the folder of its models.
  """
  address = os.environ.get(ADDRESS)
  if address:
    is_batched = bool(os.environ.get(BATCHING))
    folder = pathlib.Path(os.environ[MODELS])
    server = UnderTest(address, folder, is_stock=True, is_batched=is_batched)
    with server.channel:
      yield server
    return
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    prepare(folder, (model,))
    settings = options.ServerOptions(
      **{
        'model_name': model,
        'model_base_path': str(folder / model),
        'port': 0,
        'file_system_poll_wait_seconds': 0.05,
        'grace_seconds': 5.0,
      }
      | changes
    )
    with server_lib.in_background(settings) as running:
      server = UnderTest(running.address, folder, is_stock=False, is_batched=True)
      with server.channel:
        yield server


@functools.cache
def originals() -> pathlib.Path:
  """Returns a folder with the versions `toy` and `tiny`, to be copied; removed at the end."""
  folder = pathlib.Path(tempfile.mkdtemp())
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  toy_model.save(folder / 'toy')
  toy_model.save_tiny(folder / 'tiny')
  return folder


def prepare(folder: pathlib.Path, models: tuple[str, ...]) -> None:
  """Writes models into an empty or new folder."""
  for model in models:
    if model == contract_cases.MODEL:
      for version in (contract_cases.STABLE, contract_cases.CANARY):
        copy_version(originals() / 'toy', folder / model / str(version))
    else:
      copy_version(originals() / 'tiny', folder / model / '1')


def copy_version(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
  """Copies a version beside its place, then renames it."""
  target.parent.mkdir(parents=True, exist_ok=True)
  staging = target.with_name(f'.tmp-{target.name}')
  shutil.copytree(source, staging)
  return staging.rename(target)


def wait_for(condition: Callable[[], object], what: str) -> object:
  """Returns the first true result of a function that is called again and again.

  Raises:
    TimeoutError: if there is none in time.
  """
  deadline = time.monotonic() + PATIENCE_SECONDS
  while not (result := condition()):
    if time.monotonic() > deadline:
      raise TimeoutError(f'waited {PATIENCE_SECONDS} s for {what}')
    time.sleep(_POLL_SECONDS)
  return result


def write_for_stock(folder: pathlib.Path) -> None:
  """Writes all models, and stock's configuration of them."""
  models = (contract_cases.MODEL, *TINY_MODELS)
  prepare(folder, models)
  labels = ''.join(
    f' version_labels {{ key: "{label}" value: {version} }}'
    for label, version in (('stable', contract_cases.STABLE), ('canary', contract_cases.CANARY))
  )
  entries = [
    f'config {{ name: "{name}" base_path: "{folder / name}" model_platform: "tensorflow"'
    f' model_version_policy {{ latest {{ num_versions: 2 }} }}'
    f'{labels if name == contract_cases.MODEL else ""} }}\n'
    for name in models
  ]
  (folder / 'models.config').write_text(f'model_config_list {{\n{"".join(entries)}}}\n')
  (folder / 'batching.config').write_text(
    'max_batch_size { value: 4 } batch_timeout_micros { value: 20000 }'
    ' max_enqueued_batches { value: 1 } num_batch_threads { value: 1 }'
    ' pad_variable_length_inputs: true\n'
  )


if __name__ == '__main__':
  write_for_stock(pathlib.Path(sys.argv[1]).absolute())
