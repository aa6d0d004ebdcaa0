"""Measures how fast the server answers on this machine, beside others that serve the same export.

  python -m serving.benchmark
  python -m serving.benchmark --export_dir=exports/demo --servers=stock=localhost:8510

Starts this server on an export (without one on an untrained agent of the published experiments'
sizes, as the cost of a call depends on sizes alone). Clients then call `act` and `update` without a
pause. All servers take turns, so that a machine that wanders slows all of them alike; --servers
adds such as run already, name=host:port each, whose model `pearl` is the same. Prints a table, then
one JSON object per line. Use a machine that does nothing else: clients and servers share it.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import app, flags, logging

from pearl_tf.programs import program

_MODEL = 'pearl'
_PREDICT = '/tensorflow.serving.PredictionService/Predict'
_HERE = 'here'
_CALL_SECONDS = 60.0


class Turn(NamedTuple):
  """What one server did in one turn.

  Attributes:
    seconds: how long it took.
    latencies: seconds of each call, `[N] float64`.
  """

  seconds: float
  latencies: np.ndarray

  @property
  def rate(self) -> float:
    """Calls per second."""
    return len(self.latencies) / self.seconds


class Clients:
  """Connections to one server, one for each client, as on different machines."""

  def __init__(self, address: str):
    self._address = address
    self._channels = []

  async def call(self, request: bytes, number: int, seconds: float) -> Turn:
    """Calls for so long, each client at least once, the next when an answer is there.

    Args:
      request: a serialised PredictRequest.
      number: of clients.
      seconds: how long.

    Raises:
      grpc.RpcError: if a call fails.
    """
    from grpc import aio

    while len(self._channels) < number:
      # Or channels to the same address share one connection.
      options = [('grpc.use_local_subchannel_pool', 1)]
      self._channels.append(aio.insecure_channel(self._address, options=options))
    began = time.perf_counter()
    latencies = await asyncio.gather(
      *(_call_until(channel, request, began + seconds) for channel in self._channels[:number])
    )
    return Turn(time.perf_counter() - began, np.concatenate(latencies))

  async def close(self) -> None:
    """Closes the connections."""
    await asyncio.gather(*(channel.close() for channel in self._channels))


async def _call_until(channel, request: bytes, end: float) -> list[float]:
  predict = channel.unary_unary(_PREDICT)
  latencies, began = [], time.perf_counter()
  while not latencies or began < end:
    await predict(request, timeout=_CALL_SECONDS, wait_for_ready=True)
    now = time.perf_counter()
    latencies.append(now - began)
    began = now
  return latencies


async def take_turns(
  servers: Mapping[str, Clients], request: bytes, number: int, *, seconds: float, turns: int
) -> dict[str, list[Turn]]:
  """Lets the servers answer in turns, every other round in reverse; the first does not count.

  Args:
    servers: clients by name.
    request: a serialised PredictRequest.
    number: of clients.
    seconds: of a turn.
    turns: of each server.
  """
  found, order = {name: [] for name in servers}, list(servers)
  for turn in range(turns + 1):
    for name in order:
      done = await servers[name].call(request, number, seconds)
      if turn:
        found[name].append(done)
    order.reverse()
  return found


def requests(address: str) -> dict[str, bytes]:
  """Returns serialised requests of one row by what the report calls them.

  Args:
    address: of a server of the model, to ask it for sizes and for a belief.
  """
  from serving import client
  from serving.client import channel, wire

  random = np.random.default_rng(0)
  budget = channel.Budget(_CALL_SECONDS, '')
  with client.connect(address, wait_seconds=_CALL_SECONDS) as model:
    version, sizes = model.describe()

    def context(length: int) -> dict[str, np.ndarray]:
      rows = random.uniform(0.1, 1.0, [1, length, sizes.context_size]).astype(np.float32)
      return {'context': rows, 'num_transitions': np.full([1], length, np.int32)}

    _, belief = model.predict('encode', context(1), budget, version)
  belief = {name: belief[name] for name in ('eta', 'precision', 'count', 'latent_tag')}
  calls = {
    'act': {
      'observation': random.uniform(size=[1, sizes.observation_size]).astype(np.float32),
      'z': random.uniform(size=[1, sizes.latent_size]).astype(np.float32),
      'latent_tag': belief['latent_tag'],
    }
  }
  if sizes.has_update:
    calls |= {f'update T={length}': context(length) | belief for length in (64, 200)}
  return {
    name: wire.predict_request(
      wire.model_spec(_MODEL, None, signature=name.split()[0]), inputs
    ).SerializeToString()
    for name, inputs in calls.items()
  }


def record(
  call: str, number: int, name: str, turns: Sequence[Turn], others: Mapping[str, Sequence[Turn]]
) -> dict:
  """Returns the figures of a server: medians of its turns, and of its shares of others' rates."""
  latencies = np.concatenate([turn.latencies for turn in turns])
  shares = {
    f'of_{other}': round(
      statistics.median(a.rate / b.rate for a, b in zip(turns, theirs, strict=True)), 2
    )
    for other, theirs in others.items()
    if name == _HERE != other
  }
  return {
    'call': call,
    'clients': number,
    'server': name,
    'calls_per_second': round(statistics.median(turn.rate for turn in turns)),
    'p50_ms': round(float(np.quantile(latencies, 0.5)) * 1e3, 2),
    'p99_ms': round(float(np.quantile(latencies, 0.99)) * 1e3, 2),
    **shares,
  }


