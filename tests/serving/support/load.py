"""Clients that call a server all the time, while a test does to it what must not disturb them."""

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Self

import grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of one call.

  Attributes:
    began: when it was sent, by `time.monotonic`.
    ended: when the answer was there.
    request: what was sent.
    response: the answer; None if it failed.
    error: why it failed.
  """

  began: float
  ended: float
  request: predict_pb2.PredictRequest
  response: predict_pb2.PredictResponse | None = None
  error: grpc.RpcError | None = None


class Load:
  """Threads that call one after the other until the block ends, or until a call fails.

  Args:
    address: of the server, plaintext.
    next_request: makes the request of each call.
    num_clients: threads, each with a connection of its own.
  """

  def __init__(
    self, address: str, next_request: Callable[[], predict_pb2.PredictRequest], num_clients: int = 2
  ):
    self.outcomes: list[Outcome] = []
    self._address = address
    self._next_request = next_request
    self._stop = threading.Event()
    self._threads = [threading.Thread(target=self._call_forever) for _ in range(num_clients)]

  @property
  def failures(self) -> list[Outcome]:
    """The calls that failed."""
    return [outcome for outcome in list(self.outcomes) if outcome.error is not None]

  def join(self) -> None:
    """Waits until every client has met a failure."""
    for thread in self._threads:
      thread.join()

  def __enter__(self) -> Self:
    for thread in self._threads:
      thread.start()
    return self

  def __exit__(self, *exc_info):
    self._stop.set()
    self.join()

  def _call_forever(self) -> None:
    # Or gRPC shares one connection between the clients.
    options = [('grpc.use_local_subchannel_pool', 1)]
    with grpc.insecure_channel(self._address, options) as channel:
      stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
      while not self._stop.is_set():
        request, began = self._next_request(), time.monotonic()
        try:
          response = stub.Predict(request, timeout=60)
        except grpc.RpcError as error:
          self.outcomes.append(Outcome(began, time.monotonic(), request, error=error))
          return
        self.outcomes.append(Outcome(began, time.monotonic(), request, response))
