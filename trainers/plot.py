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

from pearl_tf.programs import program

_DEFAULT_METRIC = 'test/final_return'


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string(
    'reference',
    None,
    'Domain whose published curves are drawn in grey beside the runs, such as cheetah-vel or '
    'cheetah-dir; an unknown name gets the list of all.',
  )
  flags.DEFINE_string(
    'output', None, 'PNG to write. Default: figures/learning_curve.png in the first run folder.'
  )
  flags.DEFINE_list(
    'labels', None, 'Legend of each run, separated by commas. Default: the name of its folder.'
  )
  flags.DEFINE_string('metric', _DEFAULT_METRIC, 'The return to draw, a name in metrics.jsonl.')
  flags.DEFINE_string('title', '', 'Heading of the figure.')
  flags.DEFINE_bool(
    'full_reference', False, 'Show the reference to its end, even where the runs are much shorter.'
  )


def plot(
  runs: Sequence[str],
  *,
  reference: str | None = None,
  output: str | None = None,
  labels: Sequence[str] | None = None,
  metric: str = _DEFAULT_METRIC,
  title: str = '',
  full_reference: bool = False,
) -> pathlib.Path:
  """Draws the learning curves of runs.

  Args:
    runs: Run folders or metrics files.
    reference: Domain whose published curves are drawn beside them.
    output: The PNG to write; by default within the first run folder.
    labels: Legend of each run; the names of their folders by default.
    metric: The return to draw.
    title: Heading.
    full_reference: Shows the reference to its end.

  Returns:
    The PNG written.

  Raises:
    FileNotFoundError: A run has no metrics.
    ValueError: A run never evaluated, labels do not match the runs, or a name is unknown.
  """
  # Here, so that --help and wrong flags are answered without the wait for TensorFlow.
  from pearl_tf.data import files
  from pearl_tf.evaluation import plots
  from pearl_tf.experiment import metrics

  path = files.output_file(
    output or _folder(runs[0]) / 'figures' / 'learning_curve.png', '--output'
  )
  labels = labels or [_folder(run).name for run in runs]
  if len(labels) != len(runs):
    raise ValueError(
      f'there are {len(labels)} labels ({", ".join(labels)}) for {len(runs)} runs; '
      'give one label for each run'
    )
  curves = [
    plots.curve_from_metrics(label, metrics.read(run), metric=metric)
    for label, run in zip(labels, runs, strict=True)
  ]
  plots.learning_curve(
    curves,
    path,
    reference=reference,
    title=title,
    y_label='return on test tasks' if metric == _DEFAULT_METRIC else metric,
    full_reference=full_reference,
  )
  return path


def main(argv: Sequence[str]) -> None:
  """Draws, says where, and turns the errors a user can mend into one line."""
  runs = argv[1:]
  if not runs:
    raise app.UsageError('name at least one run folder or metrics.jsonl')
  options = flags.FLAGS
  try:
    path = plot(
      runs,
      reference=options.reference,
      output=options.output,
      labels=options.labels,
      metric=options.metric,
      title=options.title,
      full_reference=options.full_reference,
    )
  except (OSError, ValueError) as error:
    sys.exit(f'error: {error}')
  print(f'wrote {path}')


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


def _folder(run: str) -> pathlib.Path:
  """Returns the run folder, be it given itself or by its metrics file."""
  path = pathlib.Path(run).resolve()
  return path.parent if path.suffix == '.jsonl' else path


if __name__ == '__main__':
  run()
