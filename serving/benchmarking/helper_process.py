"""Processes that serve a measurement: load generator and echo server do not share a GIL with it.

Spawned, not forked, because TensorFlow's threads do not survive a fork; what they run must import
no TensorFlow, which would make them slow to start and large.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from multiprocessing import connection

_GRACE_SECONDS = 5.0

Pipe = connection.Connection


class HelperError(RuntimeError):
  """A helper process ended, or could not do what it was asked to."""


@contextlib.contextmanager
def running(work: Callable[[Pipe], None], name: str) -> Iterator[Pipe]:
  """Runs a function in a process while the block runs; closing the pipe asks it to return.

  Args:
    work: a function of a module; gets the other end of the pipe and returns when it is closed.
    name: of the process.

  Yields:
    Our end of the pipe.
  """
  spawning = multiprocessing.get_context('spawn')
  ours, theirs = spawning.Pipe()
  process = spawning.Process(target=_work_in_process, args=(work, theirs), name=name, daemon=True)
  process.start()
  theirs.close()
  try:
    yield ours
  finally:
    ours.close()
    process.join(_GRACE_SECONDS)
    if process.is_alive():
      process.kill()
      process.join()


def receive(pipe: Pipe) -> object:
  """Returns what the process sends next.

  Raises:
    HelperError: if it sends such an error, or has ended.
  """
  try:
    answer = pipe.recv()
  except EOFError:
    raise HelperError('a helper process ended; its own message is above') from None
  if isinstance(answer, HelperError):
    raise answer
  return answer


def _work_in_process(work: Callable[[Pipe], None], pipe: Pipe) -> None:
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which closes the pipe.
  work(pipe)
