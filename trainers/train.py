"""Meta-trains PEARL on a family of tasks.

  python -m trainers.train --root_dir=runs/cheetah-vel \
    --gin_file=trainers/configs/cheetah_vel.gin --seed=0

The run folder (--root_dir) then holds the resolved configuration (config.gin), the tasks
(tasks.json), metrics (metrics.jsonl and tensorboard/), checkpoints and figures. The same command
continues an interrupted run from its last checkpoint, whether it ended by Ctrl-C, SIGTERM, kill -9
or a power cut.
"""

import sys

from absl import app, flags

from pearl_tf.experiment import local_loop

_ROOT_DIR = flags.DEFINE_string('root_dir', None, 'Run folder; made if it does not exist.')
_GIN_FILE = flags.DEFINE_multi_string(
  'gin_file', [], 'Configuration, for example trainers/configs/cheetah_vel.gin. Repeatable.'
)
_GIN_BINDINGS = flags.DEFINE_multi_string(
  'gin_bindings', [], "One more binding, for example 'Training.num_iterations = 10'. Repeatable."
)
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Seeds tasks, environments, networks and sampling.', lower_bound=0
)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  if not _GIN_FILE.value:
    raise app.UsageError('--gin_file is missing, for example trainers/configs/cheetah_vel.gin')
  finished = local_loop.train(
    _ROOT_DIR.value, gin_files=_GIN_FILE.value, gin_bindings=_GIN_BINDINGS.value, seed=_SEED.value
  )
  sys.exit(0 if finished else 130)


def run() -> None:
  """Entry point of the console script."""
  flags.mark_flag_as_required('root_dir')
  app.run(main)


if __name__ == '__main__':
  run()
