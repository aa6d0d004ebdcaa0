"""A long life in miniature: neither calls nor reloads leave memory behind."""

import asyncio
import pathlib
import statistics

import grpc
from absl.testing import absltest
from grpc import aio

from pearl_tf.testing import test_case
from serving.frontend import process
from tests.serving.support import contract_cases, numbered_model, toy_server, version_watch

START_SECONDS = 300
NUM_CALLS = 100_000
NUM_RELOADS = 50
NUM_CLIENTS = 64
# Until then memory grows for good reasons: pools, caches, the allocator's arenas.
WARM_UP = 0.3
# Calls that left half a kilobyte each would add 34 MB after the warm-up, versions 140 MB.
VERSION_MEGABYTES = 4
MAX_GROWTH_MEGABYTES = 25
METHOD = '/tensorflow.serving.PredictionService/Predict'


class MemoryTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.base_path = self.temp_dir()
    self.publisher = numbered_model.Publisher(self.base_path, num_megabytes=VERSION_MEGABYTES)
    self.publisher.publish(1)

  def test_stays_flat(self):
    settings = toy_server.settings(
      model_name=numbered_model.MODEL,
      model_base_path=str(self.base_path),
      file_system_poll_wait_seconds=0.02,
      rest_api_port=0,
    )
    with process.running(settings, timeout_seconds=START_SECONDS) as running:
      megabytes = asyncio.run(live(running, self.publisher))
      self.assertIsNone(running.process.poll())
    self.assertLen(megabytes, NUM_RELOADS)
    begin = int(WARM_UP * NUM_RELOADS)
    # Medians, because during a swap two versions are there.
    early, late = megabytes[begin : begin + 7], megabytes[-7:]
    growth = statistics.median(late) - statistics.median(early)
    self.assertLess(growth, MAX_GROWTH_MEGABYTES, megabytes)


async def live(running: process.Running, publisher: numbered_model.Publisher) -> list[float]:
  """Reloads while clients call, evenly spread; returns the memory after each reload."""
  calls = Calls(running.address)
  megabytes = []
  async with calls:
    for reload in range(NUM_RELOADS):
      calling = asyncio.create_task(calls.make(NUM_CALLS // NUM_RELOADS))
      await asyncio.to_thread(swap, running.address, publisher, 2 + reload)
      await calling
      megabytes.append(resident_megabytes(running.process.pid))
  return megabytes


def swap(address: str, publisher: numbered_model.Publisher, version: int) -> None:
  """Publishes a version, waits until it has replaced the one before."""
  publisher.publish(version)
  with grpc.insecure_channel(address) as channel:
    watch = version_watch.VersionWatch(channel, numbered_model.MODEL)
    watch.wait(version, version_watch.State.AVAILABLE)
    if version > 2:  # The newest two are served.
      watch.wait(version - 2, version_watch.State.END)


class Calls:
  """Makes many calls at once; the message is made once, and answers are not decoded."""

  def __init__(self, address: str):
    self._channel = aio.insecure_channel(address)
    self._call = self._channel.unary_unary(METHOD)
    self._message = contract_cases.predict(
      '', contract_cases.values(), model=numbered_model.MODEL
    ).SerializeToString()

  async def make(self, number: int) -> None:
    """Makes calls by many clients, each one after the other."""
    left = iter(range(number))

    async def client() -> None:
      for _ in left:
        await self._call(self._message, timeout=60)

    await asyncio.gather(*(client() for _ in range(NUM_CLIENTS)))

  async def __aenter__(self) -> 'Calls':
    return self

  async def __aexit__(self, *exc_info):
    await self._channel.close()


def resident_megabytes(pid: int) -> float:
  """Returns the memory that a process has now."""
  status = pathlib.Path(f'/proc/{pid}/status').read_text()
  line = next(line for line in status.splitlines() if line.startswith('VmRSS:'))
  return int(line.split()[1]) / 1024


if __name__ == '__main__':
  absltest.main()
