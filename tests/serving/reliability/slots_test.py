"""Whoever stops waiting, by deadline, cancellation or hanging up, leaves nothing behind."""

import contextlib
import socket

import grpc
from absl.testing import absltest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from pearl_tf.testing import test_case
from tests.serving.support import contract_cases, contract_server, gate, toy_server

NUM_SLOTS = 8
ACT = contract_cases.predict('act', contract_cases.acting(), model=toy_server.MODEL)
# Far longer than a call takes, and short enough to wait for.
DEADLINE_SECONDS = 0.5


class SlotsTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.running = cls.enterClassContext(toy_server.serving(grpc_max_threads=NUM_SLOTS))
    cls.predictor = cls.running.predictor
    cls.channel = cls.enterClassContext(grpc.insecure_channel(cls.running.address))
    cls.stub = prediction_service_pb2_grpc.PredictionServiceStub(cls.channel)
    cls.stub.Predict(ACT, timeout=60)

  def setUp(self):
    super().setUp()
    self.gate = self.enter_context(gate.Gate())

  def wait_full(self) -> None:
    contract_server.wait_for(
      lambda: self.predictor.num_in_flight == NUM_SLOTS and self.gate.num_runs,
      'all slots to be taken',
    )

  def check_free(self) -> None:
    # Although a graph that runs cannot be interrupted.
    contract_server.wait_for(lambda: not self.predictor.num_in_flight, 'all slots to be free')
    self.gate.open()
    self.stub.Predict(ACT, timeout=60)
    # The one that ran while the others queued up, and this one: nobody's calls are not run.
    self.assertLessEqual(self.gate.num_runs, 2)

  def test_cancellation(self):
    calls = [self.stub.Predict.future(ACT, timeout=60) for _ in range(NUM_SLOTS)]
    self.wait_full()
    for call in calls:
      call.cancel()
    self.check_free()

  def test_deadline(self):
    calls = [self.stub.Predict.future(ACT, timeout=DEADLINE_SECONDS) for _ in range(NUM_SLOTS)]
    codes = {call.code() for call in calls}
    self.assertEqual(codes, {grpc.StatusCode.DEADLINE_EXCEEDED})
    self.check_free()

  def test_lost_connection(self):
    with grpc.insecure_channel(self.running.address) as channel:
      stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
      # They are kept, because gRPC cancels calls that nobody holds any more.
      calls = [stub.Predict.future(ACT, timeout=60) for _ in range(NUM_SLOTS)]
      self.wait_full()
    self.assertEqual({call.code() for call in calls}, {grpc.StatusCode.CANCELLED})
    self.check_free()

  def test_lost_connection_of_http(self):
    host, port = self.running.rest_address.split(':')
    body = b'{"signature_name": "add", "instances": [{"left": [1], "right": [1]}]}'
    head = f'POST /v1/models/{toy_server.MODEL}:predict HTTP/1.1\r\nHost: {host}\r\n'
    head += f'Content-Length: {len(body)}\r\n\r\n'
    with contextlib.ExitStack() as connections:
      for _ in range(NUM_SLOTS):
        connection = connections.enter_context(socket.create_connection((host, int(port))))
        connection.sendall(head.encode() + body)
      self.wait_full()
    self.check_free()


if __name__ == '__main__':
  absltest.main()
