"""Whoever stops waiting, by deadline, cancellation or hanging up, leaves nothing behind."""

import contextlib
import socket

import grpc
from absl.testing import absltest, parameterized
from tensorflow_serving.apis import prediction_service_pb2_grpc

from pearl_tf.testing import test_case
from serving.testing import contract_cases, contract_server, toy_server

NUM_SLOTS = 8
SLOW = contract_cases.predict('slow', contract_cases.values(), model=toy_server.MODEL)
BATCHES = 'pearl_serving_batch_rows_count{} '


class SlotsTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    # Without batching each call has a run of its own, so that those that ran can be counted.
    cls.running = cls.enterClassContext(
      toy_server.serving(grpc_max_threads=NUM_SLOTS, enable_batching=False)
    )
    cls.server = cls.running.server
    cls.channel = cls.enterClassContext(grpc.insecure_channel(cls.running.address))
    cls.stub = prediction_service_pb2_grpc.PredictionServiceStub(cls.channel)
    cls.stub.Predict(SLOW, timeout=60)

  def num_runs(self) -> int:
    """Returns how many calls were really run."""
    lines = self.server.metrics.exposition().decode().splitlines()
    return int(next(line for line in lines if line.startswith(BATCHES)).removeprefix(BATCHES))

  def wait_full(self) -> None:
    contract_server.wait_for(
      lambda: self.server.num_in_flight == NUM_SLOTS and self.server.num_queued >= NUM_SLOTS - 1,
      'all slots to be taken',
    )

  def check_free(self, runs_before: int) -> None:
    contract_server.wait_for(
      lambda: not self.server.num_in_flight and not self.server.num_queued,
      'all slots to be free',
    )
    self.stub.Predict(SLOW, timeout=60)
    # The one that ran while the others queued up, and this one; the clock may allow another.
    self.assertLessEqual(self.num_runs() - runs_before, 3)

  def test_cancellation(self):
    runs_before = self.num_runs()
    calls = [self.stub.Predict.future(SLOW, timeout=60) for _ in range(NUM_SLOTS)]
    self.wait_full()
    for call in calls:
      call.cancel()
    self.check_free(runs_before)

  def test_lost_connection(self):
    runs_before = self.num_runs()
    with grpc.insecure_channel(self.running.address) as channel:
      stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
      # They are kept, because gRPC cancels calls that nobody holds any more.
      calls = [stub.Predict.future(SLOW, timeout=60) for _ in range(NUM_SLOTS)]
      self.wait_full()
    self.assertLen([call for call in calls if call.cancelled()], NUM_SLOTS)
    self.check_free(runs_before)

  def test_lost_connection_of_http(self):
    runs_before = self.num_runs()
    host, port = self.running.rest_address.split(':')
    body = b'{"signature_name": "slow", "instances": [[1.0]]}'
    head = f'POST /v1/models/{toy_server.MODEL}:predict HTTP/1.1\r\nHost: {host}\r\n'
    head += f'Content-Length: {len(body)}\r\n\r\n'
    with contextlib.ExitStack() as connections:
      for _ in range(NUM_SLOTS):
        connection = connections.enter_context(socket.create_connection((host, int(port))))
        connection.sendall(head.encode() + body)
      self.wait_full()
    self.check_free(runs_before)

  @parameterized.parameters(0.001, 0.05)
  def test_deadline(self, timeout):
    calls = [self.stub.Predict.future(SLOW, timeout=timeout) for _ in range(4 * NUM_SLOTS)]
    allowed = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    codes = {call.code() for call in calls}
    self.assertIn(grpc.StatusCode.DEADLINE_EXCEEDED, codes)
    # One that was on time is possible for the longer one, on a fast machine.
    self.assertContainsSubset(codes, allowed | {grpc.StatusCode.OK})
    contract_server.wait_for(
      lambda: not self.server.num_in_flight and not self.server.num_queued,
      'all slots to be free',
    )
    self.stub.Predict(SLOW, timeout=60)


if __name__ == '__main__':
  absltest.main()
