"""The flags of programs that build an experiment, and of the processes of a distributed run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import app, flags

if TYPE_CHECKING:
  from pearl_tf.experiment import experiment

_SERVER = 'localhost:8000'
MAX_SEED = 2**31 - 1


def define_experiment(*default_files: str) -> None:
  """Defines --gin_file, --gin_bindings and --seed."""
  flags.DEFINE_multi_string(
    'gin_file',
    list(default_files),
    'Configuration, a path, or the name of a shipped file such as cheetah_vel.gin. Repeatable.',
  )
  flags.DEFINE_multi_string(
    'gin_bindings', [], "One more binding, for example 'Training.num_iterations = 10'. Repeatable."
  )
  flags.DEFINE_integer(
    'seed',
    0,
    'Seeds tasks, environments, networks and sampling.',
    lower_bound=0,
    upper_bound=MAX_SEED,
  )


def define_server() -> None:
  """Defines --server and --deadline."""
  flags.DEFINE_string('server', _SERVER, 'host:port of the replay server.')
  define_deadline()


def define_deadline() -> None:
  """Defines --deadline."""
  flags.DEFINE_float(
    'deadline',
    600.0,
    'Seconds to wait for another process before ending with code 75, so as to be started again.',
    lower_bound=1.0,
  )


def define_devices() -> None:
  """Defines --num_gpus."""
  flags.DEFINE_integer(
    'num_gpus',
    None,
    'GPUs of this host that share each gradient step; 0 for the CPU. By default the first GPU, if '
    'there is one.',
    lower_bound=0,
  )


def check(argv: list[str], options: flags.FlagValues, *, needs_gin: bool = True) -> None:
  """Raises `app.UsageError` for what is left of the line, or if no configuration is named."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  if needs_gin and not options.gin_file:
    raise app.UsageError('--gin_file is missing, for example --gin_file=cheetah_vel.gin')


def load(options: flags.FlagValues) -> experiment.Experiment:
  """Loads the experiment; raises `ConfigError` if it cannot be used."""
  # Here, so that --help and wrong flags are answered without the wait for TensorFlow.
  from pearl_tf.experiment import experiment

  return experiment.load(options.gin_file, options.gin_bindings, seed=options.seed)
