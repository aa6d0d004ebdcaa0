"""Counts the ticks that a robot misses while its server is loaded, reloaded, stalled and restarted.

  python -m serving.ticks --export_dir=exports/demo

Starts a server on a copy of the export and acts at 50 Hz, adapting meanwhile once a second: alone,
beside other clients, while a new version is published, while the server stands still for half a
second, and while it is restarted. A tick is missed when no fresh action is there before the next
one; the client then holds the last. Prints a table, then one JSON object per line. With --server it
acts on a server that is there already, alone and beside other clients only.
"""

import contextlib
import json
import multiprocessing
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from absl import app, flags

from pearl_tf.programs import program
from serving import client

_MODEL = 'pearl'
_STALL_SECONDS = 0.5
_START_SECONDS = 120.0
# Of a tick, for the call; the rest is the robot's own.
_SHARE = 0.75
_PATIENT = client.Deadlines(act=60.0, adapt=60.0, begin=60.0, connect=60.0)


class Ticks(NamedTuple):
  """What one stretch of acting was like.

  Attributes:
    phase: what happened meanwhile.
    ticks: how many there were.
    missed: ticks without a fresh action in time.
    worst_ms: the longest tick.
    median_ms: the median of all.
    versions: the versions that acted.
  """

  phase: str
  ticks: int
  missed: int
  worst_ms: float
  median_ms: float
  versions: list[int]


def act(session: client.Session, observation_size: int, *, phase: str, number: int, hz: float):
  """Acts for a number of ticks and adapts once a second in the background.

  Args:
    session: in an episode; one that holds.
    observation_size: `O`.
    phase: for the record.
    number: of ticks.
    hz: ticks per second.

  Returns:
    A `Ticks`.
  """
  random = np.random.default_rng(0)
  seconds, missed, versions, reward = [], 0, set(), None
  start = time.monotonic()
  for tick in range(number):
    time.sleep(max(0.0, start + tick / hz - time.monotonic()))
    before = time.monotonic()
    try:
      action = session.step(random.uniform(size=observation_size), reward, timeout=_SHARE / hz)
      is_fresh, reward = action.error is None, 0.0
      versions.add(action.version)
    except client.errors.CallError:  # Nothing to hold.
      is_fresh, reward = False, None
    seconds.append(time.monotonic() - before)
    missed += not is_fresh or seconds[-1] > 1 / hz
    if (tick + 1) % max(1, int(hz)) == 0:
      session.adapt_in_background(redraw=True)
  worst, median = max(seconds) * 1e3, float(np.median(seconds)) * 1e3
  return Ticks(phase, number, missed, round(worst, 2), round(median, 2), sorted(versions))


class Server:
  """`serving.server` on a copy of an export, at an address that stays."""

  def __init__(self, export_dir: pathlib.Path, folder: pathlib.Path):
    """Copies the newest version and starts a server.

    Raises:
      ValueError: if there is no version.
      CallError: if the server does not get ready.
    """
    versions = [path for path in (export_dir / _MODEL).glob('*/') if path.name.isdecimal()]
    if not versions:
      raise ValueError(f'{export_dir / _MODEL} has no version; serving.export writes one')
    self._source = max(versions, key=lambda path: int(path.name))
    self._base_path = folder / _MODEL
    self._number = 0
    with socket.socket() as probe:
      probe.bind(('127.0.0.1', 0))
      self.address = f'127.0.0.1:{probe.getsockname()[1]}'
    self._publish()
    self._log = (folder / 'log.txt').open('wb')
    self._start()

  def reload(self) -> None:
    """Adds a version; returns when the server has taken it up by itself."""
    self._publish()
    with client.connect(self.address, client.Options(deadlines=_PATIENT)) as model:
      while model.describe()[0] != self._number:
        time.sleep(0.1)

  def _publish(self) -> None:
    self._number += 1
    staged = self._base_path / f'.tmp-{self._number}'
    shutil.copytree(self._source, staged)
    staged.rename(self._base_path / str(self._number))

  def stall(self) -> None:
    """Stops the process for half a second."""
    self._process.send_signal(signal.SIGSTOP)
    time.sleep(_STALL_SECONDS)
    self._process.send_signal(signal.SIGCONT)

  def restart(self) -> None:
    """Ends the server and starts it again; returns when it is ready."""
    self.end()
    self._start()

  def end(self) -> None:
    """Ends the server."""
    self._process.terminate()
    self._process.wait()

  def _start(self) -> None:
    port = self.address.rpartition(':')[2]
    self._process = subprocess.Popen(
      [
        *(sys.executable, '-m', 'serving.server', f'--model_name={_MODEL}'),
        *(f'--model_base_path={self._base_path}', f'--port={port}'),
      ],
      stdout=self._log,
      stderr=subprocess.STDOUT,
    )
    options = client.Options(deadlines=_PATIENT)
    client.connect(self.address, options, wait_seconds=_START_SECONDS).close()


