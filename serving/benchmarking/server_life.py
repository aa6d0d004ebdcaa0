"""What a server takes to start, to take up a new version, and in memory."""

import contextlib
import pathlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.benchmarking import model_folder, workloads
from serving.frontend import options, process

_CALL_SECONDS = 30.0
_RELOAD_SECONDS = 120.0
_PAUSE_SECONDS = 0.002


class Started(NamedTuple):
  """A server that is ready.

  Attributes:
    address: where it listens.
    pid: its process.
    seconds: from the start of the process to ready, models loaded and warm.
  """

  address: str
  pid: int
  seconds: float


class Reload(NamedTuple):
  """A new version taken up.

  Attributes:
    seconds: from its publication to the first answer of it, the wait for the next look at the
      folder included.
    slowest_call_seconds: of the calls that one client made meanwhile; none failed.
  """

  seconds: float
  slowest_call_seconds: float


@contextlib.contextmanager
def running(base_path: pathlib.Path, *, enable_batching: bool) -> Iterator[Started]:
  """Starts `serving.server` for as long as the block runs.

  Raises:
    process.StartError: if it does not get ready.
  """
  settings = options.ServerOptions(
    model_name=workloads.MODEL,
    model_base_path=str(base_path),
    port=0,
    enable_batching=enable_batching,
    grace_seconds=1.0,
  )
  began = time.perf_counter()
  with process.running(settings) as server:
    yield Started(server.address, server.process.pid, time.perf_counter() - began)


def predict(address: str, workload: workloads.Workload) -> predict_pb2.PredictResponse:
  """Calls once.

  Raises:
    grpc.RpcError: if the call fails.
  """
  with grpc.insecure_channel(address) as channel:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest.FromString(workload.request)
    return stub.Predict(request, timeout=_CALL_SECONDS)


def reload(address: str, folder: model_folder.ModelFolder, workload: workloads.Workload) -> Reload:
  """Publishes a version and calls until it answers.

  Raises:
    grpc.RpcError: if a call fails.
    TimeoutError: if the version does not come.
  """
  request = predict_pb2.PredictRequest.FromString(workload.request)
  with grpc.insecure_channel(address) as channel:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    stub.Predict(request, timeout=_CALL_SECONDS)
    version, slowest = folder.publish_again(), 0.0
    published = now = time.perf_counter()
    while now - published < _RELOAD_SECONDS:
      began = time.perf_counter()
      response = stub.Predict(request, timeout=_CALL_SECONDS)
      now = time.perf_counter()
      slowest = max(slowest, now - began)
      if response.model_spec.version.value == version:
        return Reload(now - published, slowest)
      time.sleep(_PAUSE_SECONDS)
  raise TimeoutError(f'version {version} does not answer after {_RELOAD_SECONDS} s')
