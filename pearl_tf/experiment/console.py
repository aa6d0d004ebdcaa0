"""Tells the user how a run is doing: a live panel on a terminal, plain lines elsewhere.

This module only shows what it is told. The training loop calls `phase` when it turns to something
else and `update` once per iteration; where the numbers are kept is the matter of `metrics`.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

from rich import console as rich_console
from rich import live, panel, progress_bar, table, text

PHASES = ('collect', 'train', 'evaluate', 'checkpoint')
_REFRESHES_PER_SECOND = 4
_MIN_WIDTH = 50
_MAX_WIDTH = 100


class Console:
  """A view of a training run, used as a context manager.

  On a terminal it is a panel that is redrawn in place; when standard output is a file or a pipe, or
  the terminal is a dumb or very narrow one, it is one line of plain text per iteration without
  escape codes.

  The time left follows from the iterations of *this* process, so it is right after a resume too;
  the first of them, which may include the collection of the initial pool, is left out as soon as
  there is a second.
  """

  def __init__(
    self,
    *,
    num_iterations: int,
    total_env_steps: int | None = None,
    start_iteration: int = 0,
    start_gradient_steps: int = 0,
    best_return: float | None = None,
    title: str = 'PEARL',
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Prepares a view; entering the context starts it.

    Args:
      num_iterations: Iterations of the whole run, those of former processes included.
      total_env_steps: Env steps at the end of the run, shown beside the current ones.
      start_iteration: Iterations done by former processes.
      start_gradient_steps: Gradient steps done by former processes.
      best_return: The best test return so far, of former processes.
      title: Heading of the panel, for example the domain and the run folder.
      stream: Where to write; standard output by default.
      clock: Returns seconds; replaced in tests.

    Raises:
      ValueError: `num_iterations` is not positive or `start_iteration` is negative.
    """
    if num_iterations <= 0:
      raise ValueError(f'num_iterations must be positive, got {num_iterations}')
    if start_iteration < 0:
      raise ValueError(f'start_iteration must not be negative, got {start_iteration}')
    self._num_iterations = num_iterations
    self._total_env_steps = total_env_steps
    self._title = title
    self._stream = stream
    self._clock = clock
    self._iteration = start_iteration
    self._env_steps: int | None = None
    self._gradient_steps = start_gradient_steps
    self._gradient_steps_per_second: float | None = None
    self._test_return: float | None = None
    self._best_return = best_return
    self._phase = 'start'
    self._train_seconds = 0.0
    self._live: live.Live | None = None

  def __enter__(self) -> 'Console':
    self._stream = self._stream or sys.stdout
    self._start_time = self._phase_time = self._update_time = self._clock()
    self._first_update: tuple[int, float] | None = None
    self._start_iteration = self._iteration
    terminal = rich_console.Console(file=self._stream)
    if _is_interactive(self._stream) and terminal.width >= _MIN_WIDTH:
      self._live = live.Live(
        console=terminal,
        get_renderable=self._panel,
        refresh_per_second=_REFRESHES_PER_SECOND,
      )
      self._live.start(refresh=True)
    return self

  def __exit__(self, *unused_exception) -> None:
    if self._live is not None:
      self._live.stop()
      self._live = None

  def phase(self, name: str) -> None:
    """Shows what the run does now.

    Args:
      name: One of `PHASES`, or any other short word. The time spent in `'train'` is what gradient
        steps per second are counted by.
    """
    now = self._clock()
    if self._phase == 'train':
      self._train_seconds += now - self._phase_time
    self._phase, self._phase_time = name, now

  def update(
    self,
    *,
    iteration: int,
    env_steps: int,
    gradient_steps: int,
    test_return: float | None = None,
  ) -> None:
    """Shows the state after an iteration.

    Args:
      iteration: Iterations done, of `num_iterations`.
      env_steps: Training transitions collected so far.
      gradient_steps: Updates made so far.
      test_return: Final return on the test tasks, where this iteration evaluated.
    """
    self.phase(self._phase)
    now = self._clock()
    seconds = self._train_seconds or now - self._update_time
    new_gradient_steps = gradient_steps - self._gradient_steps
    if new_gradient_steps > 0 and seconds > 0:
      self._gradient_steps_per_second = new_gradient_steps / seconds
    self._train_seconds, self._update_time = 0.0, now
    self._iteration, self._env_steps, self._gradient_steps = iteration, env_steps, gradient_steps
    if self._first_update is None:
      self._first_update = (iteration, now)
    if test_return is not None:
      self._test_return = test_return
      best = test_return if self._best_return is None else self._best_return
      self._best_return = max(best, test_return)
    if self._live is None:
      self.message(self._plain_line(evaluated=test_return is not None))

  def message(self, message: str) -> None:
    """Prints a line that stays, above the panel where there is one.

    Args:
      message: Plain text; brackets are not read as markup.
    """
    if self._live is not None:
      self._live.console.print(message, markup=False, highlight=False, soft_wrap=True)
    else:
      print(message, file=self._stream, flush=True)

  def seconds_left(self) -> float | None:
    """Returns the estimated time to the end of the run, or None before an iteration is done."""
    start, start_time = self._start_iteration, self._start_time
    if self._first_update is not None and self._iteration > self._first_update[0]:
      start, start_time = self._first_update
    done = self._iteration - start
    if done <= 0:
      return None
    # Counted up to the last update: an iteration that has begun has not yet brought anything.
    seconds_per_iteration = (self._update_time - start_time) / done
    end = self._update_time + seconds_per_iteration * (self._num_iterations - self._iteration)
    return max(0.0, end - self._clock())

  def _plain_line(self, *, evaluated: bool) -> str:
    parts = [
      f'iteration {self._iteration}/{self._num_iterations}',
      f'env steps {self._env_steps_text()}',
      f'gradient steps {self._gradient_steps:,} ({self._rate_text()})',
    ]
    if evaluated:
      parts.append(f'test return {self._test_return:.1f} (best {self._best_return:.1f})')
    parts.append(f'elapsed {_duration(self._clock() - self._start_time)}')
    parts.append(f'left {_duration(self.seconds_left())}')
    return ' | '.join(parts)

  def _panel(self) -> panel.Panel:
    """Draws the panel anew; rich calls it from its refresh thread."""
    now = self._clock()
    bar = progress_bar.ProgressBar(total=self._num_iterations, completed=self._iteration)
    grid = table.Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style='dim', no_wrap=True)
    grid.add_column(ratio=1, overflow='fold')
    grid.add_row('iteration', f'{self._iteration} / {self._num_iterations}')
    grid.add_row('', bar)
    grid.add_row('phase', self._phase_text(now))
    grid.add_row('env steps', self._env_steps_text())
    grid.add_row('gradient steps', f'{self._gradient_steps:,}  ({self._rate_text()})')
    grid.add_row('test return', self._return_text())
    elapsed, left = _duration(now - self._start_time), _duration(self.seconds_left())
    grid.add_row('time', f'{elapsed} elapsed, {left} left')
    width = min(_MAX_WIDTH, self._live.console.width) if self._live else _MAX_WIDTH
    return panel.Panel(grid, title=text.Text(self._title), title_align='left', width=width)

  def _phase_text(self, now: float) -> text.Text:
    names = PHASES if self._phase in PHASES else (self._phase, *PHASES)
    line = text.Text()
    for name in names:
      active = name == self._phase
      shown = f'{name} {_duration(now - self._phase_time)}' if active else name
      line.append(shown, style='bold cyan' if active else 'dim')
      line.append('  ')
    return line

  def _return_text(self) -> text.Text:
    if self._test_return is None:
      known = '' if self._best_return is None else f', best so far {self._best_return:.1f}'
      return text.Text(f'none yet{known}', style='dim')
    line = text.Text(f'{self._test_return:.1f}', style='bold green')
    return line.append(f'  (best {self._best_return:.1f})', style='default')

  def _env_steps_text(self) -> str:
    steps = '-' if self._env_steps is None else f'{self._env_steps:,}'
    return steps if self._total_env_steps is None else f'{steps} / {self._total_env_steps:,}'

  def _rate_text(self) -> str:
    rate = self._gradient_steps_per_second
    return '- /s' if rate is None else f'{rate:,.0f}/s' if rate >= 10 else f'{rate:.1f}/s'


def _is_interactive(stream: TextIO) -> bool:
  # Not left to rich: its answer heeds FORCE_COLOR, which is not about cursor movements.
  is_terminal = getattr(stream, 'isatty', lambda: False)()
  return is_terminal and os.environ.get('TERM', '').lower() not in ('', 'dumb', 'unknown')


def _duration(seconds: float | None) -> str:
  if seconds is None:
    return '-'
  minutes, seconds = divmod(int(round(seconds)), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02d}:{seconds:02d}'
