"""Standard output and standard error that nobody has to read.

A reader that ends (`| head`), a terminal that closes, a full disk behind a redirection: work of
hours does not depend on them. What cannot be written is dropped.
"""

import errno
import io
import os
import sys

# The reader has gone and wants no more: nothing to complain of.
_READER_ENDED = (errno.EPIPE, errno.EIO)


class _Sink(io.FileIO):
  """A descriptor; after the first error it takes everything and writes nothing."""

  error: OSError | None = None

  def write(self, data) -> int:
    if self.error is None:
      try:
        return super().write(data)
      except OSError as error:
        self.error = error
    return len(data)


def make_dispensable() -> None:
  """Replaces both streams, those that were closed from the start by ones that lead nowhere.

  Without that, the next file that is opened would take the place of standard output, and be written
  to by every library that prints.
  """
  for descriptor in range(3):
    try:
      os.fstat(descriptor)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # Takes the lowest number that is free: this one.
  sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)


def failure() -> OSError | None:
  """Returns why something that somebody wanted could not be written, if so."""
  for stream in (sys.stdout, sys.stderr):
    stream.flush()
    error = getattr(getattr(getattr(stream, 'buffer', None), 'raw', None), 'error', None)
    if error is not None and error.errno not in _READER_ENDED:
      return error
  return None


def _stream(descriptor: int, former: io.TextIOWrapper | None) -> io.TextIOWrapper:
  raw = _Sink(descriptor, 'w', closefd=False)
  return io.TextIOWrapper(
    io.BufferedWriter(raw),
    encoding=getattr(former, 'encoding', 'utf-8'),
    errors=getattr(former, 'errors', 'backslashreplace'),
    line_buffering=descriptor == 2 or raw.isatty(),
  )
