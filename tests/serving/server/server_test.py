"""The program as a process, its options, and the services beside Predict."""

import contextlib
import dataclasses
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
from absl import flags
from absl.testing import absltest, parameterized
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc

from pearl_tf.testing import test_case
from serving.server import __main__ as main
from serving.server import errors, options, process, services
from tests.serving.support import contract_cases, contract_server, toy_server

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def run(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, '-m', 'serving.server', *arguments],
    capture_output=True,
    text=True,
    timeout=timeout,
    check=False,
  )


def check_health(channel: grpc.Channel, name: str = '') -> int:
  request = health_pb2.HealthCheckRequest(service=name)
  return health_pb2_grpc.HealthStub(channel).Check(request, timeout=60).status


def slow_request():
  return contract_cases.predict('slow', contract_cases.values(), model=toy_server.MODEL)


class ProgramTest(test_case.TestCase):
  def test_help_tells_all_flags_without_importing_tensorflow(self):
    script = (
      'import runpy, sys\n'
      'try:\n'
      '  runpy.run_module("serving.server", run_name="__main__", alter_sys=True)\n'
      'finally:\n'
      '  print("tensorflow" in sys.modules)\n'
    )
    done = subprocess.run(
      [sys.executable, '-c', script, '--help'], capture_output=True, text=True, check=True
    )
    self.assertEndsWith(done.stdout, 'False\n')
    for field in dataclasses.fields(options.ServerOptions):
      self.assertIn(field.name, done.stdout)

  @parameterized.parameters(
    ([], 'give --model_base_path'),
    (['--model_base_path=/x', '--port=99999'], '--port must be between'),
    (['--model_base_path=/x', '--nonsense=1'], 'nonsense'),
    (['--model_base_path=/x', 'more'], 'unexpected arguments'),
  )
  def test_wrong_flags(self, arguments, text):
    done = run(*arguments)
    self.assertEqual(done.returncode, 2)
    self.assertIn(text, done.stderr)
    self.assertNotIn('Traceback', done.stderr)

  def test_wrong_settings(self):
    done = run('--model_base_path=/x', '--host=0.0.0.0')
    self.assertEqual(done.returncode, 1, done.stderr)
    self.assertIn('without TLS is refused', done.stderr)
    self.assertNotIn('Traceback', done.stderr)

  def test_model_that_cannot_be_loaded_ends_it(self):
    folder = self.temp_dir()
    broken = contract_server.copy_version(
      toy_server.base_path() / str(toy_server.VERSION), folder / '1'
    )
    (broken / 'saved_model.pb').write_bytes(b'\x0a\xff')
    done = run('--port=0', f'--model_base_path={folder}', '--model_name=pearl')
    self.assertEqual(done.returncode, 255, done.stderr)
    self.assertIn(
      'Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: {name: pe',
      done.stderr,
    )

  def test_drains_on_sigterm(self):
    with process.running(toy_server.settings()) as running:
      with grpc.insecure_channel(running.address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        stub.Predict(slow_request(), timeout=60)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        self.assertEqual(next(watch).status, SERVING)
        calls = [stub.Predict.future(slow_request(), timeout=60) for _ in range(3)]
        time.sleep(0.05)  # So that they have arrived.
        running.process.send_signal(signal.SIGTERM)
        self.assertEqual(next(watch).status, NOT_SERVING)
        self.assertEqual([call.code() for call in calls], [grpc.StatusCode.OK] * 3)
      # It ends before its grace of five seconds, although a client watches its health.
      self.assertEqual(running.process.wait(4.5), 0)
      with self.assertRaises(OSError):
        socket.create_connection(running.address.split(':')).close()

  def test_waits_for_the_first_version_with_its_port_closed(self):
    folder = self.temp_dir()
    with contextlib.closing(socket.socket()) as picked:
      picked.bind(('127.0.0.1', 0))
      port = picked.getsockname()[1]
    command = [sys.executable, '-m', 'serving.server', f'--port={port}']
    command += [f'--model_base_path={folder}', f'--ready_file={folder}/ready']
    waiting = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
      time.sleep(1)
      self.assertIsNone(waiting.poll())
      with self.assertRaises(OSError):
        socket.create_connection(('127.0.0.1', port)).close()
      shutil.copytree(toy_server.base_path() / str(toy_server.VERSION), folder / '.tmp-1')
      (folder / '.tmp-1').rename(folder / '1')
      contract_server.wait_for((folder / 'ready').is_file, 'the server to be ready')
      socket.create_connection(('127.0.0.1', port)).close()
    finally:
      waiting.terminate()
    waiting.communicate(timeout=60)
    self.assertEqual(waiting.returncode, 0)
    self.assertFalse((folder / 'ready').exists())

  def test_start_error_tells_why(self):
    settings = toy_server.settings(host='0.0.0.0')
    with (
      self.assertRaisesRegex(process.StartError, 'without TLS is refused'),
      process.running(settings),
    ):
      pass


class OptionsTest(test_case.TestCase):
  def test_flags_and_options_are_the_same(self):
    changed = options.ServerOptions(
      model_base_path='/a b/pearl',
      allow_insecure_remote=True,
      rest_api_port=options.REST_ANY_PORT,
      grace_seconds=1.5,
    )
    self.assertEqual(self.parse(changed.to_flags()), changed)

  def parse(self, command: list[str]) -> options.ServerOptions:
    values = flags.FlagValues()
    main.define_flags(values)
    values(['server', *command])
    return main.options_from_flags(values)

  @parameterized.parameters(
    ({}, 'give --model_base_path'),
    ({'port': 70000}, '--port'),
    ({'rest_api_port': -2}, '--rest_api_port must be'),
    ({'port': 8500, 'rest_api_port': 8500}, 'cannot be same'),
    ({'keep_versions': 0}, '--keep_versions must be positive, got 0'),
    ({'grpc_max_threads': 0}, '--grpc_max_threads must be positive, got 0'),
    ({'model_base_path': '/runs/net=[8,8]'}, r'net=\[8,8\] has \[ \] in its name'),
    ({'grace_seconds': -1.0}, '--grace_seconds must not be negative'),
  )
  def test_nonsense_is_refused(self, changes, text):
    given = changes and {'model_base_path': '/x'} | changes
    with self.assertRaisesRegex(ValueError, text):
      options.ServerOptions(**given)


class ServicesTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.server = cls.enterClassContext(toy_server.serving())
    cls.channel = cls.enterClassContext(grpc.insecure_channel(cls.server.address))

  @parameterized.parameters(*services.HEALTH_OF_THE_MODEL, *services.HEALTH_OF_ITS_STATUS)
  def test_health_knows(self, name):
    self.assertEqual(check_health(self.channel, name), SERVING)

  def test_health_of_unknown_service(self):
    error = toy_server.failure(check_health, self.channel, 'x')
    self.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND)

  def test_reflection_lists_and_describes(self):
    stub = reflection_pb2_grpc.ServerReflectionStub(self.channel)
    symbol = 'tensorflow.serving.PredictionService'
    listing, described = stub.ServerReflectionInfo(
      iter(
        [
          reflection_pb2.ServerReflectionRequest(list_services=''),
          reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol),
        ]
      )
    )
    names = {service.name for service in listing.list_services_response.service}
    self.assertContainsSubset(
      {symbol, 'tensorflow.serving.ModelService', 'grpc.health.v1.Health'}, names
    )
    self.assertIn(b'Predict', described.file_descriptor_response.file_descriptor_proto[0])


