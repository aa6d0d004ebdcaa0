"""Serves exported agents over TF Serving's gRPC and REST API, where TF Serving is not installed.

  python -m serving.server --model_name=pearl --model_base_path=exports/pearl --rest_api_port=8501

The flags are TF Serving's, those marked (ours) excepted. It listens on this machine only unless
--host says otherwise, answers as soon as all models are loaded, and drains on SIGTERM.
docs/serving.md lists what differs from TF Serving.
"""

import asyncio
import dataclasses
import signal
import sys

from absl import app, flags, logging

from pearl_tf.programs import program
from serving.frontend import options

EXIT_START_FAILED = 255
"""TF Serving's exit code when its first models cannot be loaded."""
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(options.ServerOptions)}
# Flags of TF Serving that set up what this server does not have: deployments may go on giving them.
_WITHOUT_EFFECT = {
  'rest_api_num_threads': 'requests are answered by one event loop',
  'num_load_threads': 'one thread loads, and another unloads',
  'num_unload_threads': 'unloading needs no thread',
  'flush_filesystem_caches': 'nothing is flushed',
  'enable_profiler': 'there is no profiler',
  'per_process_gpu_memory_fraction': 'no GPU is used',
  'remove_unused_fields_from_bundle_metagraph': 'only the signatures are kept anyway',
  'enable_signature_method_name_check': 'there is no Classify or Regress',
  'tensorflow_session_parallelism': 'a request runs in one thread',
  'tensorflow_intra_op_parallelism': 'a request runs in one thread',
  'tensorflow_inter_op_parallelism': 'a request runs in one thread',
  'num_request_iterations_for_warmup': 'warm-up records are replayed once',
}


def _string(name: str, text: str) -> None:
  flags.DEFINE_string(name, _DEFAULTS[name], text)


def _integer(name: str, text: str) -> None:
  flags.DEFINE_integer(name, _DEFAULTS[name], text)


def _seconds(name: str, text: str) -> None:
  flags.DEFINE_float(name, _DEFAULTS[name], text)


def _bool(name: str, text: str) -> None:
  flags.DEFINE_bool(name, _DEFAULTS[name], text)


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  _define_models()
  _define_ports()
  _define_access()
  _define_limits()
  for name, why in _WITHOUT_EFFECT.items():
    flags.DEFINE_string(name, None, f'Accepted for TF Serving, no effect: {why}.')


def _define_models() -> None:
  _string('model_name', 'Name of the model, unless --model_config_file is given.')
  _string('model_base_path', 'Folder with a folder per version of that model.')
  _string('model_config_file', 'Text ModelServerConfig that lists several models.')
  _seconds(
    'model_config_file_poll_wait_seconds', 'How often that file is read again; 0 for once only.'
  )
  _seconds('file_system_poll_wait_seconds', 'How often new versions are looked for.')
  _bool(
    'allow_version_labels_for_unavailable_models',
    'A new label may point at a version that is not loaded yet.',
  )
  _integer('max_num_load_retries', 'How often a failed load is tried again (TF Serving: 5).')
  _integer('load_retry_interval_micros', 'Wait between two tries to load a version.')
  _bool('enable_model_warmup', "Replay a version's warm-up records before it is used.")
  _bool(
    'enable_batching',
    'Run requests that wait together; never waits for more to come (TF Serving: off).',
  )
  _string('batching_parameters_file', 'Text BatchingParameters; batch_timeout_micros is ignored.')


def _define_ports() -> None:
  _string('host', '(ours) Address to listen on, for both ports. TF Serving listens on all.')
  _integer('port', 'gRPC port; 0 for any free one, or for none with --grpc_socket_path.')
  _string('grpc_socket_path', 'Unix socket for gRPC, plaintext; guarded by its folder.')
  _integer(
    'rest_api_port', f'HTTP port for REST and metrics; 0 for none, {options.REST_ANY_PORT} for any.'
  )
  _integer('rest_api_timeout_in_ms', 'After which a REST request is given up.')
  _string('monitoring_config_file', 'Text MonitoringConfig: whether and where metrics are shown.')
  _string('grpc_channel_arguments', 'Like grpc.max_connection_age_ms=2000,... for the gRPC server.')
  _bool('enable_grpc_healthcheck_service', 'Offer grpc.health.v1.Health (TF Serving: off).')
  _bool('enable_grpc_reflection', '(ours) Offer reflection, for grpcurl and the like.')
  _string('ready_file', '(ours) Write the addresses there, as JSON, once everything is loaded.')


def _define_access() -> None:
  _string(
    'ssl_config_file',
    'Text SSLConfig with the contents of PEM files; covers HTTP as well (TF Serving: gRPC only).',
  )
  _string('auth_token_file', '(ours) Bearer tokens, one per line; every call needs one of them.')
  _bool(
    'allow_insecure_remote',
    '(ours) Listen beyond this machine without TLS or without authentication.',
  )
  _bool(
    'enable_reload_config_rpc',
    '(ours) Answer HandleReloadConfigRequest; who may call it decides what is loaded.',
  )
  _string('reload_root', '(ours) Folder that base paths of such a reload must lie in.')


def _define_limits() -> None:
  _integer(
    'grpc_max_threads',
    'Predict requests being answered at once; more get RESOURCE_EXHAUSTED (TF Serving: 4 a core).',
  )
  _integer('max_message_bytes', '(ours) Largest request of either port.')
  _integer('max_request_rows', '(ours) Largest batch in one request.')
  _integer('max_sequence_length', '(ours) Largest size of a free inner dimension.')
  _integer('max_request_steps', '(ours) Largest product of rows and sequence length.')
  _integer('max_tensor_elements', '(ours) Largest tensor in a request.')
  _integer('max_queued_requests', '(ours) Requests waiting for their batch.')
  _seconds('grace_seconds', '(ours) How long SIGTERM waits for running requests.')


def options_from_flags(values: flags.FlagValues) -> options.ServerOptions:
  """Returns the options that parsed flags stand for.

  Raises:
    app.UsageError: if they make no sense.
  """
  try:
    return options.ServerOptions(**{name: values[name].value for name in _DEFAULTS})
  except ValueError as error:
    raise app.UsageError(str(error)) from None


def main(argv: list[str]) -> None:
  """Serves until SIGTERM or Ctrl-C."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  settings = options_from_flags(flags.FLAGS)
  sys.exit(asyncio.run(_serve(settings)))


async def _serve(settings: options.ServerOptions) -> int:
  """Runs the server to its end; returns the exit code."""
  from serving import errors
  from serving.frontend import security

  try:
    security.Access(settings)  # Before TensorFlow takes its seconds.
    from serving.frontend import embedded

    server = embedded.EmbeddedServer(settings)
  except (ValueError, errors.ServingError) as error:
    print(f'error: {error}', file=sys.stderr)
    return program.EXIT_ERROR
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
