"""Requests that ask for too much are refused, and the server stays well."""

import threading
import time

import grpc
import numpy as np
from absl.testing import absltest, parameterized
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from pearl_tf.testing import test_case
from tests.serving.support import contract_cases, gate, toy_server

CODE = grpc.StatusCode


def predict(signature: str, inputs: dict):
  return contract_cases.predict(signature, inputs, model=toy_server.MODEL)


def announced(*shape: int) -> object:
  """A tensor of a few bytes that claims to be large."""
  return contract_cases.message(shape, float_val=[1.0])


class LimitsTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.server = cls.enterClassContext(
      toy_server.serving(grpc_max_threads=4, max_request_steps=5000)
    )
    cls.channel = cls.enterClassContext(grpc.insecure_channel(cls.server.address))
    cls.stub = prediction_service_pb2_grpc.PredictionServiceStub(cls.channel)
    cls.stub.Predict(predict('act', contract_cases.acting()), timeout=60)

  def check_well(self):
    self.stub.Predict(predict('act', contract_cases.acting()), timeout=60)

  @parameterized.named_parameters(
    ('rows', predict('act', contract_cases.acting(257)), CODE.INVALID_ARGUMENT, 'at most 256'),
    (
      'rows_times_sequence',
      predict('encode', contract_cases.context(100, 60)),
      CODE.INVALID_ARGUMENT,
      'at most 5000 rows times sequence length',
    ),
    (
      'splat',
      predict('act', contract_cases.acting() | {'z': announced(2**40)}),
      CODE.INVALID_ARGUMENT,
      '^tensor parsing error: z: .* above the limit of 4194304 elements',
    ),
    (
      'splat_below_the_limit_of_elements',
      predict('act', contract_cases.acting() | {'z': announced(2**21, 2)}),
      CODE.INVALID_ARGUMENT,
      '^tensor parsing error: z: .* but 1 values',
    ),
    (
      'overflow',
      predict('act', contract_cases.acting() | {'z': announced(2**62, 2**62)}),
      CODE.INVALID_ARGUMENT,
      'above the limit',
    ),
    (
      'sequence',
      predict('encode', contract_cases.context(1, 5001)),
      CODE.INVALID_ARGUMENT,
      'at most 5000 rows times sequence length',
    ),
    (
      'message',
      predict('strict', {'values': np.ones((2**17, 2), np.float32)}),
      CODE.RESOURCE_EXHAUSTED,
      r'larger than max \(\d+ vs\. 1048576\)',
    ),
  )
  def test_refused(self, request, code, text):
    error = toy_server.failure(self.stub.Predict, request, timeout=60)
    self.assertEqual(error.code(), code, error.details())
    self.assertRegex(error.details(), text)
    self.check_well()

  def test_largest_that_is_allowed(self):
    self.stub.Predict(predict('act', contract_cases.acting(256)), timeout=60)
    self.stub.Predict(predict('encode', contract_cases.context(1, 5000)), timeout=60)

  def test_many_attacks_at_once_leave_the_server_answering(self):
    attack = predict('act', contract_cases.acting() | {'z': announced(2**40)})
    stop = threading.Event()

    def hammer():
      while not stop.is_set():
        toy_server.failure(self.stub.Predict, attack, timeout=60)

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
      thread.start()
    try:
      answered = 0
      for _ in range(20):
        try:
          self.check_well()
          answered += 1
        except grpc.RpcError as error:
          self.assertEqual(error.code(), CODE.RESOURCE_EXHAUSTED)
    finally:
      stop.set()
      for thread in threads:
        thread.join()
    self.assertGreater(answered, 0)

  @parameterized.parameters('DT_RESOURCE', 'DT_VARIANT', 'DT_STRING', 'DT_QINT8')
  def test_odd_types_are_refused(self, dtype):
    # A stock server ends on the first of them.
    odd = contract_cases.message((1, 2), dtype=types_pb2.DataType.Value(dtype))
    request = predict('act', contract_cases.acting() | {'z': odd})
    error = toy_server.failure(self.stub.Predict, request, timeout=60)
    self.assertEqual(error.code(), CODE.INVALID_ARGUMENT)
    self.check_well()

  def test_signatures_of_the_loader_are_none_for_clients(self):
    error = toy_server.failure(self.stub.Predict, predict('__saved_model_init_op', {}), timeout=60)
    self.assertEqual(error.code(), CODE.FAILED_PRECONDITION)
    self.assertIn('not found', error.details())

  def test_deadline_and_cancellation_free_their_place(self):
    request = predict('act', contract_cases.acting())
    with gate.Gate():  # No answer is early.
      for _ in range(3):  # Twelve in all, of which four would fill the server.
        for _ in range(2):
          error = toy_server.failure(self.stub.Predict, request, timeout=0.02)
          self.assertEqual(error.code(), CODE.DEADLINE_EXCEEDED)
        calls = [self.stub.Predict.future(request, timeout=60) for _ in range(2)]
        for call in calls:
          call.cancel()
      deadline = time.monotonic() + 30
      while self.server.predictor.num_in_flight and time.monotonic() < deadline:
        time.sleep(0.02)
      self.assertEqual(self.server.predictor.num_in_flight, 0)
    self.check_well()


if __name__ == '__main__':
  absltest.main()
