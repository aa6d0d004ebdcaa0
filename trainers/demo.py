"""The demonstration: PEARL learns point-robot tasks, then adapts to tasks it has never met.

  python -m trainers.demo --root_dir=runs/demo

Meta-trains on 80 tasks of a robot in the plane, each with a goal it is not told, and meta-tests on
20 held-out ones: the first trajectory of a task is acted on the prior, later ones on the posterior
given what was seen. Prints the returns beside those of an oracle that knows the goal, and names the
files it leaves. Continues where it stopped if it was interrupted.
"""

import pathlib
import sys

from absl import app, flags

from pearl_tf.programs import program

_CONFIG = pathlib.Path(__file__).parent / 'configs' / 'demo.gin'


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string('root_dir', 'runs/demo', 'Run folder; made if it does not exist.')
  flags.DEFINE_integer(
    'seed',
    0,
    'Seeds tasks, environments, networks and sampling.',
    lower_bound=0,
    upper_bound=2**31 - 1,
  )
  flags.DEFINE_multi_string(
    'gin_bindings', [], "Changes the demo, for example 'Training.num_iterations = 10'. Repeatable."
  )


def main(argv: list[str]) -> None:
  """Trains, meta-tests, prints and draws; exits with 130 or 143 when a signal asked to stop."""
  # Here, so that --help and wrong flags are answered without the wait for TensorFlow.
  from pearl_tf.experiment import demonstration, interruption

  options = flags.FLAGS
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  outcome = demonstration.run(
    options.root_dir,
    gin_files=[str(_CONFIG)],
    gin_bindings=options.gin_bindings,
    seed=options.seed,
  )
  if outcome is None:
    sys.exit(interruption.exit_code())
  _print_table(outcome.summary)
  _print_files(outcome.files)


def _print_table(summary: dict) -> None:
  import rich.console
  import rich.table

  table = rich.table.Table(title='20 tasks never met in training, mean return per trajectory')
  table.add_column('trajectory')
  table.add_column('acted on')
  table.add_column('return', justify='right')
  for index, value in enumerate(summary['returns_by_trajectory']):
    belief = 'prior' if index == 0 else f'posterior after {index}'
    table.add_row(str(index + 1), belief, f'{value:.2f}')
  table.add_row('oracle', 'the goal itself', f'{summary["oracle_return"]:.2f}', style='dim')
  table.add_section()
  table.add_row('gap closed', 'prior to oracle', f'{summary["gap_closed"]:.0%}', style='bold')
  rich.console.Console().print(table)


def _print_files(files: list[pathlib.Path]) -> None:
  import rich.console

  console = rich.console.Console(soft_wrap=True)
  console.print('files:')
  for path in files:
    console.print(f'  {path}', highlight=False)


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
