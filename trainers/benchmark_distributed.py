"""Measures what collection by other processes costs on this host, and how it scales.

  python -m trainers.benchmark_distributed --gin_file=trainers/configs/cheetah_vel.gin
  python -m trainers.benchmark_distributed --slow_simulator_seconds=0.002

Prints a line a part, then one JSON object per line (into a file with --output): transitions per
second into the replay and into the learner's cache, gradient steps alone and with their share of
feeding, how long weights take, and with 1, 2 and 4 actors env steps per second and how old the
policy of an episode is when it arrives. With --slow_simulator_seconds the actors' simulator sleeps
that long in every step, so that they scale as they would on hosts of their own. The load at the
start is part of the report.
"""

import pathlib
import sys

from absl import app, flags

from pearl_tf.programs import program, run_flags
from pearl_tf.programs import records as records_lib

_CONFIG = pathlib.Path(__file__).parent / 'configs' / 'cheetah_vel.gin'
# One episode of each task is pool enough.
_SHORT = 'CollectSchedule.initial_steps = 1'
_SLOW = ("registry.make.name = 'pearl_tf.launch.slow_simulator:SlowPointRobot'",)


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  run_flags.define_experiment()
  flags.DEFINE_multi_integer('num_actors', [1, 2, 4], 'Numbers of actors. Repeatable.', 1)
  flags.DEFINE_float('seconds', 20.0, 'How long each part takes, about.', lower_bound=0.1)
  flags.DEFINE_float(
    'slow_simulator_seconds', None, 'How long every step of a point robot sleeps.', 0.0
  )
  records_lib.define_output()


def main(argv: list[str]) -> None:
  """Measures and reports."""
  options = flags.FLAGS
  run_flags.check(argv, options, needs_gin=False)
  if options.slow_simulator_seconds is None:
    options.gin_file = options.gin_file or [str(_CONFIG)]
  elif options.gin_file:
    raise app.UsageError('--slow_simulator_seconds brings its own configuration')
  else:
    options.gin_file = [str(_CONFIG.with_name('point_robot.gin'))]
    slow = f'registry.make.seconds_per_step = {options.slow_simulator_seconds}'
    options.gin_bindings = [*_SLOW, slow, *options.gin_bindings]
  options.gin_bindings = [_SHORT, *options.gin_bindings]
  records_lib.check_output(options)
  from pearl_tf.launch import benchmark, group, start

  experiment = [f'--gin_file={path}' for path in options.gin_file]
  experiment += [f'--gin_bindings={binding}' for binding in options.gin_bindings]

  def roles(port: int, num_actors: int) -> list[group.Role]:
    python = [sys.executable, '-m']
    server = [f'--port={port}', f'--seed={options.seed}', *experiment]
    return [
      *(
        group.Role(
          f'actor-{number}',
          [*python, 'trainers.actor', f'--actor={number}', f'--server=localhost:{port}'],
        )
        for number in range(num_actors)
      ),
      group.Role(benchmark.SERVER, [*python, 'trainers.replay_server', *server], is_awaited=True),
    ]

  records = benchmark.run(
    start.build(run_flags.load(options)),
    roles,
    actors=options.num_actors,
    seconds=options.seconds,
    announce=lambda text: print(text, file=sys.stderr, flush=True),
  )
  print('\n'.join(benchmark.lines(records)))
  records_lib.write(records, options)


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