@contextlib.contextmanager
def others(address: str, number: int, hz: float) -> Iterator[None]:
  """Lets other clients act in a process of their own while the block runs."""
  context = multiprocessing.get_context('spawn')
  is_acting, is_over = context.Event(), context.Event()
  process = context.Process(target=_act_as_others, args=(address, number, hz, is_acting, is_over))
  process.start()
  try:
    while not is_acting.wait(0.1):
      if not process.is_alive():
        raise RuntimeError(f'the other clients ended with {process.exitcode}')
    yield
  finally:
    is_over.set()
    process.join()


def _act_as_others(address: str, number: int, hz: float, is_acting, is_over) -> None:
  barrier = threading.Barrier(number, is_acting.set)

  def live(seed: int) -> None:
    options = client.Options(deadlines=_PATIENT)
    with (
      client.connect(address, options) as model,
      client.Session(model, seed=seed) as session,
    ):
      observation = np.zeros([session.begin_episode().sizes.observation_size])
      barrier.wait()
      start, tick = time.monotonic() + seed / number / hz, 0
      while not is_over.wait(max(0.0, start + tick / hz - time.monotonic())):
        session.step(observation)
        tick = max(tick + 1, int((time.monotonic() - start) * hz))

  threads = [threading.Thread(target=live, args=(seed,)) for seed in range(number)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()


def measure(
  address: str, server: Server | None, *, seconds: float, clients: int, client_hz: float, hz: float
) -> Iterator[Ticks]:
  """Acts through all that may happen to a server.

  Args:
    address: of the server.
    server: to be reloaded, stalled and restarted; None for one that is left alone.
    seconds: of each phase; that of the restart lasts until the server is there again, too.
    clients: number of other clients.
    client_hz: how often each of them acts.
    hz: ticks per second.

  Yields:
    A `Ticks` for each phase.
  """

  def during(phase: str, event: Callable[[], None] | None = None) -> Iterator[Ticks]:
    if event is None:
      yield act(session, size, phase=phase, number=max(1, int(seconds * hz)), hz=hz)
      return
    # Half of the time while it happens, and on until it is over; half of it afterwards.
    number = max(1, int(seconds * hz / 2))
    thread = threading.Thread(target=event)
    thread.start()
    parts = [act(session, size, phase=phase, number=number, hz=hz)]
    while thread.is_alive():
      parts.append(act(session, size, phase=phase, number=int(hz), hz=hz))
    yield Ticks(
      phase,
      sum(part.ticks for part in parts),
      sum(part.missed for part in parts),
      max(part.worst_ms for part in parts),
      round(float(np.median([part.median_ms for part in parts])), 2),
      sorted({version for part in parts for version in part.versions}),
    )
    yield act(session, size, phase='  then', number=number, hz=hz)

  with (
    client.connect(address, client.Options(model_name=_MODEL)) as model,
    client.Session(model, on_failure='hold', max_age_seconds=3600.0) as session,
  ):
    size = session.begin_episode().sizes.observation_size
    yield from during('alone')
    with others(address, clients, client_hz):
      yield from during(f'{clients} others')
      if server is not None:
        yield from during(f'{clients} others, reload', server.reload)
    if server is not None:
      yield from during('reload', server.reload)
      yield from during('stalled 0.5 s', server.stall)
      yield from during('restart', server.restart)


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string('export_dir', None, 'What serving.export wrote.')
  flags.DEFINE_string('server', None, 'A server to act on instead, host:port.')
  flags.DEFINE_float('seconds', 10.0, 'How long each phase lasts.', 0.001)
  flags.DEFINE_integer('clients', 32, 'How many other clients there are.', lower_bound=1)
  flags.DEFINE_float('client_hz', 10.0, 'How often each of them acts, per second.', 0.001)
  flags.DEFINE_float('hz', 50.0, 'Ticks per second.', 1.0)


def main(argv: list[str]) -> None:
  """Measures and prints."""
  options = flags.FLAGS
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  if (options.export_dir is None) == (options.server is None):
    raise app.UsageError('give --export_dir or --server')
  import rich.console
  import rich.table

  table = rich.table.Table(title=f'ticks of {1e3 / options.hz:g} ms')
  for column in Ticks._fields:
    table.add_column(column.replace('_', ' '), justify='left' if column == 'phase' else 'right')
  records = []
  with contextlib.ExitStack() as stack:
    server, address = None, options.server
    if address is None:
      folder = stack.enter_context(tempfile.TemporaryDirectory())
      server = Server(pathlib.Path(options.export_dir), pathlib.Path(folder))
      stack.callback(server.end)
      address = server.address
    for record in measure(
      address,
      server,
      seconds=options.seconds,
      clients=options.clients,
      client_hz=options.client_hz,
      hz=options.hz,
    ):
      print(f'{record.phase}: {record.missed} of {record.ticks}', file=sys.stderr, flush=True)
      records.append(record)
      table.add_row(*map(str, record))
  rich.console.Console().print(table)
  for record in records:
    print(json.dumps(record._asdict()))


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
