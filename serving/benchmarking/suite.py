"""All measurements of one run, in order, as records.

Every workload meets its floors in the same minute: the server, the server without batching, an echo
server and the bare session call take turns (`turns`).
"""

import contextlib
import pathlib
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serving.benchmarking import (
  echo_server,
  load_generator,
  machine,
  model_folder,
  process_usage,
  server_life,
  targets,
  turns,
  workloads,
)
from serving.model_server import servable

Record = dict[str, Any]
SERVED, UNBATCHED, ECHO, BARE = 'served', 'unbatched', 'echo', 'bare'
_UNBATCHED_WORKLOADS = ('act',)
_NUM_ROUNDS = 6
_NUM_RELOADS = 3


class Benchmark:
  """One run over one export."""

  def __init__(self, export_dir: str | pathlib.Path, *, seconds: float, clients: Sequence[int]):
    """Names what to measure; nothing is started yet.

    Args:
      export_dir: as `serving.export` wrote it; it is copied, not changed.
      seconds: how long each contender is called in each cell.
      clients: numbers of clients that call at the same time.

    Raises:
      ValueError: if seconds or a number of clients is not positive, or there are none.
    """
    if seconds <= 0:
      raise ValueError(f'seconds must be positive, got {seconds}')
    if not clients or min(clients) < 1:
      raise ValueError(f'numbers of clients must be positive, got {list(clients)}')
    self._export_dir = export_dir
    self._seconds = seconds
    self._clients = tuple(clients)

  def run(self, progress: Callable[[str], None]) -> list[Record]:
    """Measures everything; returns records of plain data.

    Args:
      progress: told what comes next.

    Raises:
      ValueError: if there is no such export, or its model refuses the calls.
      StartError, HelperError, grpc.RpcError: if a process cannot be started, or a call fails.
    """
    records = [{'part': 'machine', **machine.describe()}]
    with contextlib.ExitStack() as stack:
      scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
      folder = model_folder.ModelFolder(self._export_dir, scratch / workloads.MODEL)
      fixed = model_folder.ModelFolder(self._export_dir, scratch / 'fixed' / workloads.MODEL)
      progress('starting the servers')
      server = stack.enter_context(server_life.running(folder.base_path, enable_batching=True))
      unbatched = stack.enter_context(server_life.running(fixed.base_path, enable_batching=False))
      memory_mib = {'after_start': process_usage.resident_mib(server.pid)}
      model = servable.Servable.load(
        fixed.version_dir, name=workloads.MODEL, version=int(fixed.version_dir.name)
      )
      stack.callback(model.close)
      calls = workloads.build(model, fixed.version_dir)
      for workload in calls:
        for address in (server.address, unbatched.address):
          workloads.check(workload, server_life.predict(address, workload))
      servers = {
        SERVED: server,
        UNBATCHED: unbatched,
        ECHO: stack.enter_context(echo_server.running()),
      }
      generator = stack.enter_context(load_generator.running())
      for workload in calls:
        for num_clients in self._clients:
          progress(f'{workload.name}, clients: {num_clients}')
          contenders = _contenders(generator, servers, model, workload, num_clients)
          records += self._cell(workload, num_clients, contenders)
      memory_mib['after_load'] = process_usage.resident_mib(server.pid)
      progress('hot reloads')
      reloads = [server_life.reload(server.address, folder, calls[0]) for _ in range(_NUM_RELOADS)]
      memory_mib['after_reloads'] = process_usage.resident_mib(server.pid)
    records += _life(server, unbatched, reloads, memory_mib)
    return [*records, *targets.judge(records)]

  def _cell(
    self, workload: workloads.Workload, num_clients: int, contenders: Mapping[str, turns.Contender]
  ) -> list[Record]:
    samples = turns.take_turns(contenders, seconds=self._seconds, num_rounds=_NUM_ROUNDS)
    cell = {
      'workload': workload.name,
      'signature': workload.signature,
      'transitions': workload.num_transitions,
      'clients': num_clients,
    }
    figures = [
      {'part': 'calls', **cell, 'contender': name, **_figures(samples[name])} for name in contenders
    ]
    return [*figures, {'part': 'ratios', **cell, **_ratios(samples)}]


def _contenders(
  generator: load_generator.LoadGenerator,
  servers: Mapping[str, server_life.Started | echo_server.Started],
  model: servable.Servable,
  workload: workloads.Workload,
  num_clients: int,
) -> dict[str, turns.Contender]:
  def load(server: server_life.Started | echo_server.Started) -> turns.Contender:
    described = load_generator.Load(server.address, server.pid, workload.request, num_clients)
    return lambda seconds: generator.run(described, seconds)

  contenders = {
    name: load(server)
    for name, server in servers.items()
    if name != UNBATCHED or workload.signature in _UNBATCHED_WORKLOADS
  }
  return {**contenders, BARE: workloads.bare(model, workload)}


def _figures(samples: Sequence[turns.Sample]) -> Record:
  num_calls = sum(len(sample.latencies) for sample in samples)
  return {
    'calls_per_second': turns.median(samples, _rate),
    'p50_ms': 1000 * turns.median(samples, _latency),
    'p99_ms': 1000 * turns.quantile(samples, 0.99),
    'cpu_ms_per_call': 1000 * sum(sample.cpu_seconds for sample in samples) / num_calls,
    'calls': num_calls,
    'rounds': len(samples),
  }


def _ratios(samples: Mapping[str, Sequence[turns.Sample]]) -> Record:
  served = samples[SERVED]
  ratios = {
    'rate_to_echo': turns.ratio(served, samples[ECHO], _rate),
    'rate_to_bare': turns.ratio(served, samples[BARE], _rate),
    'p50_to_echo': turns.ratio(served, samples[ECHO], _latency),
    'p50_to_bare': turns.ratio(served, samples[BARE], _latency),
  }
  if UNBATCHED in samples:
    ratios['rate_to_unbatched'] = turns.ratio(served, samples[UNBATCHED], _rate)
  return ratios


def _life(
  server: server_life.Started,
  unbatched: server_life.Started,
  reloads: Sequence[server_life.Reload],
  memory_mib: Mapping[str, float],
) -> list[Record]:
  return [
    {'part': 'start_up', 'seconds': server.seconds, 'unbatched_seconds': unbatched.seconds},
    {
      'part': 'hot_reload',
      'seconds': statistics.median(reload.seconds for reload in reloads),
      'seconds_max': max(reload.seconds for reload in reloads),
      'slowest_call_ms': 1000 * max(reload.slowest_call_seconds for reload in reloads),
      'reloads': len(reloads),
    },
    {'part': 'memory_mib', **memory_mib},
  ]


def _rate(sample: turns.Sample) -> float:
  return sample.rate


def _latency(sample: turns.Sample) -> float:
  return sample.median_latency
