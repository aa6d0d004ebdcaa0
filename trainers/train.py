r"""Meta-trains PEARL, or a baseline, on a family of tasks.

  python -m trainers.train --root_dir=runs/cheetah-vel \
    --gin_file=trainers/configs/cheetah_vel.gin --seed=0

The run folder (--root_dir) then holds the resolved configuration (config.gin), the tasks
(tasks.json), metrics (metrics.jsonl and tensorboard/) and checkpoints. The same command continues
an interrupted run from its last checkpoint, whether it ended by Ctrl-C, SIGTERM, kill -9 or a power
cut.
"""

import shlex
import sys

from absl import flags

from pearl_tf.programs import program, run_flags


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string('root_dir', None, 'Run folder; made if it does not exist.', required=True)
  run_flags.define_experiment()
  run_flags.define_devices()


def main(argv: list[str]) -> None:
  """Trains; exits with 130 or 143 when Ctrl-C or SIGTERM asked to stop."""
  options = flags.FLAGS
  run_flags.check(argv, options)
  # Not above: --help and wrong flags are answered at once, without loading TensorFlow.
  from pearl_tf.experiment import devices, interruption, local_loop

  finished = local_loop.train(
    options.root_dir,
    gin_files=options.gin_file,
    gin_bindings=options.gin_bindings,
    seed=options.seed,
    strategy=devices.strategy(options.num_gpus),
  )
  if not finished:
    sys.exit(interruption.exit_code())
  _print_outcome(options.root_dir)


def _print_outcome(root_dir: str) -> None:
  """Says where the results are, how good they are and what to type next."""
  from pearl_tf.experiment import metrics

  last = metrics.read(root_dir)[-1]
  hours, root = last['time/total_hours'], shlex.quote(root_dir)
  print(f'finished in {hours:.2f} h: return on test tasks {last["test/final_return"]:.1f}')
  print(f'  all of it is in {root}: metrics.jsonl, tensorboard/, checkpoints/')
  print(f'  next: python -m trainers.evaluate --root_dir={root}')
  print(f'        python -m trainers.plot {root}')


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
