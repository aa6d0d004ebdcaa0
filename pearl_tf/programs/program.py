"""What every program shares: how it starts, how it ends, one clear line for a mendable error.

`run` is how a program starts. It does not import TensorFlow, so a program that imports the library
inside its `main` answers `--help` and wrong flags at once.
"""

import os
import sys
import traceback
import warnings
from collections.abc import Callable

from absl import app, flags, logging

from pearl_tf import proxies
from pearl_tf.experiment import interruption
from pearl_tf.programs import output

_OWN_PACKAGES = ('pearl_tf.', 'trainers.', 'serving.')
EXIT_ERROR = 1
EXIT_USAGE = 2
# Waited in vain for another process or host: whoever started this one should start it again.
EXIT_UNREACHABLE = 75


def run(main: Callable[[list[str]], None], *, verbosity: int = logging.WARNING) -> None:
  """Parses the flags, calls `main` and ends the process.

  The exit code is 0, or 1 with `error: ...` on stderr where the user can mend the cause, 2 where
  the flags or arguments are wrong, 75 where another process was waited for in vain, 130 after
  Ctrl-C, 143 after SIGTERM, and whatever `main` passes to `sys.exit`. Other exceptions keep their
  traceback.

  Args:
    main: takes what is left of the command line, the program's name first.
    verbosity: what absl logs unless `--verbosity` says otherwise. TensorFlow logs there, too.
  """
  output.make_dispensable()
  interruption.end_on_signals()
  proxies.spare_local_traffic()
  quieten()
  started = sys.modules['__main__']
  started.__doc__ = (
    started.__doc__ or sys.modules[main.__module__].__doc__
  )  # --help begins with it.
  app.run(
    lambda argv: _guarded(main, argv), flags_parser=lambda argv: _parse_flags(argv, verbosity)
  )


def _parse_flags(argv: list[str], verbosity: int) -> list[str]:
  # --help shows the flags of the main module: not those that programs share, and of a console
  # script none.
  for module, defined in flags.FLAGS.flags_by_module_dict().items():
    if module.startswith(_OWN_PACKAGES):
      for flag in defined:
        flags.FLAGS.register_key_flag_for_module(argv[0], flag)
  try:
    remaining = flags.FLAGS(argv)
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(verbosity)
    return remaining
  except flags.Error as error:
    _exit_with_usage(error)
  except SystemExit:  # absl has shown the help and takes that for a failure.
    sys.exit(0)


def _guarded(main: Callable[[list[str]], None], argv: list[str]) -> None:
  try:
    main(argv)
    error = output.failure()
    if error is not None:
      sys.exit(f'error: not all of the output could be written: {error.strerror}')
  except app.UsageError as error:
    _exit_with_usage(error)
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    sys.exit(interruption.exit_code())
  except TimeoutError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(EXIT_UNREACHABLE)
  except Exception as error:
    if not _is_for_the_user(error):
      raise
    _show_cause(error)
    print(f'error: {error}', file=sys.stderr)
    sys.exit(EXIT_ERROR)


def _exit_with_usage(error: Exception) -> None:
  print(f'error: {error}\n--help shows an example and all flags', file=sys.stderr)
  sys.exit(EXIT_USAGE)


def _is_for_the_user(error: Exception) -> bool:
  """Tells whether the message says what to do, so that the traceback would only hide it."""
  if isinstance(error, ImportError):
    return False  # Perhaps of the library itself, which is needed below.
  from pearl_tf.agents import learner
  from pearl_tf.data import files
  from pearl_tf.environments import gymnasium_adapter
  from pearl_tf.experiment import checkpoints, config, published, run_folder
  from pearl_tf.export import exporter
  from pearl_tf.launch import connection, group

  return isinstance(
    error,
    config.ConfigError
    | files.FileError
    | exporter.ExportError
    | published.PublishedError
    | run_folder.RunFolderError
    | checkpoints.CheckpointError
    | connection.DisagreementError
    | group.GroupError
    | learner.DivergenceError
    | gymnasium_adapter.EnvironmentFault
    | gymnasium_adapter.PolicyFault,
  )


def _show_cause(error: Exception) -> None:
  """Shows where a user's environment raised: that is their own code, to be mended there."""
  from pearl_tf.environments import gymnasium_adapter

  if isinstance(error, gymnasium_adapter.EnvironmentFault) and error.__cause__ is not None:
    traceback.print_exception(error.__cause__)


def quieten() -> None:
  """Hides warnings of the libraries that are known to be wrong; to be called before importing them.

  TF_CPP_MIN_LOG_LEVEL=0 in the environment shows all.
  """
  if os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3') == '0':
    return
  # TF-Agents compares with `is not ()`; Python warns when AutoGraph compiles it anew.
  warnings.filterwarnings('ignore', '"is not" with a literal', SyntaxWarning)
  # gym, which TF-Agents imports, has advice for those who use it; without this part it has none.
  sys.modules.setdefault('gym_notices', None)
