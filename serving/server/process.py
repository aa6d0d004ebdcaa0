"""A server in a process of its own, for as long as a block runs: demo, benchmark and tests."""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping

from serving.server import options

_POLL_SECONDS = 0.05
_SHOWN = 4000


@dataclasses.dataclass(frozen=True)
class Running:
  """A server that is ready.

  Attributes:
    address: where gRPC is spoken.
    rest_address: where HTTP is spoken, None if it is off.
    process: the process.
    log: what it has printed so far goes to this file.
  """

  address: str
  rest_address: str | None
  process: subprocess.Popen
  log: pathlib.Path


class StartError(RuntimeError):
  """The process ended, or was not ready in time; the message holds what it printed."""


@contextlib.contextmanager
def running(
  settings: options.ServerOptions,
  *,
  timeout_seconds: float = 120.0,
  environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
  """Starts `python -m serving.server` and waits until it is ready; drains it in the end.

  Args:
    settings: how to serve; port 0 takes any free port.
    timeout_seconds: how long to wait.
    environment: variables to add.

  Raises:
    StartError: if it does not get ready.
  """
  with tempfile.TemporaryDirectory() as folder:
    ready = pathlib.Path(folder, 'ready.json')
    log = pathlib.Path(folder, 'log.txt')
    settings = dataclasses.replace(settings, ready_file=str(ready))
    with log.open('wb') as output:
      process = subprocess.Popen(
        [sys.executable, '-m', 'serving.server', *settings.to_flags()],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, **_python_path(), **(environment or {})},
      )
    try:
      addresses = _wait(process, ready, log, timeout_seconds)
      yield Running(addresses['address'], addresses['rest_address'], process, log)
    finally:
      _end(process, settings.grace_seconds)


def _wait(
  process: subprocess.Popen, ready: pathlib.Path, log: pathlib.Path, timeout_seconds: float
) -> dict:
  deadline = time.monotonic() + timeout_seconds
  while not ready.is_file():
    if process.poll() is not None:
      raise StartError(f'the server ended with {process.returncode}: {_tail(log)}')
    if time.monotonic() > deadline:
      raise StartError(f'the server was not ready after {timeout_seconds} s: {_tail(log)}')
    time.sleep(_POLL_SECONDS)
  return json.loads(ready.read_text())


def _end(process: subprocess.Popen, grace_seconds: float) -> None:
  process.terminate()
  try:
    process.wait(grace_seconds + 10)
  except subprocess.TimeoutExpired:
    process.kill()
    process.wait()


def _tail(log: pathlib.Path) -> str:
  return log.read_text(errors='replace')[-_SHOWN:]


def _python_path() -> dict[str, str]:
  """Lets the process find this package wherever it was imported from."""
  root = str(pathlib.Path(__file__).resolve().parents[2])
  return {'PYTHONPATH': os.pathsep.join(filter(None, (root, os.environ.get('PYTHONPATH'))))}
