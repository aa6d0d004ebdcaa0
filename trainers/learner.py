"""Learns from what actors collect: the learner of a distributed run.

  python -m trainers.learner --root_dir=runs/cheetah-vel --gin_file=cheetah_vel.gin \
    --server=replay:8000

The run folder is that of trainers.train, which may go on where this program stopped, and the other
way round. Evaluations are trainers.evaluator's. The same command continues an interrupted run.
"""

import sys

from absl import flags

from pearl_tf.programs import program, run_flags


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string('root_dir', None, 'Run folder; made if it does not exist.', required=True)
  run_flags.define_experiment()
  run_flags.define_server()
  run_flags.define_devices()


def main(argv: list[str]) -> None:
  """Learns; exits with 130 or 143 when Ctrl-C or SIGTERM asked to stop."""
  options = flags.FLAGS
  run_flags.check(argv, options)
  from pearl_tf.experiment import devices, interruption
  from pearl_tf.launch import learner

  if not learner.learn(
    run_flags.load(options),
    options.root_dir,
    options.server,
    deadline_seconds=options.deadline,
    strategy=devices.strategy(options.num_gpus),
  ):
    sys.exit(interruption.exit_code())


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