class OtherServersTest(test_case.TestCase):
  def test_health_follows_the_models(self):
    folder = self.temp_dir()
    version = contract_server.copy_version(
      toy_server.base_path() / str(toy_server.VERSION), folder / '1'
    )
    running = self.enter_context(
      toy_server.serving(model_base_path=str(folder), file_system_poll_wait_seconds=0.05)
    )
    with grpc.insecure_channel(running.address) as channel:
      self.assertEqual(check_health(channel), SERVING)
      shutil.rmtree(version)
      contract_server.wait_for(
        lambda: check_health(channel) == NOT_SERVING, 'health to notice that the model is gone'
      )
      self.assertEqual(check_health(channel, 'ModelService'), SERVING)

  def test_a_second_start_leaves_the_running_server_its_ready_file(self):
    ready = self.temp_dir() / 'ready'
    with toy_server.serving(ready_file=str(ready)) as running:
      with (
        self.assertRaisesRegex(OSError, 'cannot listen'),
        toy_server.serving(ready_file=str(ready), port=running.port),
      ):
        pass
      self.assertEqual(json.loads(ready.read_text())['address'], running.address)
    self.assertFalse(ready.exists())

  def test_port_in_use(self):
    with contextlib.closing(socket.socket()) as taken:
      taken.bind(('127.0.0.1', 0))
      taken.listen()
      port = taken.getsockname()[1]
      with (
        self.assertRaisesRegex(OSError, 'cannot listen at 127.0.0.1:'),
        toy_server.serving(port=port),
      ):
        pass

  def test_failed_start_leaves_nothing_behind(self):
    folder = self.temp_dir()
    (folder / '1').mkdir()
    with (
      self.assertRaisesRegex(errors.ServingError, 'did not become available'),
      toy_server.serving(model_base_path=str(folder)),
    ):
      pass
    self.assertNotIn('background-server', {thread.name for thread in threading.enumerate()})

  def test_address_of_ipv6(self):
    with toy_server.serving(host='::1') as running:
      self.assertStartsWith(running.address, '[::1]:')
      with grpc.insecure_channel(running.address) as channel:
        check_health(channel)


if __name__ == '__main__':
  absltest.main()
