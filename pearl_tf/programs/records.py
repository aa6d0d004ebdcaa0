"""Measurements as JSON lines, to standard output or a file."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from pearl_tf.data import files


def define_output() -> None:
  """Defines --output."""
  flags.DEFINE_string('output', None, 'File for the JSON lines instead of standard output.')


def check_output(options: flags.FlagValues) -> None:
  """Raises `FileError` if --output cannot be written: before the work, not after it."""
  if options.output is not None:
    files.output_file(options.output, '--output')


def write(records: Sequence[Mapping[str, Any]], options: flags.FlagValues) -> None:
  """Writes one JSON object a line, in the order of the records."""
  lines = ''.join(json.dumps(record, allow_nan=False) + '\n' for record in records)
  if options.output is None:
    print(lines, end='')
  else:
    files.write_text(pathlib.Path(options.output), lines)
    print(f'written to {options.output}')
