"""The server that the contract's tests talk to: the embedded one, or any other at an address.

To run the tests against stock TensorFlow Serving, write the models, serve them, and say where:

  python -m tests.serving.support.contract_server /tmp/contract
  tensorflow_model_server --port=8500 --model_config_file=/tmp/contract/models.config &
  tensorflow_model_server --port=8510 --model_config_file=/tmp/contract/models.config \\
    --enable_batching --batching_parameters_file=/tmp/contract/batching.config &
  TF_SERVING_MODELS=/tmp/contract TF_SERVING_ADDRESS=localhost:8500 \\
    TF_SERVING_BATCHING_ADDRESS=localhost:8510 pytest tests/serving/contract*_test.py

The tests add and remove versions in that folder and reload the configuration of the first server;
each run needs a fresh folder. Without TF_SERVING_ADDRESS an embedded server is started.
"""

import contextlib
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping

import grpc
from google.protobuf import text_format
from tensorflow_serving.apis import (
  get_model_status_pb2,
  model_management_pb2,
  model_service_pb2_grpc,
  predict_pb2,
  prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from serving.frontend import embedded, options
from tests.serving.support import contract_cases, toy_model

ADDRESS = 'TF_SERVING_ADDRESS'
BATCHING_ADDRESS = 'TF_SERVING_BATCHING_ADDRESS'
MODELS = 'TF_SERVING_MODELS'
MODELS_CONFIG = 'models.config'
BATCHING_CONFIG = 'batching.config'
# Small models, each changed by one group of tests only: name -> policy.
TINY_MODELS = {
  'hot': 'latest { num_versions: 1 }',
  'kept': 'latest { num_versions: 2 }',
  'all': 'all {}',
  'specific': 'specific { versions: 1 versions: 3 }',
  'broken': 'latest { num_versions: 1 }',
  'warmed': 'latest { num_versions: 1 }',
  'named': 'all {}',
  'numbered': 'all {}',
  'refused': 'latest { num_versions: 1 }',
  'removed': 'latest { num_versions: 1 }',
}
# The longest that a server may take to notice a change, and to load what it found.
PATIENCE_SECONDS = 180.0
_POLL_SECONDS = 0.02
State = get_model_status_pb2.ModelVersionStatus


class UnderTest:
  """A server, as its clients see it, and the folder of its models.

  Args:
    address: where it speaks gRPC.
    folder: what `prepare` wrote; the server polls it.
    is_stock: whether it is not the embedded server.
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
    """Adds a version, a copy of the model's first, under any name; returns its folder."""
    return copy_version(self.folder / 'originals' / 'tiny', self.folder / model / str(name))

  def reload(
    self, change: Callable[[model_server_config_pb2.ModelServerConfig], None]
  ) -> model_management_pb2.ReloadConfigResponse:
    """Sends the prepared configuration, changed."""
    request = model_management_pb2.ReloadConfigRequest(config=read_config(self.folder))
    change(request.config)
    return self.models.HandleReloadConfigRequest(request, timeout=PATIENCE_SECONDS)


@contextlib.contextmanager
def serving(*, is_batched: bool = False, **changes: object) -> Iterator[UnderTest]:
  """Connects to the server under test, or starts one.

  Args:
    is_batched: whether the server is to batch.
    **changes: options of the embedded server.

  Raises:
    KeyError: if an address is given without the folder of its models.
  """
  address = os.environ.get(BATCHING_ADDRESS if is_batched else ADDRESS)
  if address:
    server = UnderTest(
      address, pathlib.Path(os.environ[MODELS]), is_stock=True, is_batched=is_batched
    )
    with server.channel:
      yield server
    return
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    prepare(folder)
    settings = embedded_options(folder, is_batched=is_batched, **changes)
    with embedded.in_background(settings) as background:
      server = UnderTest(background.address, folder, is_stock=False, is_batched=is_batched)
      with server.channel:
        yield server


def embedded_options(
  folder: pathlib.Path, *, is_batched: bool = False, **changes: object
) -> options.ServerOptions:
  """Returns options that serve what `prepare` wrote, and notice changes soon."""
  settings = {
    'port': 0,
    'model_config_file': str(folder / MODELS_CONFIG),
    'file_system_poll_wait_seconds': 0.05,
    'enable_batching': is_batched,
    'batching_parameters_file': str(folder / BATCHING_CONFIG) if is_batched else '',
    'enable_reload_config_rpc': True,
    'reload_root': str(folder),
    'grace_seconds': 5.0,
  }
  return options.ServerOptions(**settings | changes)


def prepare(folder: pathlib.Path) -> None:
  """Writes models and configuration into an empty or new folder."""
  folder.mkdir(parents=True, exist_ok=True)
  originals = folder / 'originals'
  originals.mkdir()
  toy_model.save(originals / 'toy')
  toy_model.save_tiny(originals / 'tiny')
  for version in (contract_cases.STABLE, contract_cases.CANARY):
    copy_version(originals / 'toy', folder / contract_cases.MODEL / str(version))
  for name in TINY_MODELS:
    copy_version(originals / 'tiny', folder / name / '1')
  (folder / MODELS_CONFIG).write_text(_models_config(folder))
  (folder / BATCHING_CONFIG).write_text(
    'max_batch_size { value: 4 } batch_timeout_micros { value: 20000 }'
    ' max_enqueued_batches { value: 1 } num_batch_threads { value: 1 }'
    ' pad_variable_length_inputs: true\n'
  )


def read_config(folder: pathlib.Path) -> model_server_config_pb2.ModelServerConfig:
  """Returns the prepared configuration."""
  text = (folder / MODELS_CONFIG).read_text()
  return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())


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


def _models_config(folder: pathlib.Path) -> str:
  labels = {'stable': contract_cases.STABLE, 'canary': contract_cases.CANARY}
  entries = [_entry(folder, contract_cases.MODEL, 'latest { num_versions: 2 }', labels)]
  entries += [_entry(folder, name, policy, {}) for name, policy in TINY_MODELS.items()]
  return 'model_config_list {\n' + ''.join(entries) + '}\n'


def _entry(folder: pathlib.Path, name: str, policy: str, labels: Mapping[str, int]) -> str:
  mapped = ''.join(
    f' version_labels {{ key: "{label}" value: {version} }}' for label, version in labels.items()
  )
  return (
    f'  config {{ name: "{name}" base_path: "{folder / name}" model_platform: "tensorflow"'
    f' model_version_policy {{ {policy} }}{mapped} }}\n'
  )


if __name__ == '__main__':
  prepare(pathlib.Path(sys.argv[1]).absolute())
