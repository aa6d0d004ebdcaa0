"""What every program shares: one clear line for an error the user can mend, and a quiet stderr.

`run` is how a program starts. It does not import TensorFlow, so a program that imports the library
inside its `main` answers `--help` and wrong flags at once.
"""

import atexit
import functools
import os
import re
import shutil
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable

from absl import app, flags, logging

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
_LOG_LEVEL = 'TF_CPP_MIN_LOG_LEVEL'
# What the stack says although nothing is wrong, as extended regular expressions of whole lines.
# Reverb has no log level; and that of TensorFlow which hides its three wrong errors hides all.
HARMLESS_LINES = (
  r'Unable to register cu(DNN|FFT|BLAS) factory',
  r'^Gym has been unmaintained since 2022',
  r'^Please upgrade to Gymnasium, the maintained drop-in',
  r'^See the migration guide at https://gymnasium\.farama\.org',
  r'^\[reverb/cc/[^]]*\] +(Initializing TFRecordCheckpointer|Loading latest checkpoint)',
  r'^\[reverb/cc/[^]]*\] +(Stored checkpoint|Started replay server|Shutting down replay server)',
  r'^\[reverb/cc/[^]]*\] +(Loading (checkpoint|and verifying)|Successfully loaded)',
  r'^\[reverb/cc/[^]]*\] +Metadata for table .* was successfully loaded',
  r'^\[reverb/cc/[^]]*\] +(Still|Completed) reading',
  r'^\[reverb/cc/[^]]*\] +Table .* have been successfully loaded',
  r'^\[reverb/cc/[^]]*\] +Sampler and server are owned by the same process',
)


def run(main: Callable[[list[str]], None], *, verbosity: int = logging.WARNING) -> None:
  """Parses the flags, calls `main` and ends the process.

  The exit code is 0, or 1 with `error: ...` on stderr where the user can mend the cause, 2 where
  the flags or arguments are wrong, 130 after Ctrl-C, and whatever `main` passes to `sys.exit`.
  Other exceptions keep their traceback.

  Args:
    main: takes what is left of the command line, the program's name first.
    verbosity: what absl logs unless `--verbosity` says otherwise. TensorFlow logs there, too.
  """
  silence()
  app.run(
    lambda argv: _guarded(main, argv), flags_parser=lambda argv: _parse_flags(argv, verbosity)
  )


def _parse_flags(argv: list[str], verbosity: int) -> list[str]:
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
  except app.UsageError as error:
    _exit_with_usage(error)
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    sys.exit(EXIT_INTERRUPTED)
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
  from pearl_tf.experiment import checkpoints, config, run_folder
  from pearl_tf.replay import server

  return isinstance(
    error,
    config.ConfigError
    | files.FileError
    | run_folder.RunFolderError
    | checkpoints.CheckpointError
    | server.CheckpointError
    | learner.DivergenceError
    | gymnasium_adapter.EnvironmentFault,
  )


def _show_cause(error: Exception) -> None:
  """Shows where a user's environment raised: that is their own code, to be mended there."""
  from pearl_tf.environments import gymnasium_adapter

  if isinstance(error, gymnasium_adapter.EnvironmentFault) and error.__cause__ is not None:
    traceback.print_exception(error.__cause__)


@functools.cache
def silence() -> None:
  """Hides what is known to be harmless, from now to the end of the process.

  To be called before TensorFlow is imported; TF_CPP_MIN_LOG_LEVEL=0 in the environment shows all.
  """
  if os.environ.setdefault(_LOG_LEVEL, '2') == '0':
    return
  # TF-Agents compares with `is not ()`; Python warns when AutoGraph compiles it anew.
  warnings.filterwarnings('ignore', '"is not" with a literal', SyntaxWarning)
  grep = shutil.which('grep')
  if grep:
    _filter_stderr(grep)


def _filter_stderr(grep: str) -> None:
  """Sends stderr through a process that drops harmless lines.

  A process and not a thread, because the last words of a crash in C++ must still come through; in a
  session of its own, because Ctrl-C must not end it before us.
  """
  pattern = '|'.join(HARMLESS_LINES)
  re.compile(pattern)
  original = os.dup(2)
  process = subprocess.Popen(
    [grep, '--invert-match', '--line-buffered', '--text', '--extended-regexp', pattern],
    stdin=subprocess.PIPE,
    stdout=original,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
    env={**os.environ, 'LC_ALL': 'C'},
  )
  os.dup2(process.stdin.fileno(), 2)
  process.stdin.close()

  def finish() -> None:
    sys.stderr.flush()
    os.dup2(original, 2)  # The last write end is closed, so the filter comes to its end.
    try:
      process.wait(timeout=2)
    except subprocess.TimeoutExpired:
      process.kill()

  atexit.register(finish)
