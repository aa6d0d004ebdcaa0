"""Measures how fast an experiment is on this machine, part by part.

  python -m trainers.benchmark --gin_file=trainers/configs/cheetah_vel.gin

Prints a table, then one JSON object per line (into a file with --output): the gradient step, the
cost of replay sampling, the floor that this machine's matmul rate sets for the step, collection
beside the bare environment, and peak memory. Every figure is measured in this run, on transitions
of noise. Progress goes to stderr. Use a machine that does nothing else; the load at the start is
part of the report. What evaluation and checkpoints cost, the metrics of a run say.
"""

import pathlib
import sys

import rich.console
from absl import flags

from pearl_tf.programs import program, run_flags
from pearl_tf.programs import records as records_lib

_CONFIG = pathlib.Path(__file__).parent / 'configs' / 'cheetah_vel.gin'
_WIDTH = 130


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  run_flags.define_experiment(str(_CONFIG))
  flags.DEFINE_float(
    'seconds', 20.0, 'How long each timed part takes turns, at least.', lower_bound=0.001
  )
  flags.DEFINE_integer(
    'min_rounds', 3, 'The fewest rounds of turns in each timed part.', lower_bound=1
  )
  flags.DEFINE_integer(
    'replay_transitions',
    300_000,
    'Transitions of noise in the replay: what memory is measured with.',
    lower_bound=1,
  )
  flags.DEFINE_integer(
    'num_environments', 8, 'Environments of the collection that is reported.', lower_bound=1
  )
  records_lib.define_output()


def main(argv: list[str]) -> None:
  """Measures and reports."""
  # Here, so that --help and wrong flags are answered without the wait for TensorFlow.
  from pearl_tf.experiment import builder as builder_lib
  from pearl_tf.experiment import config
  from pearl_tf.experiment.benchmark import report, suite

  options = flags.FLAGS
  run_flags.check(argv, options)
  records_lib.check_output(options)
  experiment = run_flags.load(options)
  with config.as_config_error():
    builder = builder_lib.Builder(experiment)
  records = suite.run(
    builder,
    seconds=options.seconds,
    replay_transitions=options.replay_transitions,
    num_environments=options.num_environments,
    min_rounds=options.min_rounds,
    announce=lambda text: print(text, file=sys.stderr, flush=True),
  )
  # A file or a pipe has no width of its own; rich would take 80 columns.
  width = None if sys.stdout.isatty() else _WIDTH
  rich.console.Console(width=width).print(report.format_table(records))
  records_lib.write(records, options)


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
