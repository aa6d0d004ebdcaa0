"""Writes the metrics of a run: one JSON object per line, and the same values to TensorBoard.

The JSON-lines file is the truth: it survives `kill -9` (each line is synced to disk), it is cut
back to the checkpoint a run resumes from, and the TensorBoard folder is rebuilt from it whenever it
is cut. This module decides no metric names apart from the counters; the training loop does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import numbers
import os
import pathlib
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from pearl_tf.data import files
from pearl_tf.evaluation import plot_style

if TYPE_CHECKING:
  from matplotlib import figure as mpl_figure

FILE_NAME = 'metrics.jsonl'
TENSORBOARD_FOLDER = 'tensorboard'
EVALUATOR_FOLDER = 'evaluator'
COUNTERS = ('iteration', 'env_steps', 'gradient_steps')

Value = float | Sequence[float] | np.ndarray | tf.Tensor | None


class MetricsWriter:
  """Appends the metrics of a run to `metrics.jsonl` and to TensorBoard.

  A name is a path such as `loss/critic`. Whatever depends on the wall clock goes under `time/`, so
  that two runs can be compared by dropping those names. A list, such as the return of each
  trajectory, becomes one scalar per element: `test/return_by_trajectory/0`, `.../1` and so on.

  Strict JSON has no NaN or infinity: such a value becomes `null` in the file while TensorBoard
  keeps it. It is not refused, because the line that shows where a run diverged is the one most
  wanted; to stop the run is the business of the training loop. `None` stands for a value that does
  not exist (a confidence interval of one task): `null` in the file and absent from TensorBoard.
  """

  def __init__(self, run_dir: str | os.PathLike, *, texts: Mapping[str, str] | None = None):
    """Opens the files of a run folder, which is created if need be.

    An existing file is continued; a last line that was cut off in the middle is dropped. If other
    lines are damaged, the file is kept as `metrics.damaged.jsonl` and its sound lines go on.

    Args:
      run_dir: The run folder.
      texts: What TensorBoard shows as text, by name.
    """
    self._texts = texts or {}
    self._path = pathlib.Path(run_dir) / FILE_NAME
    self._tensorboard_dir = pathlib.Path(run_dir) / TENSORBOARD_FOLDER
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._set_damaged_aside()
    self._keep_lines(lambda record: True)
    self._file = self._path.open('a', encoding='utf-8')
    self._open_summaries()

  @property
  def path(self) -> pathlib.Path:
    """The JSON-lines file."""
    return self._path

  def write(
    self, values: Mapping[str, Value], *, iteration: int, env_steps: int, gradient_steps: int
  ) -> dict[str, float | None]:
    """Writes one line and one TensorBoard scalar per value, and syncs both to disk.

    Args:
      values: The metrics by name; scalars, one-dimensional sequences or None.
      iteration: Number of the training iteration; `truncate_after` goes by it.
      env_steps: Training transitions collected so far, the step of the TensorBoard scalars.
      gradient_steps: Updates made so far.

    Returns:
      What the line holds.

    Raises:
      ValueError: A name is taken by a counter or used twice, or a value has two or more dimensions.
      TypeError: A value is not a number.
    """
    counters = {
      'iteration': int(iteration),
      'env_steps': int(env_steps),
      'gradient_steps': int(gradient_steps),
    }
    scalars = _flatten(values)
    record = {**counters, **{name: _json_number(value) for name, value in scalars.items()}}
    with files.explained(self._path):
      self._file.write(_line(record))
      self._file.flush()
      os.fsync(self._file.fileno())
      self._write_summaries({**counters, **scalars})
    return record

  def write_figures(self, figures: Mapping[str, mpl_figure.Figure], *, env_steps: int) -> None:
    """Shows figures in TensorBoard, and nowhere else: a run that is resumed begins anew with them.

    Args:
      figures: By name.
      env_steps: Training transitions collected so far.
    """
    with self._summaries.as_default(step=env_steps), tf.summary.record_if(True):
      for name, figure in figures.items():
        tf.summary.image(name, plot_style.pixels(figure)[np.newaxis])
    self._summaries.flush()

  def truncate_after(self, iteration: int) -> None:
    """Forgets everything written after an iteration.

    A run calls it when it resumes from the checkpoint of that iteration: what was written since
    will be written again, and the file then equals that of a run which was never interrupted. The
    TensorBoard events are written anew from the lines that stay, with the wall-clock stamps of now.

    Args:
      iteration: The last iteration to keep; -1 keeps nothing that has a number from 0.
    """
    self._file.close()
    self._keep_lines(lambda record: record['iteration'] <= iteration)
    # Also where nothing was cut: a process may have died between cutting the one and the other.
    self._rebuild_summaries()
    self._file = self._path.open('a', encoding='utf-8')

  def close(self) -> None:
    """Closes both files; nothing may be written afterwards."""
    self._file.close()
    self._summaries.close()

  def __enter__(self) -> MetricsWriter:
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()

  def _set_damaged_aside(self) -> None:
    try:
      read(self._path)
    except FileNotFoundError:
      return
    except ValueError as error:
      aside = self._path.with_name('metrics.damaged.jsonl')
      shutil.copyfile(self._path, aside)
      sound = []
      for line in self._path.read_text(encoding='utf-8', errors='replace').splitlines():
        with contextlib.suppress(ValueError):
          sound.append(_line(_parse(line)))
      files.write_text(self._path, ''.join(sound))
      logging.warning('%s; the file as it was is %s, its sound lines are kept', error, aside)

  def _keep_lines(self, keep) -> None:
    """Rewrites the file, atomically, with the records that `keep` accepts, if it changes at all."""
    if not self._path.exists():
      return
    text = ''.join(_line(record) for record in read(self._path) if keep(record))
    if text.encode() != self._path.read_bytes():
      files.write_text(self._path, text)

  def _rebuild_summaries(self) -> None:
    self._summaries.close()
    for events in self._tensorboard_dir.glob('events.out.tfevents.*'):
      events.unlink()
    self._open_summaries()
    for record in read(self._path) if self._path.exists() else ():
      self._write_summaries(record, flush=False)
    self._summaries.flush()

  def _open_summaries(self) -> None:
    self._summaries = tf.summary.create_file_writer(str(self._tensorboard_dir))
    with self._summaries.as_default(step=0), tf.summary.record_if(True):
      for name, text in self._texts.items():
        # TensorBoard reads Markdown, in which indented lines are shown as they are.
        tf.summary.text(name, textwrap.indent(text, '    '))

  def _write_summaries(self, record: Mapping[str, float | None], *, flush: bool = True) -> None:
    # TF-Agents' learner records only every so many steps; that setting must not swallow ours.
    with self._summaries.as_default(step=record['env_steps']), tf.summary.record_if(True):
      for name, value in record.items():
        # env_steps is the step itself; None has no scalar.
        if name != 'env_steps' and value is not None:
          tf.summary.scalar(name, value)
    if flush:
      self._summaries.flush()


def read(path: str | os.PathLike) -> list[dict[str, Any]]:
  """Reads a JSON-lines file of metrics.

  Args:
    path: The file, or the run folder that holds it.

  Returns:
    One dictionary per line, in the order of the file; `None` where the file has `null`. A last line
    that was cut off in the middle, as by a kill during a write, is left out. Of a run folder whose
    evaluations are another process's, each line has what that wrote of its iteration, too.

  Raises:
    FileNotFoundError: There is no such file.
    ValueError: Another line than the last one is damaged; the message has its number.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    evaluations = path / EVALUATOR_FOLDER / FILE_NAME
    records = read(path / FILE_NAME)
    if evaluations.is_file():
      evaluated = {record['iteration']: record for record in read(evaluations)}
      records = [evaluated.get(record['iteration'], {}) | record for record in records]
    return records
  if not path.is_file():
    raise FileNotFoundError(f'no metrics at {path}; give a run folder or its {FILE_NAME}')
  records = []
  lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
  for number, line in enumerate(lines, start=1):
    try:
      records.append(_parse(line))
    except ValueError as error:
      if number < len(lines):
        raise ValueError(f'{path}, line {number}, is damaged ({error}): {line[:80]!r}') from error
  return records


