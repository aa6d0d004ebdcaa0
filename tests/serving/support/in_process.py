"""Programs run in the process of a test, which several may be, one after the other."""

import contextlib
import io
import types

from absl import flags
from absl.testing import flagsaver


def run_main(
  module: types.ModuleType, *arguments: str, printed: io.StringIO | None = None, **values
) -> str:
  """Runs a program's `main` and returns what it printed.

  Args:
    module: the program, with `define_flags` and `main`; its flags are gone afterwards.
    *arguments: of its command line, beside flags.
    printed: takes what it prints, also if it raises.
    **values: of its flags.
  """
  before = set(flags.FLAGS)
  module.define_flags()
  try:
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()
    printed = io.StringIO() if printed is None else printed
    with flagsaver.flagsaver(**values), contextlib.redirect_stdout(printed):
      module.main([module.__name__, *arguments])
    return printed.getvalue()
  finally:
    for name in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, name)
