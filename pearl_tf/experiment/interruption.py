"""Ctrl-C and SIGTERM as a polite request: finish what is short, save, leave."""

import os
import signal
from types import FrameType


class Interruption:
  """A context in which the first SIGINT or SIGTERM only sets a flag, and says so.

  A second signal interrupts at once, as if there were no handler. Only the main thread may enter.
  """

  SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self):
    """Starts with no request."""
    self.requested: signal.Signals | None = None
    self._former = {}

  def __enter__(self) -> 'Interruption':
    for number in self.SIGNALS:
      self._former[number] = signal.signal(number, self._request)
    return self

  def __exit__(self, *unused_exception) -> None:
    for number, handler in self._former.items():
      signal.signal(number, handler)

  def _request(self, number: int, unused_frame: FrameType | None) -> None:
    if self.requested is not None:
      raise KeyboardInterrupt
    self.requested = signal.Signals(number)
    # A handler may interrupt a print, hence the bare write.
    text = f'{self.requested.name}: finishing this phase, then saving; a second one stops at once\n'
    os.write(2, text.encode())
