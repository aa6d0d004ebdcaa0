"""Thousands of hostile requests: each is answered as it should be, and leaves nothing behind."""

import asyncio
import contextlib
import gc
import json
import pathlib
import tempfile
import tracemalloc

import grpc
import hypothesis
import numpy as np
import tensorflow as tf
from absl.testing import absltest
from google.protobuf import message as protobuf_message
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from pearl_tf.export import manifest
from pearl_tf.testing import exported_model, test_case
from serving.server import errors, models, predict, tensors
from tests.serving.support import contract_cases, hostile_requests, toy_server

MODEL = 'pearl'
NUM_REQUESTS, NUM_MESSAGES, NUM_CALLS = 1500, 1000, 200
CODE = grpc.StatusCode
ALLOWED = {CODE.OK, CODE.INVALID_ARGUMENT, CODE.NOT_FOUND, CODE.FAILED_PRECONDITION}
METHOD = '/tensorflow.serving.PredictionService/Predict'
# Of an answer's rows: fine, bad numbers, foreign latent_tag, num_transitions out of range.
STATUSES = {0, 3, 9, 11}
NUM_REPLAYED = 150
NUM_REPLAYS = 6
# Replaying them again and again: a leak of a kilobyte per request would be 0.6 MB.
MAX_GROWTH_BYTES = 2**19


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
    self.models = models.Models(MODEL, base_path, poll_seconds=3600.0)
    self.predictor = predict.Predictor(self.models, max_in_flight=4, max_steps=65_536)
    self._loop.run_until_complete(self.models.start())

  def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    """Answers a request; raises `ServingError` as the server would."""
    answer = self.predictor.predict(request, deadline=None)
    return self._loop.run_until_complete(answer)

  def close(self) -> None:
    self._loop.run_until_complete(self.predictor.close())
    self._loop.run_until_complete(self.models.stop())
    self._loop.close()


class FuzzTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.base_path = exported_model.export_small(folder) / MODEL
    cls.service = InProcess(cls.base_path)
    cls.addClassCleanup(cls.service.close)
    described = json.loads((cls.base_path / '1' / manifest.FILE).read_text())
    protos = cls.service.models.resolve(MODEL).protos
    signatures = {name: proto for name, proto in protos.items() if not name.startswith('__')}
    cls.model = hostile_requests.Model(MODEL, signatures, described['latent_tag'])

  def check_answer(self, answer: predict_pb2.PredictResponse) -> None:
    """Checks that rows are either fine or marked."""
    outputs = {name: tensors.decode(proto) for name, proto in answer.outputs.items()}
    if 'status' not in outputs:  # It was not asked for.
      return
    status = outputs.pop('status')
    self.assertContainsSubset(set(status.tolist()), STATUSES)
    for name, array in outputs.items():
      self.assertLen(array, len(status))
      self.assertTrue(np.isfinite(array[status == 0]).all(), f'{name}: {array}')

  def check_error(self, error: errors.ServingError) -> None:
    self.assertIn(error.code, ALLOWED, error)

  def test_requests(self):
    kept, answered = [], []

    @cases(NUM_REQUESTS)
    @hypothesis.given(hostile_requests.requests(self.model))
    def try_one(request):
      kept.append(request)
      try:
        answer = self.service.predict(request)
      except errors.ServingError as error:
        self.check_error(error)
      else:
        self.check_answer(answer)
        answered.append(request)

    try_one()
    self.assertGreaterEqual(len(kept), NUM_REQUESTS)
    # The other checks are reached as well.
    self.assertBetween(len(answered), NUM_REQUESTS // 5, NUM_REQUESTS - NUM_REQUESTS // 5)
    self.assertEqual(self.service.predictor.num_in_flight, 0)
    self.check_replay_leaves_nothing(kept[:: len(kept) // NUM_REPLAYED])

  def check_replay_leaves_nothing(self, requests: list[predict_pb2.PredictRequest]) -> None:
    """Answers the same requests again and again; memory must stay as it is."""
    tracemalloc.start()
    self.addCleanup(tracemalloc.stop)
    sizes = []
    for _ in range(NUM_REPLAYS):
      for request in requests:
        with contextlib.suppress(errors.ServingError):
          self.service.predict(request)
      gc.collect()
      sizes.append(tracemalloc.get_traced_memory()[0])
    # The first round fills caches.
    self.assertLess(sizes[-1] - sizes[1], MAX_GROWTH_BYTES, sizes)

  def test_bytes(self):
    tried = []

    @cases(NUM_MESSAGES)
    @hypothesis.given(hostile_requests.messages(self.valid_messages()))
    def try_one(content):
      tried.append(content)
      try:
        request = predict_pb2.PredictRequest.FromString(content)
      except protobuf_message.DecodeError:
        return
      try:
        self.check_answer(self.service.predict(request))
      except errors.ServingError as error:
        self.check_error(error)

    try_one()
    self.assertGreaterEqual(len(tried), NUM_MESSAGES)
    self.assertEqual(self.service.predictor.num_in_flight, 0)

  def test_bytes_over_the_network(self):
    server = self.enter_context(
      toy_server.serving(model_name=MODEL, model_base_path=str(self.base_path))
    )
    channel = self.enter_context(grpc.insecure_channel(server.address))
    call = channel.unary_unary(METHOD)
    tried = []

    @cases(NUM_CALLS)
    @hypothesis.given(hostile_requests.messages(self.valid_messages()))
    def try_one(content):
      tried.append(content)
      try:
        answer = call(content, timeout=60)
      except grpc.RpcError as error:
        # INTERNAL without a text: the bytes are no message, and nothing went wrong in the server.
        is_no_message = error.code() is CODE.INTERNAL and not error.details()
        self.assertTrue(error.code() in ALLOWED or is_no_message, error)
      else:
        self.check_answer(predict_pb2.PredictResponse.FromString(answer))

    try_one()
    self.assertGreaterEqual(len(tried), NUM_CALLS)
    self.assertEqual(server.predictor.num_in_flight, 0)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    stub.Predict(predict_pb2.PredictRequest.FromString(self.valid_messages()[0]), timeout=60)

  def valid_messages(self) -> list[bytes]:
    """Returns a valid request for each signature."""
    messages = []
    for name, proto in sorted(self.model.signatures.items()):
      inputs = {}
      for alias, info in proto.inputs.items():
        shape = [2 if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]
        value = self.model.latent_tag if alias == 'latent_tag' else 1
        inputs[alias] = np.full(shape, value, tf.as_dtype(info.dtype).as_numpy_dtype)
      request = contract_cases.predict(name, inputs, model=MODEL)
      messages.append(request.SerializeToString(deterministic=True))
    return messages


if __name__ == '__main__':
  absltest.main()