def _line(record: Mapping[str, Any]) -> str:
  return json.dumps(record, allow_nan=False) + '\n'


def _parse(line: str) -> dict[str, Any]:
  record = json.loads(line)
  if not isinstance(record, dict) or 'iteration' not in record:
    raise ValueError('not an object with an iteration')
  return record


def _flatten(values: Mapping[str, Value]) -> dict[str, float | None]:
  """Gives each element of a sequence a name of its own, and each value the type float."""
  scalars = {}
  for name, value in values.items():
    array = None if value is None else np.asarray(value)
    if array is None or array.ndim == 0:
      elements = {name: value}
    elif array.ndim == 1:
      elements = {f'{name}/{index}': element for index, element in enumerate(value)}
    else:
      raise ValueError(f'metric {name!r} must be a scalar or a list, got shape {array.shape}')
    for element_name, element in elements.items():
      if element_name in COUNTERS or element_name in scalars:
        raise ValueError(f'metric name {element_name!r} is already taken; choose another')
      scalars[element_name] = _number(element_name, element)
  return scalars


def _number(name: str, value: Any) -> float | None:
  if value is None:
    return None
  if isinstance(value, tf.Tensor | tf.Variable | np.ndarray):
    value = np.asarray(value).item()
  if not isinstance(value, numbers.Real | np.bool_):
    raise TypeError(f'metric {name!r} must be a number, got {value!r} ({type(value).__name__})')
  return float(value)


def _json_number(value: float | None) -> float | None:
  return value if value is not None and math.isfinite(value) else None
