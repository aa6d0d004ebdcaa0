"""Ten thousand hostile requests: each gets an answer of the contract, and none leaves memory behind."""

import asyncio
import gc
import pathlib
import socket
import tempfile

import grpc
import hypothesis
import numpy as np
from absl.testing import absltest
from google.protobuf import message as protobuf_message
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from pearl_tf.testing import exported_model, test_case
from serving import errors, tensors
from serving.frontend import limits, monitoring, predictor
from serving.model_server import batcher, manager, model_config
from serving.testing import contract_cases, hostile_requests, toy_server

MODEL = 'pearl'
NUM_REQUESTS, NUM_MESSAGES, NUM_CALLS = 5000, 3000, 2000
CODE = grpc.StatusCode
ALLOWED = {CODE.OK, CODE.INVALID_ARGUMENT, CODE.NOT_FOUND, CODE.FAILED_PRECONDITION}
METHOD = '/tensorflow.serving.PredictionService/Predict'
# Of an answer's rows: fine, bad numbers, foreign latent_tag, num_transitions out of range.
STATUSES = {0, 3, 9, 11}
NUM_REPLAYED = 300
NUM_REPLAYS = 10
# Replaying them all again and again: a leak of half a kilobyte per request would be 1.5 MB.
MAX_GROWTH_BYTES = 2**20


def cases(number: int):
  """Returns a decorator that makes a test try so many cases, always the same."""
  return hypothesis.settings(
    max_examples=number,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.generate],
  )


class InProcess:
  """Everything behind the network: what decodes, checks, batches, runs and encodes."""

  def __init__(self, base_path: pathlib.Path):
    self._loop = asyncio.new_event_loop()
    self.manager = manager.ModelManager(
      model_config.single(MODEL, str(base_path)), poll_seconds=0.0
    )
    metrics = monitoring.Metrics(model_names=self.manager.names, num_in_flight=lambda: 0)
    self._in_flight = limits.InFlight(4)
    self._batcher = batcher.Batcher()
    self._predictor = predictor.Predictor(
      self.manager,
      self._batcher,
      size_limits=limits.SizeLimits(),
      in_flight=self._in_flight,
      metrics=metrics,
    )
    self._loop.run_until_complete(self.manager.start())

  def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    """Answers a request; raises `ServingError` as the server would."""
    answer = self._predictor.predict(request, deadline=None)
    return self._loop.run_until_complete(answer)

  @property
  def num_in_flight(self) -> int:
    return self._in_flight.count

  def close(self) -> None:
    self._loop.run_until_complete(self._batcher.close())
    self._loop.run_until_complete(self.manager.stop())
    self._loop.close()