async def measure(
  addresses: Mapping[str, str], *, clients: Sequence[int], seconds: float, turns: int
) -> list[dict]:
  """Lets all servers take turns at each call and number of clients; returns the figures."""
  calls = await asyncio.to_thread(requests, addresses[_HERE])
  servers = {name: Clients(address) for name, address in addresses.items()}
  records = []
  try:
    for call, request in calls.items():
      for number in clients:
        print(f'{call}, clients: {number}', file=sys.stderr, flush=True)
        found = await take_turns(servers, request, number, seconds=seconds, turns=turns)
        records += [record(call, number, name, done, found) for name, done in found.items()]
  finally:
    await asyncio.gather(*(server.close() for server in servers.values()))
  return records


def untrained_export(folder: pathlib.Path) -> pathlib.Path:
  """Exports an agent that has learnt nothing, of HalfCheetah and the widths of the paper."""
  import tensorflow as tf

  from pearl_tf.data import specs
  from pearl_tf.export import exporter, manifest
  from pearl_tf.networks import actor, encoder

  domain = specs.DomainSpec(observation_size=20, action_size=6)
  context_encoder = encoder.GaussianEncoder(
    specs.context_spec(domain), latent_size=5, hidden_units=(200, 200, 200)
  )
  policy = actor.LatentActor(
    (domain.observation, tf.TensorSpec([5], tf.float32, 'latent')),
    action_size=domain.action_size,
    hidden_units=(300, 300, 300),
  )
  for network in (context_encoder, policy):
    network.create_variables()
  target = exporter.Exporter(domain, folder, context_encoder=context_encoder, actor_network=policy)
  target.export(manifest.Origin('untrained', '', seed=0, train_step=0, env_steps=0))
  return target.directory


def resident_mib(pid: int) -> int:
  """Returns the memory of a process."""
  pages = int(pathlib.Path(f'/proc/{pid}/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE') // 2**20


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string(
    'export_dir', None, 'What serving.export wrote; by default an untrained agent is exported.'
  )
  flags.DEFINE_list('servers', [], 'Others that run already: name=host:port, plaintext.')
  flags.DEFINE_list('clients', ['1', '8', '32'], 'How many clients call at the same time.')
  flags.DEFINE_float('seconds', 1.5, 'How long a turn is.', 0.001)
  flags.DEFINE_integer('turns', 5, 'How many turns each server has.', lower_bound=1)


def main(argv: list[str]) -> None:
  """Measures and reports."""
  options = flags.FLAGS
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  others = dict(text.partition('=')[::2] for text in options.servers)
  if not all(others.values()) or _HERE in others:
    raise app.UsageError(f'--servers must be name=host:port,..., got {options.servers}')
  if not all(text.isdecimal() and int(text) for text in options.clients):
    raise app.UsageError(f'--clients must be positive numbers like 1,8, got {options.clients}')
  logging.set_verbosity(logging.WARNING)  # Saving a model logs a line for each of its variables.
  import rich.console
  import rich.table

  from serving.server import options as options_lib
  from serving.server import process

  with tempfile.TemporaryDirectory() as folder:
    export = pathlib.Path(options.export_dir or untrained_export(pathlib.Path(folder)))
    settings = options_lib.ServerOptions(
      model_name=_MODEL, model_base_path=str(export.resolve() / _MODEL), port=0
    )
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
      try:
        server = stack.enter_context(process.running(settings))
      except process.StartError as error:
        sys.exit(f'error: {error}')
      life = {'ready_after_seconds': round(time.monotonic() - began, 1)}
      life['mib_at_first'] = resident_mib(server.process.pid)
      records = asyncio.run(
        measure(
          {_HERE: server.address, **others},
          clients=[int(text) for text in options.clients],
          seconds=options.seconds,
          turns=options.turns,
        )
      )
      life['mib_afterwards'] = resident_mib(server.process.pid)
  table = rich.table.Table(title=', '.join(f'{name}: {value}' for name, value in life.items()))
  columns = list(records[0])
  for column in columns:
    table.add_column(column.replace('_', ' '), justify='right')
  for line in records:
    table.add_row(*(str(line.get(column, '')) for column in columns))
  rich.console.Console(width=120).print(table)
  for line in [life | {'load': os.getloadavg()}, *records]:
    print(json.dumps(line))


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
