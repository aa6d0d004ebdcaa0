"""What another process has used so far, as Linux counts it."""

import os
import pathlib

_TICKS_PER_SECOND = os.sysconf('SC_CLK_TCK')
# Of the fields behind the name in /proc/PID/stat: time in user and in system mode.
_USER, _SYSTEM = 11, 12


def cpu_seconds(pid: int) -> float:
  """Returns the processor time of all threads of a process; it grows in steps of 10 ms."""
  # The name, in brackets, may hold blanks.
  fields = pathlib.Path('/proc', str(pid), 'stat').read_text().rpartition(')')[2].split()
  return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS_PER_SECOND


def resident_mib(pid: int) -> float:
  """Returns what a process holds in memory, in MiB.

  Raises:
    ProcessLookupError: if it has ended.
  """
  for line in pathlib.Path('/proc', str(pid), 'status').read_text().splitlines():
    if line.startswith('VmRSS:'):
      return int(line.split()[1]) / 1024
  raise ProcessLookupError(f'process {pid} has ended')
