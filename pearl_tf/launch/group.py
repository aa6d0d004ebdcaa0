"""A group of processes on this host: started, watched, started again, and stopped in order.

This module knows nothing of what the processes do.
"""

import ctypes
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

_FIRST_BACK_OFF_SECONDS = 1.0
_LONGEST_BACK_OFF_SECONDS = 60.0
# A process that lived as long as this was well; its next death is a first one.
_WELL_SECONDS = 60.0
# Deaths in a row after which a process is given up, by exit code: wrong flags stay wrong, and what
# its user has to mend is seldom mended by another try.
_MOST_DEATHS = {2: 1, 1: 2}
_MOST_OTHER_DEATHS = 5
# A learner finishes what it does and saves.
_KILL_SECONDS = 600.0
_POLL_SECONDS = 0.1
_LOG_LINES = 5


class GroupError(RuntimeError):
  """A process cannot be kept alive; the message has the end of what it said."""


@dataclasses.dataclass(frozen=True)
class Role:
  """What one process is.

  Attributes:
    name: of the process and its log.
    command: its command line.
    is_awaited: whether the group's work is done when it, and all others like it, have ended well.
  """

  name: str
  command: Sequence[str]
  is_awaited: bool = False


class _Member:
  """The present process of a role, and the deaths of former ones."""

  def __init__(self, role: Role, log: pathlib.Path, environment: Mapping[str, str]):
    self.role = role
    self.log = log
    self._environment = environment
    self.restarts = -1
    self.is_done = False
    self._deaths = 0
    self._start_at = 0.0
    self.process: subprocess.Popen | None = None

  def start(self) -> None:
    with self.log.open('ab') as log:
      self.process = subprocess.Popen(
        self.role.command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=self._environment,
        start_new_session=True,  # Ctrl-C is the group's matter.
        preexec_fn=_end_with_parent,
      )
    self.restarts += 1
    self._started = time.monotonic()

  @property
  def is_running(self) -> bool:
    return self.process is not None and self.process.poll() is None

  def watch(self, say: Callable[[str], None]) -> None:
    """Notices an end, and starts a process again when its time has come."""
    if self.is_done or self.is_running:
      return
    if self.process is not None:
      code, lived = self.process.returncode, time.monotonic() - self._started
      self.process = None
      if code == 0:
        self.is_done = True
        return
      self._deaths = 1 if lived > _WELL_SECONDS else self._deaths + 1
      if self._deaths >= _MOST_DEATHS.get(code, _MOST_OTHER_DEATHS):
        raise GroupError(
          f'{self.role.name} ended with {_reason(code)}, {self._deaths} times in a row:\n'
          f'{self.last_lines()}\nAll of it is in {self.log}'
        )
      delay = min(_FIRST_BACK_OFF_SECONDS * 2 ** (self._deaths - 1), _LONGEST_BACK_OFF_SECONDS)
      self._start_at = time.monotonic() + delay
      say(f'{self.role.name} ended with {_reason(code)}; starts again in {delay:.0f} s')
    if time.monotonic() >= self._start_at:
      self.start()

  def last_lines(self) -> str:
    lines = self.log.read_text(errors='replace').splitlines()
    return '\n'.join(f'  {line}' for line in lines[-_LOG_LINES:])

  def end(self) -> None:
    """Asks the process to end, and waits for it; kills it when it takes too long."""
    if self.is_running:
      self.process.terminate()
    self.wait(_KILL_SECONDS)

  def wait(self, seconds: float | None) -> None:
    if self.process is None:
      return
    try:
      self.process.wait(seconds)
    except subprocess.TimeoutExpired:
      self.process.kill()
      self.process.wait()


class Group:
  """Processes, in the order in which they are stopped."""

  def __init__(
    self,
    roles: Sequence[Role],
    logs: pathlib.Path,
    *,
    say: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
  ):
    """Names the processes; none is started yet.

    Args:
      roles: the first is stopped first, and started last.
      logs: folder of their output, a file each.
      say: told what happens to them, a line at a time.
      environment: theirs; this process's own by default.
    """
    logs.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ if environment is None else environment)
    self._members = [_Member(role, logs / f'{role.name}.log', environment) for role in roles]
    self._say = say

  def run(self, *, is_stopping: Callable[[], bool], tick: Callable[[], None]) -> bool:
    """Keeps the processes alive until the work is done or somebody asks to stop.

    Args:
      is_stopping: asked all the time.
      tick: called all the time.

    Returns:
      Whether the work is done.

    Raises:
      GroupError: if a process ends again and again, or says that starting it again is no use.
    """
    try:
      for member in reversed(self._members):
        member.start()
      while not is_stopping():
        for member in self._members:
          member.watch(self._say)
        if all(member.is_done for member in self._members if member.role.is_awaited):
          return True
        tick()
        time.sleep(_POLL_SECONDS)
      return False
    finally:
      for member in self._members:
        member.end()

  def state(self) -> dict[str, tuple[bool, int]]:
    """Returns by name whether each process runs or is done, and how often it was started again."""
    return {
      member.role.name: (member.is_running or member.is_done, member.restarts)
      for member in self._members
    }

  def process_id(self, name: str) -> int | None:
    """Returns the id of the process of a role, None while there is none."""
    (member,) = (member for member in self._members if member.role.name == name)
    return member.process.pid if member.is_running else None


def free_port() -> int:
  """Returns a TCP port that nobody listens at now."""
  with socket.socket() as probe:
    probe.bind(('', 0))
    return probe.getsockname()[1]


def _reason(code: int) -> str:
  return signal.Signals(-code).name if code < 0 else f'exit code {code}'


def _end_with_parent() -> None:
  """Has Linux end the process that is about to start when the group is gone."""
  pr_set_pdeathsig = 1
  ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
