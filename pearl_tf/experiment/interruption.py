"""Ctrl-C and SIGTERM: a polite request to a training, the end of every other program.

A program calls `end_on_signals` when it starts: whatever it inherited (`nohup`, a shell's `&`), it
ends with 128 plus the number of the signal. Within an `Interruption` the first signal only asks.
Python's handlers run between two instructions of the main thread, hence not while that waits within
a library; a thread then ends the process.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A phase that takes longer than this after a request is taken for one that cannot be finished.
PHASE_SECONDS = 600.0
# What an interrupted program may take to clean up.
END_SECONDS = 15.0

_polite: 'Interruption | None' = None
_last: signal.Signals | None = None


class Interrupted(KeyboardInterrupt):
  """A signal asked to end at once."""


class Interruption:
  """A context in which the first signal only sets a flag, and says so.

  A second signal interrupts at once, as if there were no handler. Only the main thread may enter. A
  hang-up counts as a signal unless it is ignored, as `nohup` has it.
  """

  def __init__(self, say: Callable[[str], None] | None = None):
    """Starts with no request.

    Args:
      say: told what becomes of the first signal, from within its handler, so that it must not print
        to a stream that the handler may have interrupted; standard error by default.
    """
    self._say = say or write
    self.requested: signal.Signals | None = None
    self._is_asked = False
    self._former = {}

  def __enter__(self) -> 'Interruption':
    global _polite
    for number in _not_ignored():
      self._former[number] = signal.signal(number, self._request)
    _polite = self
    return self

  def __exit__(self, *unused_exception) -> None:
    global _polite
    _polite = None
    for number, handler in self._former.items():
      signal.signal(number, handler)

  def _request(self, number: int, frame: FrameType | None) -> None:
    global _last
    if self.requested is not None:
      _interrupt(number, frame)
    self.requested = _last = signal.Signals(number)
    self._say(f'{_last.name}: finishing this phase, then saving; a second one stops at once')

  def grant(self) -> float:
    """Returns the seconds that the process may go on after one more signal."""
    if self._is_asked:
      return END_SECONDS
    self._is_asked = True
    return PHASE_SECONDS


def write(text: str) -> None:
  """Writes a line to standard error, whatever else is being written."""
  with contextlib.suppress(OSError):
    os.write(2, f'{text}\n'.encode())


def exit_code() -> int:
  """Returns what a program ends with that was asked to stop: 130 for Ctrl-C, 143 for SIGTERM."""
  return 128 + (_last or signal.SIGINT)


def end_on_signals() -> None:
  """Makes every signal raise `Interrupted` and then end this process, from now on.

  Only the main thread may call it.
  """
  for number in _not_ignored():
    signal.signal(number, _interrupt)
  reading, writing = os.pipe()
  os.set_blocking(writing, False)
  signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
  os.register_at_fork(after_in_child=_let_go)
  threading.Thread(target=_watch, args=(reading,), name='signals', daemon=True).start()


def _let_go() -> None:
  """In a forked child: its signals are not its parent's."""
  signal.set_wakeup_fd(-1)
  for number in _not_ignored():
    signal.signal(number, signal.SIG_DFL)


def _not_ignored() -> list[signal.Signals]:
  """Returns the signals to handle; a hang-up that is ignored stays so, which nohup is for."""
  is_kept = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
  return [number for number in SIGNALS if number is not signal.SIGHUP or not is_kept]


def _interrupt(number: int, unused_frame: FrameType | None) -> None:
  global _last
  _last = signal.Signals(number)
  raise Interrupted


def _watch(descriptor: int) -> None:
  """Ends the process when it outlives a signal for too long."""
  while True:
    number = os.read(descriptor, 1)[0]
    if number in SIGNALS:
      seconds = END_SECONDS if _polite is None else _polite.grant()
      timer = threading.Timer(seconds, _end, [number])
      timer.daemon = True
      timer.start()


def _end(number: int) -> None:
  write('did not end within its time, ended')
  os._exit(128 + number)
