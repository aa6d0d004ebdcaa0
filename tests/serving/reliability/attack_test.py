"""Messages of a few bytes that ask for gigabytes cost the server neither time nor memory."""

import pathlib
import statistics
import time

import grpc
from absl.testing import absltest, parameterized
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from pearl_tf.testing import test_case
from serving.server import process
from tests.serving.support import contract_cases, toy_server

BUDGET_SECONDS = 0.05
NUM_TRIES = 7
START_SECONDS = 300
# The smallest of the attacks would take 256 MB if it were believed, most take over 1 GB.
MAX_GROWTH_MEGABYTES = 64


def announced(*shape: int, dtype: int = types_pb2.DT_FLOAT, **fields):
  """Returns a tensor of one value that claims to be large."""
  return contract_cases.message(shape, dtype, **fields or {'float_val': [1.0]})


def crowd(number: int) -> dict:
  """Returns inputs nobody asked for, each as large as a tensor of one value may be."""
  return {f'extra_{index}': announced(2**16) for index in range(number)}


def act(**changes):
  inputs = contract_cases.acting() | changes
  return contract_cases.predict('act', inputs, model=toy_server.MODEL)


class AttackTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.running = cls.enterClassContext(
      process.running(toy_server.settings(), timeout_seconds=START_SECONDS)
    )
    cls.channel = cls.enterClassContext(grpc.insecure_channel(cls.running.address))
    cls.stub = prediction_service_pb2_grpc.PredictionServiceStub(cls.channel)
    cls.stub.Predict(act(), timeout=60)

  def peak_megabytes(self) -> int:
    """Returns the most memory that the server has ever had."""
    status = pathlib.Path(f'/proc/{self.running.process.pid}/status').read_text()
    line = next(line for line in status.splitlines() if line.startswith('VmHWM:'))
    return int(line.split()[1]) // 1024

  def median_seconds(self, call) -> float:
    times = []
    for _ in range(NUM_TRIES):
      began = time.perf_counter()
      call()
      times.append(time.perf_counter() - began)
    return statistics.median(times)

  @parameterized.named_parameters(
    ('one_dimension', act(z=announced(2**40))),
    ('two_dimensions', act(z=announced(2**24, 20))),
    ('just_below_the_largest_tensor', act(z=announced(2**21, 2))),
    ('dimensions_that_overflow', act(z=announced(2**62, 2**62, 2))),
    ('beside_an_empty_dimension', act(z=announced(2**40, 0))),
    ('no_value_at_all', act(z=contract_cases.message((2**30,)))),
    ('strings', act(z=announced(2**26, dtype=types_pb2.DT_STRING, string_val=[b'x']))),
    ('a_thousand_inputs', act(**crowd(1000))),
  )
  def test_is_answered_at_once_without_memory(self, request):
    normal = self.median_seconds(lambda: self.stub.Predict(act(), timeout=60))
    before = self.peak_megabytes()

    def attack() -> None:
      error = toy_server.failure(self.stub.Predict, request, timeout=60)
      self.assertIs(error.code(), grpc.StatusCode.INVALID_ARGUMENT, error.details())

    # On a machine that is busy with other things, everything takes longer.
    self.assertLess(self.median_seconds(attack), max(BUDGET_SECONDS, 4 * normal))
    self.assertLess(self.peak_megabytes() - before, MAX_GROWTH_MEGABYTES)
    self.stub.Predict(act(), timeout=60)


if __name__ == '__main__':
  absltest.main()
