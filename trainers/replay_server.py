"""Holds the replay of a distributed run; the other processes of the run connect to it.

  python -m trainers.replay_server --gin_file=cheetah_vel.gin --port=8000

The server listens at this port of EVERY network interface, without authentication, and cannot be
told otherwise: keep it in a private network. It keeps nothing on disk. When it dies, start it again
with the same command: the learner fills it from its cache.
"""

import sys

from absl import flags

from pearl_tf.programs import program, run_flags


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  run_flags.define_experiment()
  flags.DEFINE_integer('port', 8000, 'TCP port.', lower_bound=1, upper_bound=65535)


def main(argv: list[str]) -> None:
  """Serves until a signal ends it."""
  options = flags.FLAGS
  run_flags.check(argv, options)
  from pearl_tf.experiment import interruption
  from pearl_tf.launch import replay_server

  replay_server.serve(run_flags.load(options), options.port)
  sys.exit(interruption.exit_code())


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
