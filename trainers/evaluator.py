"""Meta-tests the agent of a distributed run while it learns, and keeps the best one.

  python -m trainers.evaluator --root_dir=runs/cheetah-vel --gin_file=cheetah_vel.gin \
    --server=replay:8000

It writes into the learner's run folder: its metrics into evaluator/, which trainers.plot reads
beside the learner's, the best agent into checkpoints/ and its export into export/. It ends by
itself when the last version of the run is evaluated.
"""

from absl import flags

from pearl_tf.programs import program, run_flags


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string('root_dir', None, "The learner's run folder.", required=True)
  run_flags.define_experiment()
  run_flags.define_server()


def main(argv: list[str]) -> None:
  """Evaluates until the run is over."""
  options = flags.FLAGS
  run_flags.check(argv, options)
  from pearl_tf.launch import evaluator

  evaluator.evaluate(
    run_flags.load(options), options.root_dir, options.server, deadline_seconds=options.deadline
  )


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
