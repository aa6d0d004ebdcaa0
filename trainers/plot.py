"""Draws the learning curves of runs against env steps and against hours.

  python -m trainers.plot RUN [RUN ...] [--reference=cheetah-vel] [--output=curve.png]

RUN is a run folder, as trainers.train writes it, or a file of metrics. Run folders that differ only
in the seed are drawn as one curve with their mean and range, and so are runs of the same label:

  python -m trainers.plot vel-0.jsonl vel-1.jsonl sac-0.jsonl --labels=PEARL,PEARL,SAC
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
    'labels',
    None,
    'Legend of each run, separated by commas. Default: the name of its folder or file, the same '
    'for runs that differ in nothing but the seed.',
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
    labels: Legend of each run; see `default_labels`.
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
  labels = labels or default_labels(runs)
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


def default_labels(runs: Sequence[str]) -> list[str]:
  """Returns one label for run folders of one configuration, and one for each other run.

  Args:
    runs: run folders or files of metrics.

  Returns:
    Names of folders or files, with as much of the path as tells them apart.
  """
  paths = [pathlib.Path(run).resolve() for run in runs]
  paths = [path.parent if path.name == 'metrics.jsonl' else path for path in paths]
  configurations = [_configuration(path) for path in paths]
  first = [paths[configurations.index(one)] for one in configurations]
  length = 1
  while len({path.parts[-length:] for path in first}) < len(set(first)):
    length += 1
  return ['/'.join(path.parts[-length:]).removesuffix('.jsonl') for path in first]


def _configuration(path: pathlib.Path) -> str | pathlib.Path:
  """Returns what a run was configured by, or its own path where that is not known."""
  config = path / 'config.gin'
  return config.read_text() if config.is_file() else path


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
