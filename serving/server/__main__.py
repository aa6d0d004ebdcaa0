"""Serves an exported agent by TensorFlow Serving's gRPC and REST calls, where that is not there.

  python -m serving.server --model_base_path=exports/demo/pearl --rest_api_port=8501

It listens on this machine only unless --host says otherwise, answers as soon as the model is
loaded, takes up new versions and drains on SIGTERM. docs/serving.md lists what differs from
TensorFlow Serving.
"""

import asyncio
import dataclasses
import gc
import signal
import sys

from absl import app, flags, logging

from pearl_tf.programs import program
from serving.server import options

# A version that is being loaded keeps the interpreter busy, and a call needs it several times.
_SWITCH_SECONDS = 5e-4
EXIT_START_FAILED = 255
"""TensorFlow Serving's exit code when its first model cannot be loaded."""
_DEFINE = {
  str: flags.DEFINE_string,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  bool: flags.DEFINE_bool,
}


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  for field in dataclasses.fields(options.ServerOptions):
    text = field.metadata['help']
    _DEFINE[field.type](field.name, field.default, text, flag_values=values)


def options_from_flags(values: flags.FlagValues) -> options.ServerOptions:
  """Returns the options that parsed flags stand for.

  Raises:
    app.UsageError: if they make no sense.
  """
  names = [field.name for field in dataclasses.fields(options.ServerOptions)]
  try:
    return options.ServerOptions(**{name: values[name].value for name in names})
  except ValueError as error:
    raise app.UsageError(str(error)) from None


def main(argv: list[str]) -> None:
  """Serves until SIGTERM or Ctrl-C."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  sys.exit(asyncio.run(_serve(options_from_flags(flags.FLAGS))))


async def _serve(settings: options.ServerOptions) -> int:
  """Runs the server to its end; returns the exit code."""
  from serving.server import access

  try:
    access.Access(settings)  # Before TensorFlow takes its seconds.
    from serving.server import errors
    from serving.server import server as server_lib

    server = server_lib.Server(settings)
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    return program.EXIT_ERROR
  sys.setswitchinterval(_SWITCH_SECONDS)
  # What is imported by now stays; the collections after each unload need not look at it.
  gc.collect()
  gc.freeze()
  asked_to_stop = asyncio.Event()
  loop = asyncio.get_running_loop()
  for number in (signal.SIGTERM, signal.SIGINT):
    loop.add_signal_handler(number, asked_to_stop.set)
  starting = asyncio.create_task(server.start())
  stopping = asyncio.create_task(asked_to_stop.wait())
  await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
  if starting.done():
    try:
      starting.result()
    except (OSError, ValueError, errors.ServingError) as error:
      print(f'Failed to start server. Error: {error}', file=sys.stderr)
      stopping.cancel()
      return EXIT_START_FAILED
    print(f'serving gRPC at {server.address}, HTTP at {server.rest_address}', flush=True)
    await stopping
    print('draining', flush=True)
    await server.stop()
  else:  # A model is still awaited.
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
  return 0


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main, verbosity=logging.INFO)


if __name__ == '__main__':
  run()
