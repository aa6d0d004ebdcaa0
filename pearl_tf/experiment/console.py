"""Tells the user how a run is doing: a live panel on a terminal, plain lines elsewhere.

This module only shows what it is told. The training loop calls `phase` when it turns to something
else and `update` once per iteration; where the numbers are kept is the matter of `metrics`.
"""

import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import TextIO

from rich import console as rich_console
from rich import live, progress, text

from pearl_tf.experiment import interruption

PHASES = ('collect', 'train', 'evaluate', 'checkpoint')
_REFRESHES_PER_SECOND = 4
_MIN_WIDTH = 50


class Console:
  """A view of a training run, used as a context manager.

  On a terminal it is drawn anew in place; when standard output is a file or a pipe, or the terminal
  is a dumb or very narrow one, it is one line of plain text per iteration without escape codes.

  The time left follows from the iterations of *this* process, so it is right after a resume too;
  the first of them, which may include the collection of the initial pool, is left out as soon as
  there is a second.
  """

  def __init__(
    self,
    *,
    num_iterations: int,
    start_iteration: int = 0,
    start_gradient_steps: int = 0,
    title: str = 'PEARL',
    steps: Callable[[], int] = int,
    log: pathlib.Path | None = None,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Prepares a view; entering the context starts it.

    Args:
      num_iterations: Iterations of the whole run, those of former processes included.
      start_iteration: Iterations done by former processes.
      start_gradient_steps: Gradient steps done by former processes.
      title: Heading, for example the domain and the run folder.
      steps: Returns the steps of all kinds taken so far; called from another thread, too.
      log: File that takes what libraries print to a terminal's standard error while the panel is
        there, which they would spoil.
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
    self._title = title
    self._steps, self._steps_before, self._usual_steps = steps, 0, {}
    self._log, self._stderr = log, None
    self._stream = stream
    self._clock = clock
    self._iteration = start_iteration
    self._env_steps: int | None = None
    self._gradient_steps = start_gradient_steps
    self._gradient_steps_per_second: float | None = None
    self._returns: list[float] = []
    self._phase, self._notice = 'start', ''
    self._train_seconds = 0.0
    self._live: live.Live | None = None

  def __enter__(self) -> 'Console':
    self._stream = self._stream or sys.stdout
    self._start_time = self._phase_time = self._update_time = self._clock()
    self._first_update: tuple[int, float] | None = None
    self._start_iteration = self._iteration
    terminal = rich_console.Console(file=self._stream)
    if _is_interactive(self._stream) and terminal.width >= _MIN_WIDTH:
      self._make_panel(terminal)
    return self

  def __exit__(self, *unused_exception) -> None:
    if self._live is not None:
      self._notice = ''
      self._live.stop()
      self._live = None
    if self._stderr is not None:
      os.dup2(self._stderr, 2)
      os.close(self._stderr)
      self._stderr = None

  def _make_panel(self, terminal: rich_console.Console) -> None:
    if self._log is not None and os.isatty(2):
      sys.stderr.flush()
      self._stderr = os.dup(2)
      log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
      os.dup2(log, 2)
      os.close(log)
    self._bars = progress.Progress(
      progress.TextColumn('{task.description}'),
      progress.BarColumn(),
      progress.MofNCompleteColumn(),
      progress.TimeElapsedColumn(),
      console=terminal,
      get_time=self._clock,
    )
    self._run_bar = self._bars.add_task('iteration', total=self._num_iterations)
    self._phase_bar = self._bars.add_task(self._phase, total=None)
    self._live = live.Live(
      console=terminal, get_renderable=self._panel, refresh_per_second=_REFRESHES_PER_SECOND
    )
    self._live.start(refresh=True)

  def phase(self, name: str) -> None:
    """Shows what the run does now.

    Args:
      name: One of `PHASES`, or any other short word. The time spent in `'train'` is what gradient
        steps per second are counted by.
    """
    now = self._clock()
    if self._phase == 'train':
      self._train_seconds += now - self._phase_time
    if name != self._phase and self._live is not None:
      steps = self._steps()
      self._usual_steps[self._phase] = steps - self._steps_before
      self._steps_before = steps
      self._bars.reset(self._phase_bar, description=name)
      # How much there is to do is not known, but how much there was the last time.
      self._bars.tasks[self._phase_bar].total = self._usual_steps.get(name) or None
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
      self._returns.append(test_return)
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

  def notice(self, message: str) -> None:
    """Shows a line from now on; may be called from a handler of signals."""
    if self._live is not None:
      self._notice = message  # Shown when the panel is drawn anew, soon.
    else:
      interruption.write(message)

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

  def _parts(self) -> list[str]:
    env_steps = '-' if self._env_steps is None else f'{self._env_steps:,}'
    rate = self._gradient_steps_per_second
    per_second = '- /s' if rate is None else f'{rate:,.0f}/s' if rate >= 10 else f'{rate:.1f}/s'
    return [f'env steps {env_steps}', f'gradient steps {self._gradient_steps:,} ({per_second})']

  def _return(self) -> str:
    return f'test return {self._returns[-1]:.1f} (best {max(self._returns):.1f})'

  def _plain_line(self, *, evaluated: bool) -> str:
    parts = [f'iteration {self._iteration}/{self._num_iterations}', *self._parts()]
    if evaluated:
      parts.append(self._return())
    parts.append(f'elapsed {_duration(self._clock() - self._start_time)}')
    parts.append(f'left {_duration(self.seconds_left())}')
    return ' | '.join(parts)

  def _panel(self) -> rich_console.Group:
    """Draws the panel anew; rich calls it from its refresh thread."""
    self._bars.update(self._run_bar, completed=self._iteration)
    done = self._steps() - self._steps_before
    bar = self._bars.tasks[self._phase_bar]
    self._bars.update(self._phase_bar, completed=done, total=bar.total and max(bar.total, done))
    lines = [text.Text(self._title, style='bold'), self._bars.get_renderable()]
    lines.append(text.Text(', '.join([*self._parts(), f'{_duration(self.seconds_left())} left'])))
    if self._returns:
      lines.append(text.Text(self._return(), style='bold green'))
    if self._notice:
      lines.append(text.Text(self._notice, style='bold yellow'))
    return rich_console.Group(*lines)


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
