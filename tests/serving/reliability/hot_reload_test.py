"""Hot reloads under load fail no call."""

import grpc
import numpy as np
from absl.testing import absltest

from pearl_tf.testing import test_case
from serving.server import tensors
from tests.serving.support import (
  contract_cases,
  contract_server,
  load,
  numbered_model,
  toy_server,
  version_watch,
)

MODEL = numbered_model.MODEL
NUM_RELOADS = 6


class HotReloadTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    base_path = self.temp_dir()
    self.publisher = numbered_model.Publisher(base_path)
    self.publisher.publish(1)
    self.server = self.enter_context(
      toy_server.serving(
        model_name=MODEL, model_base_path=str(base_path), file_system_poll_wait_seconds=0.02
      )
    )
    channel = self.enter_context(grpc.insecure_channel(self.server.address))
    self.watch = version_watch.VersionWatch(channel, MODEL)

  def test_no_call_fails_and_each_is_answered_by_one_version(self):
    pinned = [1]

    def request(version: int | None = None):
      return contract_cases.predict('', contract_cases.values(), model=MODEL, version=version)

    with (
      load.Load(self.server.address, request) as of_anybody,
      load.Load(self.server.address, lambda: request(pinned[0]), num_clients=1) as of_pinned,
    ):
      for version in range(2, 2 + NUM_RELOADS):
        self.publisher.publish(version)
        self.watch.wait(version, version_watch.State.AVAILABLE)
        # As a client does between two episodes; until then the version before is kept.
        pinned[0] = version
        for clients in (of_anybody, of_pinned):
          contract_server.wait_for(
            lambda clients=clients, version=version: (
              clients.failures or clients.outcomes and answering(clients.outcomes[-1]) == version
            ),
            f'a call answered by version {version}',
          )
    for clients in (of_anybody, of_pinned):
      self.assertEmpty([outcome.error for outcome in clients.failures])
      for outcome in clients.outcomes:
        self.assert_answered_by_one_version(outcome)
      self.assertContainsSubset(
        set(range(2, 2 + NUM_RELOADS)), {answering(outcome) for outcome in clients.outcomes}
      )

  def assert_answered_by_one_version(self, outcome: load.Outcome) -> None:
    version = answering(outcome)
    answer = tensors.decode(outcome.response.outputs['values'])
    np.testing.assert_array_equal(answer, np.full([1, 1], version + 1, np.float32))
    if outcome.request.model_spec.HasField('version'):
      self.assertEqual(version, outcome.request.model_spec.version.value)


def answering(outcome: load.Outcome) -> int:
  """Returns the version that answered."""
  return outcome.response.model_spec.version.value


if __name__ == '__main__':
  absltest.main()
