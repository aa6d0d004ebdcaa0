"""Clients that call without a pause: each waits for its answer and calls again.

Their requests are serialised beforehand and their answers are not looked into, so that the clients
take as little as possible of a machine that they share with the server. Each has a channel, and a
connection, of its own, as clients on different machines have.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import grpc
import numpy as np
from grpc import aio

from serving.benchmarking import helper_process, process_usage, turns

PREDICT = '/tensorflow.serving.PredictionService/Predict'
_CALL_SECONDS = 60.0
_CHANNEL_OPTIONS = (
  # Channels to the same address would share one connection.
  ('grpc.use_local_subchannel_pool', 1),
  ('grpc.max_receive_message_length', -1),
  ('grpc.max_send_message_length', -1),
)


class Load(NamedTuple):
  """What to do.

  Attributes:
    address: of the server.
    pid: its process.
    request: a serialised `PredictRequest`.
    num_clients: how many call at the same time.
  """

  address: str
  pid: int
  request: bytes
  num_clients: int


class LoadGenerator:
  """The clients, seen from the process that measures."""

  def __init__(self, pipe: helper_process.Pipe):
    self._pipe = pipe

  def run(self, load: Load, seconds: float) -> turns.Sample:
    """Calls for so long, and waits for the answers still awaited then.

    Raises:
      HelperError: if a call fails.
    """
    self._pipe.send((load, seconds))
    return helper_process.receive(self._pipe)


@contextlib.contextmanager
def running() -> Iterator[LoadGenerator]:
  """Runs a load generator in a process of its own."""
  with helper_process.running(_generate, 'load-generator') as pipe:
    yield LoadGenerator(pipe)


def _generate(pipe: helper_process.Pipe) -> None:
  asyncio.run(_Clients().obey(pipe))


class _Clients:
  """Keeps its connections from turn to turn."""

  def __init__(self):
    self._channels: dict[str, list[aio.Channel]] = {}

  async def obey(self, pipe: helper_process.Pipe) -> None:
    """Does what comes through the pipe until it is closed."""
    while True:
      try:
        load, seconds = await asyncio.to_thread(pipe.recv)
      except EOFError:
        break
      try:
        answer = await self._run(load, seconds)
      except grpc.RpcError as error:
        answer = helper_process.HelperError(
          f'{load.address} answered {error.code().name}: {error.details()}'
        )
      pipe.send(answer)
    await asyncio.gather(*(channel.close() for part in self._channels.values() for channel in part))

  async def _run(self, load: Load, seconds: float) -> turns.Sample:
    channels = await self._connected(load)
    began, began_cpu = time.perf_counter(), process_usage.cpu_seconds(load.pid)
    latencies = await asyncio.gather(
      *(_call_until(channel, load.request, began + seconds) for channel in channels)
    )
    seconds = time.perf_counter() - began
    cpu_seconds = process_usage.cpu_seconds(load.pid) - began_cpu
    return turns.Sample(seconds, np.concatenate(latencies), cpu_seconds)

  async def _connected(self, load: Load) -> list[aio.Channel]:
    channels = self._channels.setdefault(load.address, [])
    while len(channels) < load.num_clients:
      channels.append(aio.insecure_channel(load.address, options=_CHANNEL_OPTIONS))
    channels = channels[: load.num_clients]
    await asyncio.gather(
      *(asyncio.wait_for(channel.channel_ready(), _CALL_SECONDS) for channel in channels)
    )
    return channels


async def _call_until(channel: aio.Channel, request: bytes, end: float) -> list[float]:
  """Calls one after the other, at least once; returns the seconds of each."""
  predict = channel.unary_unary(PREDICT)
  latencies = []
  began = time.perf_counter()
  while not latencies or began < end:
    await predict(request, timeout=_CALL_SECONDS)
    now = time.perf_counter()
    latencies.append(now - began)
    began = now
  return latencies
