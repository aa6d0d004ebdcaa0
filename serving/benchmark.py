"""Measures how fast the server answers on this machine, beside what Python and TensorFlow allow.

  python -m serving.benchmark
  python -m serving.benchmark --export_dir=runs/demo/export --clients=1,8

Prints tables, then one JSON object per line (into a file with --output): throughput and latency of
`act`, `update` and `adapt_and_act` beside an echo server without TensorFlow, the bare session call
and the server without batching, which all take turns; processor time, memory, start-up and reload.
Every figure is measured in this run. Without --export_dir an untrained agent of the published
experiments' sizes is served: the cost of a call depends on sizes alone. Progress goes to stderr.
Use a machine that does nothing else; the load at the start is part of the report.
"""

import contextlib
import pathlib
import sys
import tempfile

from absl import app, flags, logging

from pearl_tf.programs import program

_WIDTH = 150


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string(
    'export_dir', None, 'What serving.export wrote; by default an untrained agent is exported.'
  )
  flags.DEFINE_float(
    'seconds', 3.0, 'How long each contender is called in each cell of the table.', 0.001
  )
  flags.DEFINE_list('clients', '1,8,32', 'How many clients call at the same time.')
  flags.DEFINE_string('output', None, 'File for the JSON lines instead of standard output.')


def main(argv: list[str]) -> None:
  """Measures and reports."""
  options = flags.FLAGS
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  clients = _numbers(options.clients)
  logging.set_verbosity(logging.WARNING)  # Saving a model logs a line for each of its variables.
  # Not above: --help and wrong flags are answered at once, without loading TensorFlow.
  import rich.console

  from serving.benchmarking import helper_process, report, suite
  from serving.frontend import process

  with contextlib.ExitStack() as stack:
    export_dir = options.export_dir
    if export_dir is None:
      export_dir = stack.enter_context(_untrained_export())
    try:
      benchmark = suite.Benchmark(export_dir, seconds=options.seconds, clients=clients)
      records = benchmark.run(lambda text: print(text, file=sys.stderr, flush=True))
    except (ValueError, process.StartError, helper_process.HelperError) as error:
      sys.exit(f'error: {error}')
  # A file or a pipe has no width of its own; rich would take 80 columns.
  width = None if sys.stdout.isatty() else _WIDTH
  rich.console.Console(width=width).print(report.tables(records))
  lines = report.json_lines(records)
  if options.output is None:
    print(lines, end='')
  else:
    path = pathlib.Path(options.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines)
    print(f'written to {path}')


@contextlib.contextmanager
def _untrained_export():
  from serving.benchmarking import untrained_agent

  with tempfile.TemporaryDirectory() as directory:
    print('exporting an untrained agent', file=sys.stderr, flush=True)
    yield untrained_agent.export(pathlib.Path(directory))


def _numbers(texts: list[str]) -> tuple[int, ...]:
  numbers = tuple(int(text) if text.isdecimal() else 0 for text in texts)
  if not numbers or min(numbers) < 1:
    raise app.UsageError(f'--clients must be positive numbers like 1,8,32, got {",".join(texts)!r}')
  return numbers


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
