"""A long life in miniature: versions that came and went leave no memory behind."""

import pathlib

import grpc
from absl.testing import absltest

from pearl_tf.testing import test_case
from tests.serving.support import contract_cases, numbered_model, toy_server, version_watch

NUM_RELOADS = 8
NUM_CALLS = 50
# Until then memory grows for good reasons: pools, caches, the allocator's arenas.
NUM_WARM_UP = 3
# Versions that were kept would add five times as much after the warm-up.
VERSION_MEGABYTES = 32
MAX_GROWTH_MEGABYTES = 2 * VERSION_MEGABYTES
State = version_watch.State


class MemoryTest(test_case.TestCase):
  def test_stays_flat_over_reloads(self):
    base_path = self.temp_dir()
    publisher = numbered_model.Publisher(base_path, num_megabytes=VERSION_MEGABYTES)
    publisher.publish(1)
    server = self.enter_context(
      toy_server.serving(
        model_name=numbered_model.MODEL,
        model_base_path=str(base_path),
        keep_versions=1,
        file_system_poll_wait_seconds=0.02,
        rest_api_port=0,
      )
    )
    megabytes = []
    with grpc.insecure_channel(server.address) as channel:
      watch = version_watch.VersionWatch(channel, numbered_model.MODEL)
      call = channel.unary_unary('/tensorflow.serving.PredictionService/Predict')
      request = contract_cases.predict('', contract_cases.values(), model=numbered_model.MODEL)
      for version in range(2, 2 + NUM_RELOADS):
        publisher.publish(version)
        watch.wait(version, State.AVAILABLE)
        for _ in range(NUM_CALLS):
          call(request.SerializeToString(), timeout=60)
        watch.wait(version - 1, State.END)
        megabytes.append(resident_megabytes())
    self.assertLess(megabytes[-1] - megabytes[NUM_WARM_UP - 1], MAX_GROWTH_MEGABYTES, megabytes)


def resident_megabytes() -> float:
  """Returns the memory that this process has now."""
  status = pathlib.Path('/proc/self/status').read_text()
  line = next(line for line in status.splitlines() if line.startswith('VmRSS:'))
  return int(line.split()[1]) / 1024


if __name__ == '__main__':
  absltest.main()
