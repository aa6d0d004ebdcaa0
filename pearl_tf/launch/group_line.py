"""One line that says how a group of processes is doing, on a terminal drawn anew in place."""

import pathlib
import time
from collections.abc import Mapping

from rich import console as rich_console
from rich import live, text

from pearl_tf.experiment import metrics

_SECONDS = 1.0


class GroupLine:
  """The line, used as a context manager; where no terminal is, a new one an iteration."""

  def __init__(self, root: pathlib.Path):
    """Names the run folder, whose metrics are shown."""
    self._root = root
    self._console = rich_console.Console(highlight=False, markup=False, soft_wrap=True)
    self._live = live.Live(console=self._console, auto_refresh=False)
    self._shown_at = 0.0
    self._modified: list[float] = []
    self._records: list[dict] = []
    self._plain = ''

  def __enter__(self) -> 'GroupLine':
    if self._console.is_terminal:
      self._live.start()
    return self

  def __exit__(self, *unused_exception) -> None:
    self._live.stop()

  def say(self, message: str) -> None:
    """Prints a line that stays."""
    self._console.print(message)

  def show(self, state: Mapping[str, tuple[bool, int]]) -> None:
    """Shows the line, at most once a second.

    Args:
      state: by name of the process whether it is well, and how often it was started again.
    """
    if time.monotonic() - self._shown_at < _SECONDS:
      return
    self._shown_at = time.monotonic()
    self._read()
    parts = self._parts()
    parts.append(_of_processes(state))
    line = ' | '.join(parts)
    if self._console.is_terminal:
      self._live.update(text.Text(line, no_wrap=True, overflow='ellipsis'), refresh=True)
    elif parts[:-1] and parts[0] != self._plain:
      self._plain = parts[0]
      print(line, flush=True)

  def _read(self) -> None:
    files = (self._root, self._root / metrics.EVALUATOR_FOLDER)
    files = [folder / metrics.FILE_NAME for folder in files]
    modified = [path.stat().st_mtime for path in files if path.is_file()]
    if modified != self._modified and files[0].is_file():
      self._modified, self._records = modified, metrics.read(self._root)

  def _parts(self) -> list[str]:
    if not self._records:
      return []
    last = self._records[-1]
    parts = [
      f'iteration {last["iteration"]}',
      f'env steps {last["env_steps"]:,}',
      f'gradient steps {last["gradient_steps"]:,}',
    ]
    tested = [r for r in self._records if r.get('test/final_return') is not None]
    if tested:
      newest = tested[-1]
      parts.append(f'test return {newest["test/final_return"]:.1f} ({newest["iteration"]})')
    for name, value in (
      ('learner waits', 'learner/waiting_share'),
      ('actors wait', 'actors/waiting_share'),
    ):
      if last.get(value) is not None:
        parts.append(f'{name} {last[value]:.0%}')
    return parts


def _of_processes(state: Mapping[str, tuple[bool, int]]) -> str:
  down = [name for name, (is_well, _) in state.items() if not is_well]
  restarts = sum(restarts for _, restarts in state.values())
  said = f'{len(state) - len(down)}/{len(state)} processes'
  if down:
    said += f', down: {", ".join(down)}'
  return said + (f', {restarts} restarts' if restarts else '')
