"""SIGTERM during load: what runs is finished, and the process ends well."""

import signal
import time

import grpc
from absl.testing import absltest

from pearl_tf.testing import test_case
from serving.server import process
from tests.serving.support import contract_cases, contract_server, load, toy_server

START_SECONDS = 300
ENOUGH_CALLS = 50
# A call this old was sent before the signal was.
SURELY_SENT_SECONDS = 0.01
NOT_SERVED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def request(signature: str):
  inputs = contract_cases.acting() if signature == 'act' else contract_cases.values()
  return contract_cases.predict(signature, inputs, model=toy_server.MODEL)


class DrainTest(test_case.TestCase):
  def test_no_call_in_flight_fails(self):
    with process.running(toy_server.settings(), timeout_seconds=START_SECONDS) as running:
      with (
        load.Load(running.address, lambda: request('act')) as quick,
        load.Load(running.address, lambda: request('slow'), num_clients=4) as slow,
      ):
        contract_server.wait_for(
          lambda: len(quick.outcomes) > ENOUGH_CALLS and len(slow.outcomes) > 4, 'some calls'
        )
        asked_to_stop = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        quick.join()  # All clients end, as nobody answers them any more.
        slow.join()
      self.assertEqual(running.process.wait(10), 0)
    for failed in quick.failures + slow.failures:
      age = asked_to_stop - failed.began
      # What arrives while the port closes is cancelled by gRPC, not refused, and was never begun.
      self.assertIn(failed.error.code(), NOT_SERVED, f'{age} s old: {failed.error}')
      self.assertLess(age, SURELY_SENT_SECONDS, failed.error)
    answered_meanwhile = [
      outcome
      for outcome in slow.outcomes
      if outcome.error is None and outcome.began < asked_to_stop < outcome.ended
    ]
    self.assertNotEmpty(answered_meanwhile)


if __name__ == '__main__':
  absltest.main()
