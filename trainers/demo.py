"""The demonstration: PEARL learns point-robot tasks, then adapts to tasks it has never met.

  python -m trainers.demo --root_dir=runs/demo

Meta-trains on 80 tasks of a robot in the plane, each with a goal it is not told, and meta-tests on
20 held-out ones: the first trajectory of a task is acted on the prior, later ones on the posterior
given what was seen. Prints the returns beside those of an oracle that knows the goal, and names the
files it leaves. Continues where it stopped if it was interrupted.
"""

import json
import pathlib
import sys
import time

import numpy as np
import rich.console
import rich.table
from absl import app, flags

from pearl_tf.evaluation import adaptation_plot, meta_test, oracle, plots, report
from pearl_tf.experiment import local_loop, metrics, run_folder, seeds, trained
from trainers import cli

_CONFIG = pathlib.Path(__file__).parent / 'configs' / 'demo.gin'
_META_TEST_REPEATS = 10


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string('root_dir', 'runs/demo', 'Run folder; made if it does not exist.')
  flags.DEFINE_integer(
    'seed', 0, 'Seeds tasks, environments, networks and sampling.', lower_bound=0
  )
  flags.DEFINE_multi_string(
    'gin_bindings', [], "Changes the demo, for example 'Training.num_iterations = 10'. Repeatable."
  )


def main(argv: list[str]) -> None:
  """Trains, meta-tests, prints and draws."""
  options = flags.FLAGS
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  started = time.monotonic()
  finished = local_loop.train(
    options.root_dir,
    gin_files=[str(_CONFIG)],
    gin_bindings=options.gin_bindings,
    seed=options.seed,
  )
  if not finished:
    sys.exit(130)
  builder, _ = trained.restore(options.root_dir)
  result = meta_test.MetaTest(num_repeats=_META_TEST_REPEATS).run(
    builder.tasks.test,
    builder.make_rollout(
      deterministic=True, num_environments=len(builder.tasks.test) * _META_TEST_REPEATS
    ),
    seed=seeds.sequence(options.seed, seeds.Stream.META_TEST),
  )
  folder = run_folder.RunFolder(options.root_dir)
  oracle_return = oracle.point_robot_oracle_return(result.trajectories)
  summary = _summarize(result, oracle_return, time.monotonic() - started)
  summary_file = folder.root / 'summary.json'
  run_folder.write_atomically(summary_file, json.dumps(summary, indent=1))
  _print_table(summary)
  figures = _draw(folder, result, oracle_return)
  console = rich.console.Console(soft_wrap=True)
  console.print('files:')
  for path in (folder.root, summary_file, *figures):
    console.print(f'  {path}', highlight=False)


def _summarize(
  result: meta_test.MetaTestResult, oracle_return: float, seconds: float
) -> dict[str, float | list[float]]:
  returns = report.returns_by_trajectory(result)
  prior_return, final_return = float(returns[0]), float(returns[-1])
  return {
    'prior_return': prior_return,
    'final_return': final_return,
    'oracle_return': oracle_return,
    'gap_closed': (final_return - prior_return) / (oracle_return - prior_return),
    'returns_by_trajectory': [float(value) for value in returns],
    'seconds': seconds,
  }


def _print_table(summary: dict) -> None:
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


def _draw(
  folder: run_folder.RunFolder, result: meta_test.MetaTestResult, oracle_return: float
) -> list[pathlib.Path]:
  names = ('learning_curve.png', 'posterior_sampling.png', 'returns_by_trajectory.png')
  curve, adaptation, returns = (folder.figures / name for name in names)
  plots.learning_curve(
    [plots.curve_from_metrics('point robot', metrics.read(folder.root))],
    curve,
    title='PEARL on the point robot',
  )
  adaptation_plot.adaptation(result.trajectories, adaptation)
  plots.returns_by_trajectory(
    {'PEARL': result},
    returns,
    oracle_return=oracle_return,
    prior_return=float(np.mean([t.episode_return for t in result.trajectories if t.index == 0])),
  )
  return [curve, adaptation, returns]


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  cli.run(main)


if __name__ == '__main__':
  run()
