"""More at once than the server takes: the rest is refused at once, and served a moment later."""

import statistics
import time

import grpc
from absl.testing import absltest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc

from pearl_tf.testing import test_case
from tests.serving.support import contract_cases, contract_server, gate, toy_server

BUDGET_SECONDS = 0.05
NUM_TRIES = 9
ACT = contract_cases.predict('act', contract_cases.acting(), model=toy_server.MODEL)


class OverloadTest(test_case.TestCase):
  def median_seconds(self, call) -> float:
    times = []
    for _ in range(NUM_TRIES):
      began = time.perf_counter()
      call()
      times.append(time.perf_counter() - began)
    return statistics.median(times)

  def test_refused_at_once(self):
    capacity = 4
    server = self.enter_context(toy_server.serving(grpc_max_threads=capacity))
    channel = self.enter_context(grpc.insecure_channel(server.address))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    normal = self.median_seconds(lambda: stub.Predict(ACT, timeout=60))
    with gate.Gate():
      waiting = [stub.Predict.future(ACT, timeout=60) for _ in range(capacity)]
      contract_server.wait_for(
        lambda: server.predictor.num_in_flight == capacity, 'the server to be full'
      )

      def overload() -> None:
        error = toy_server.failure(stub.Predict, ACT, timeout=60)
        self.assertIs(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED, error.details())
        self.assertEqual(error.details(), 'Server Threadpool Exhausted')

      # On a machine that is busy with other things, everything takes longer.
      self.assertLess(self.median_seconds(overload), max(BUDGET_SECONDS, 4 * normal))
    self.assertEqual([call.code() for call in waiting], [grpc.StatusCode.OK] * capacity)
    stub.Predict(ACT, timeout=60)

  def test_those_who_only_watch_are_limited_too(self):
    running = self.enter_context(toy_server.serving(grpc_max_threads=1))
    with grpc.insecure_channel(running.address) as channel:
      health = health_pb2_grpc.HealthStub(channel)
      watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(80)]
      codes = set()
      for watch in watches:
        try:
          next(watch)
        except grpc.RpcError as error:
          codes.add(error.code())
      self.assertEqual(codes, {grpc.StatusCode.RESOURCE_EXHAUSTED})
    with grpc.insecure_channel(running.address) as channel:
      stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

      def is_served() -> bool:
        try:
          stub.Predict(ACT, timeout=60)
        except grpc.RpcError as error:
          self.assertIs(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
          return False
        return True

      contract_server.wait_for(is_served, 'the place of those who left')


if __name__ == '__main__':
  absltest.main()
