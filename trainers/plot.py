"""Draws the learning curves of runs against env steps and against hours.

  python -m trainers.plot RUN [RUN ...] [--reference=cheetah-vel] [--output=curve.png]

RUN is a run folder, as trainers.train writes it, or a metrics.jsonl file. Runs with the same label
are drawn as one curve with their mean and range, so several seeds are compared like this:

  python -m trainers.plot runs/vel-0 runs/vel-1 runs/sac-0 --labels=PEARL,PEARL,SAC
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import app, flags

from pearl_tf.evaluation import plots
from pearl_tf.experiment import metrics

_REFERENCE = flags.DEFINE_string(
  'reference',
  None,
  'Domain whose published curves are drawn in grey beside the runs, such as cheetah-vel or '
  'cheetah-dir; an unknown name gets the list of all.',
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'PNG to write. Default: figures/learning_curve.png in the first run folder.'
)
_LABELS = flags.DEFINE_list(
  'labels', None, 'Legend of each run, separated by commas. Default: the name of its folder.'
)
_METRIC = flags.DEFINE_string(
  'metric', 'test/final_return', 'The return to draw, a name in metrics.jsonl.'
)
_TITLE = flags.DEFINE_string('title', '', 'Heading of the figure.')
_FULL_REFERENCE = flags.DEFINE_bool(
  'full_reference', False, 'Show the reference to its end, even where the runs are much shorter.'
)


def plot(runs: Sequence[str]) -> pathlib.Path:
  """Draws the runs as the flags say.

  Args:
    runs: Run folders or metrics files.

  Returns:
    The PNG written.

  Raises:
    FileNotFoundError: A run has no metrics.
    ValueError: A run never evaluated, labels do not match the runs, or a name is unknown.
  """
  labels = _LABELS.value or [_folder(run).name for run in runs]
  if len(labels) != len(runs):
    raise ValueError(f'--labels names {len(labels)} runs ({", ".join(labels)}), got {len(runs)}')
  curves = [
    plots.curve_from_metrics(label, metrics.read(run), metric=_METRIC.value)
    for label, run in zip(labels, runs, strict=True)
  ]
  output = pathlib.Path(_OUTPUT.value or _folder(runs[0]) / 'figures' / 'learning_curve.png')
  plots.learning_curve(
    curves,
    output,
    reference=_REFERENCE.value,
    title=_TITLE.value,
    y_label='return on test tasks' if _METRIC.value == 'test/final_return' else _METRIC.value,
    full_reference=_FULL_REFERENCE.value,
  )
  return output


def main(argv: Sequence[str]) -> None:
  """Draws, says where, and turns the errors a user can mend into one line."""
  runs = argv[1:]
  if not runs:
    raise app.UsageError('name at least one run folder or metrics.jsonl')
  try:
    output = plot(runs)
  except (OSError, ValueError) as error:
    sys.exit(f'plot: {error}')
  print(f'wrote {output}')


def _folder(run: str) -> pathlib.Path:
  """Returns the run folder, be it given itself or by its metrics file."""
  path = pathlib.Path(run).resolve()
  return path.parent if path.suffix == '.jsonl' else path


def run() -> None:
  """Entry point of the console script."""
  app.run(main)


if __name__ == '__main__':
  run()
