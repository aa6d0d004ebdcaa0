"""Collects for the learner of a distributed run, beside any number of other actors.

  python -m trainers.actor --server=replay:8000 --actor=0

It needs no disk and no configuration: what the run is, the server says. With --gin_file it refuses
to collect for another run. It ends by itself when the run is over.
"""

import os
import re
import sys

from absl import app, flags

from pearl_tf.programs import program, run_flags


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string(
    'actor',
    '0',
    "Number of this actor, another one for each; or a name that ends in it, such as a pod's.",
  )
  run_flags.define_experiment()
  run_flags.define_server()


def main(argv: list[str]) -> None:
  """Collects; exits with 130 or 143 when Ctrl-C or SIGTERM asked to stop."""
  options = flags.FLAGS
  run_flags.check(argv, options, needs_gin=False)
  number = re.search(r'\d+$', options.actor)
  if number is None:
    raise app.UsageError(f'--actor must end in a number, got {options.actor!r}')
  # Simulation is what costs; the few small products of a policy gain nothing from many threads.
  os.environ.setdefault('TF_NUM_INTRAOP_THREADS', '1')
  from pearl_tf.experiment import interruption
  from pearl_tf.launch import actor

  if not actor.act(
    options.server,
    int(number[0]),
    run_flags.load(options) if options.gin_file else None,
    deadline_seconds=options.deadline,
  ):
    sys.exit(interruption.exit_code())


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
