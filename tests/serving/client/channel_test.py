import os
import pathlib
import socket
import threading
import traceback

import grpc
import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.testing import scripted_server, test_case
from serving import client
from serving.client import channel
from tests.serving.support import certificates

GENEROUS = client.Deadlines(connect=30.0, act=20.0, adapt=20.0, begin=20.0)
HASTY = client.Deadlines(connect=1.0)
CODE = grpc.StatusCode
SECRET = '0123456789abcdef0123456789abcdef'


def free_address():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return f'127.0.0.1:{probe.getsockname()[1]}'


class ChannelTest(test_case.TestCase):
  def start(self, **arguments):
    return self.enter_context(
      scripted_server.ScriptedServer({1: scripted_server.ToyModel(11)}, **arguments)
    )

  def connect(self, server, **options):
    options = {'deadlines': GENEROUS} | options
    return self.enter_context(client.connect(server.address, client.Options(**options)))

  def in_episode(self, server, **options):
    session = self.enter_context(client.Session(self.connect(server, **options)))
    session.begin_episode()
    return session

  def pauses(self):
    """Returns the list that the waits between attempts will be in; none is waited for."""
    pauses = []
    time = channel.time
    self.enter_context(
      absltest.mock.patch.object(channel, 'time', absltest.mock.Mock(wraps=time))
    ).sleep = pauses.append
    return pauses

  @parameterized.product(
    code=[CODE.UNAVAILABLE, CODE.RESOURCE_EXHAUSTED], method=['act', 'sample_z']
  )
  def test_retries(self, code, method):
    server = self.start()
    session = self.in_episode(server)
    expected = session.step([1.0, 2.0]).value
    pauses = self.pauses()
    server.fail_next(code, times=8, details='Server Threadpool Exhausted', signature=method)
    if method == 'act':
      self.assertAllEqual(session.step([1.0, 2.0]).value, expected)
    else:
      session.begin_episode()
    limits = [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]
    self.assertLen(pauses, len(limits))
    for pause, limit in zip(pauses, limits, strict=True):
      self.assertBetween(pause, 0.8 * limit, limit)

  def test_no_retry_that_comes_too_late(self):
    server = self.start()
    session = self.in_episode(server)
    self.pauses()
    server.fail_next(CODE.UNAVAILABLE, times=1000, details='overloaded')
    with self.assertRaisesRegex(client.errors.CallError, 'UNAVAILABLE: overloaded') as caught:
      session.step([1.0, 2.0], timeout=0.5)
    self.assertIs(caught.exception.code, CODE.UNAVAILABLE)
    # After 20, 40, 80, 160 and 320 ms, of which none passes here; 640 would not fit.
    self.assertBetween(len(server.received('act')), 1, 6)

  @parameterized.parameters(
    CODE.INVALID_ARGUMENT, CODE.FAILED_PRECONDITION, CODE.INTERNAL, CODE.PERMISSION_DENIED
  )
  def test_other_errors_are_not_retried(self, code):
    server = self.start()
    session = self.in_episode(server)
    server.fail_next(code, details='wrong', signature='act')
    with self.assertRaisesRegex(client.errors.CallError, f'act at .*{code.name}: wrong'):
      session.step([1.0, 2.0])
    self.assertLen(server.received('act'), 1)

  def test_every_operation_has_its_deadline(self):
    server = self.start()
    deadlines = client.Deadlines(connect=1000.0, act=2000.0, adapt=3000.0, begin=4000.0)
    session = self.in_episode(server, deadlines=deadlines)
    session.step([0.0, 0.0])
    session.step([0.0, 0.0], 1.0, timeout=5000.0)
    session.adapt()
    expected = {
      'GetModelMetadata': [1000, 4000],
      'encode': [4000],
      'sample_z': [4000],
      'act': [2000, 5000],
      'update': [3000],
    }
    for signature, seconds in expected.items():
      left = [call.seconds_left for call in server.received(signature)]
      self.assertAllClose(left, seconds, atol=300.0, msg=signature)  # A loaded machine.

  def test_a_proxy_is_not_for_this_machine(self):
    elsewhere = {'http_proxy': f'http://{free_address()}', 'no_proxy': '', 'no_grpc_proxy': ''}
    with absltest.mock.patch.dict(os.environ, elsewhere):
      self.in_episode(self.start()).step([1.0, 2.0])

  def test_nobody_listens(self):
    address = free_address()
    unix = f'unix:{self.temp_dir()}/socket'
    for where in (address, unix):
      with self.assertRaises(client.errors.CallError) as caught:
        client.connect(where, client.Options(deadlines=GENEROUS))
      self.assertIs(caught.exception.code, CODE.UNAVAILABLE)
      self.assertRegex(str(caught.exception), f'nobody listens at {where}: is the server started')
    with self.assertRaisesRegex(client.errors.CallError, 'no machine is known by the name'):
      client.connect('no-such-machine.invalid:1', client.Options(deadlines=GENEROUS))

  def test_a_server_that_says_nothing(self):
    with socket.socket() as deaf:
      deaf.bind(('127.0.0.1', 0))
      deaf.listen()
      address = f'127.0.0.1:{deaf.getsockname()[1]}'
      with self.assertRaises(client.errors.CallError) as caught:
        client.connect(address, client.Options(deadlines=client.Deadlines(connect=0.2)))
    self.assertIs(caught.exception.code, CODE.DEADLINE_EXCEEDED)
    self.assertRegex(
      str(caught.exception), f'nothing at {address} has answered within 0.2 s.*Deadlines.connect'
    )

  def test_waiting_for_a_server(self):
    address = free_address()
    server = scripted_server.ScriptedServer({1: scripted_server.ToyModel(11)}, address=address)
    refused = threading.Event()
    self.addCleanup(server.__exit__)

    def start_then(*unused_arguments):
      refused.set()
      server.__enter__()

    # The port is bound, but nobody answers before the server starts.
    with (
      absltest.mock.patch.object(channel._log, 'info', side_effect=start_then),
      client.connect(address, client.Options(deadlines=HASTY), wait_seconds=60.0),
    ):
      self.assertTrue(refused.is_set())

  def test_is_ready(self):
    server = self.start(token='a')
    connection = self.connect(server, token='a')
    self.assertTrue(connection.is_ready())
    server.versions = {}
    self.assertFalse(connection.is_ready())
    server.token = 'b'
    with self.assertRaisesRegex(client.errors.CallError, 'UNAUTHENTICATED'):
      connection.is_ready()
    nobody = self.enter_context(client.Connection(free_address()))
    self.assertFalse(nobody.is_ready())

  def test_a_server_comes_back(self):
    address = free_address()
    server = scripted_server.ScriptedServer({1: scripted_server.ToyModel(11)}, address=address)
    with server:
      session = self.in_episode(server)
      session.step([1.0, 0.0])
    with self.assertRaises(client.errors.CallError):
      session.step([1.0, 0.0], 1.0, timeout=0.01)
    again = scripted_server.ScriptedServer({1: scripted_server.ToyModel(11)}, address=address)
    with again:
      # Retried until the connection is there again, with its belief and latent.
      session.step([2.0, 0.0])
      self.assertEqual([call.signature for call in again.calls], ['act'])

  def test_reconnecting_takes_a_second_at_most(self):
    arguments = channel._ARGUMENTS
    self.assertLessEqual(1.2 * arguments['grpc.max_reconnect_backoff_ms'], 1000)  # With its jitter.
    self.assertLessEqual(
      arguments['grpc.keepalive_time_ms'] + arguments['grpc.keepalive_timeout_ms'], 15_000
    )

  def test_closed(self):
    session = self.in_episode(self.start())
    session._model.close()
    with self.assertRaisesRegex(client.errors.ClientError, 'the connection to .* is closed'):
      session.step([0.0, 0.0])

  def test_unknown_model(self):
    server = self.enter_context(scripted_server.ScriptedServer({}))
    with self.assertRaisesRegex(
      client.errors.CallError, r"NOT_FOUND: .*Latest\(other\).*model_name is 'other'"
    ):
      self.connect(server, model_name='other')

  def test_foreign_model(self):
    server = self.start()
    model = server.versions[1]
    signatures = model.signatures()
    del signatures.signature_def['sample_z']
    model.signatures = lambda: signatures
    with self.assertRaisesRegex(client.errors.ModelMismatchError, "no signature 'sample_z'"):
      self.connect(server)

  def test_row_errors(self):
    server = self.start()
    session = self.in_episode(server)
    model = server.versions[1]
    act = model._act
    model._act = lambda **inputs: act(**inputs) | {'status': np.array([3], np.int32)}
    with self.assertRaisesRegex(client.errors.BadNumbersError, r'act: status 3 in row\(s\) \[0\]'):
      session.step([0.0, 0.0])

  def test_token(self):
    server = self.start(token=SECRET)
    for wrong in ({}, {'token': 'wrong'}):
      with self.assertRaises(client.errors.CallError) as caught:
        self.connect(server, **wrong)
      self.assertIs(caught.exception.code, CODE.UNAUTHENTICATED)
      self.assertNotIn("'wrong'", str(caught.exception))
      self.assertIn('Options.token', str(caught.exception))
    self.in_episode(server, token=f'{SECRET}\n').step([0.0, 0.0])
    tokens = [SECRET]
    session = self.in_episode(server, token=lambda: tokens[0])
    tokens[0] = server.token = 'the-next-one'
    session.step([0.0, 0.0])

  def test_token_of_a_file_is_read_again(self):
    server = self.start(token=SECRET)
    file = self.temp_dir() / 'token'
    file.write_text(f'{SECRET}\n')
    session = self.in_episode(server, token_file=str(file))
    file.write_text('')  # Somebody is writing it.
    session.step([0.0, 0.0])
    file.unlink()
    session.step([0.0, 0.0])
    server.token = 'the-next-one'
    file.write_text('the-next-one\n')
    session.step([0.0, 0.0])
    with self.assertRaisesRegex(client.errors.CredentialsError, 'nothing-here cannot be read'):
      self.connect(server, token_file='nothing-here')

  @parameterized.parameters(f'{SECRET}\n{SECRET}', f'\u00e9{SECRET}', f'{SECRET}\x00', b'', '')
  def test_a_token_that_cannot_be_sent(self, token):
    for given in (token, lambda: token):
      with self.assertRaises((ValueError, client.errors.ClientError)) as caught:
        client.connect(
          'localhost:1', client.Options(token=given, deadlines=client.Deadlines(connect=1.0))
        )
      self.assertIsInstance(
        caught.exception, ValueError if given is token else client.errors.ClientError
      )
      text = ''.join(traceback.format_exception(caught.exception))
      self.assertNotIn(SECRET[:8], text)
      self.assertRegex(text, 'oken must be')

  def test_no_secret_is_shown(self):
    tls = client.Tls(ca_file='ca.pem', key_file='key.pem', cert_file='cert.pem')
    self.assertNotIn(SECRET, repr(client.Options(token=SECRET, tls=tls)))

  def test_no_token_in_plaintext(self):
    options = client.Options(token='secret')
    for address in ('robot.example.com:8500', '192.0.2.1:8500', '[2001:db8::1]:8500'):
      with self.assertRaisesRegex(ValueError, 'would travel to .* in plaintext'):
        client.Connection(address, options)
    for address in ('localhost:8500', '127.0.0.1:1', '[::1]:8500', 'unix:/tmp/socket'):
      client.Connection(address, options).close()
    allowed = client.Options(token_file='token', send_token_in_plaintext=True)
    client.Connection('robot.example.com:8500', allowed).close()

  def write(self, folder, authority, name):
    pair = authority.issue(name)
    for file, content in (
      ('ca', authority.certificate),
      ('key', pair.key),
      ('cert', pair.certificate),
    ):
      (folder / f'{file}.pem').write_bytes(content)
    return pair

  def test_tls_whose_files_change(self):
    first, second = certificates.Authority(), certificates.Authority()
    folder = self.temp_dir()
    files = {f'{name}_file': str(folder / f'{name}.pem') for name in ('ca', 'key', 'cert')}

    def serve(authority, address='127.0.0.1:0'):
      pair = self.write(folder, authority, 'server')
      credentials = grpc.ssl_server_credentials(
        [(pair.key, pair.certificate)], authority.certificate, require_client_auth=True
      )
      return scripted_server.ScriptedServer(
        {1: scripted_server.ToyModel(11)}, credentials=credentials, address=address
      )

    with serve(first) as server:
      session = self.in_episode(server, tls=client.Tls(**files), token='x')
      session.step([0.0, 0.0])
      self.assertEqual(server.calls[-1].metadata['authorization'], 'Bearer x')
      for wrong in (None, client.Tls(ca_file=files['ca_file'])):
        with self.assertRaises(client.errors.CallError):
          self.connect(server, tls=wrong, deadlines=HASTY)
      address = server.address
    # Everybody gets new certificates, and the session goes on.
    with serve(second, address) as server:
      session.step([0.0, 0.0])
      pathlib.Path(files['key_file']).unlink()  # Being replaced.
      session.step([0.0, 0.0])
      self.assertLen(server.received('act'), 2)
      (folder / 'other.pem').write_bytes(first.certificate)
      with self.assertRaisesRegex(client.errors.CallError, 'TLS failed: do Options.tls and'):
        self.connect(server, tls=client.Tls(ca_file=str(folder / 'other.pem')), deadlines=HASTY)
    with self.assertRaisesRegex(client.errors.CredentialsError, 'nothing.pem cannot be read'):
      client.Connection('localhost:1', client.Options(tls=client.Tls(ca_file='nothing.pem')))

  @parameterized.parameters(
    (lambda: client.Deadlines(act=0.0), r'Deadlines.act must be in .*got 0.0'),
    (lambda: client.Deadlines(begin=float('nan')), r'Deadlines.begin must be in .*got nan'),
    # gRPC would take it for one that has passed.
    (lambda: client.Deadlines(adapt=float('inf')), r'Deadlines.adapt must be in .*got inf'),
    (
      lambda: client.Deadlines(connect='1'),
      "Deadlines.connect must be a number of seconds, got '1'",
    ),
    (lambda: client.Tls(key_file='x'), 'go together'),
    (lambda: client.Options(model_name=''), "model_name must be a text, not empty, got ''"),
    (lambda: client.Options(model_name=b'pearl'), 'model_name must be a text'),
    (lambda: client.Options(max_message_bytes=1), 'of 65536 to 2147483647, got 1'),
    (lambda: client.Options(max_message_bytes=2**31), 'got 2147483648'),
    (lambda: client.Options(max_message_bytes=1e6), 'must be an integer'),
    (lambda: client.Options(token='x', token_file='y'), 'exclude each other'),
    (lambda: client.Connection(''), "must be 'host:port'"),
  )
  def test_options_are_checked(self, make, message):
    with self.assertRaisesRegex(ValueError, message):
      make()

  @parameterized.parameters(
    {'deadlines': client.Deadlines(act=86_400, begin=86_400.0, adapt=86_400, connect=86_400)},
    {'max_message_bytes': 2**31 - 1},
    {'max_message_bytes': 2**16},
    {'version_label': None, 'model_name': 'p' * 300},
  )
  def test_what_is_accepted_works(self, **options):
    self.in_episode(self.start(), **options).step([0.0, 0.0])

  def test_version_label(self):
    connection = self.connect(self.start(), version_label='stable')
    specs = []
    call = connection._call

    def recording(method, request, *arguments, **settings):
      specs.append((method, request.model_spec.version_label, request.model_spec.version.value))
      return call(method, request, *arguments, **settings)

    connection._call = recording
    session = self.enter_context(client.Session(connection))
    session.begin_episode()
    session.begin_episode()
    session.step([0.0, 0.0])
    self.assertEqual(
      specs,
      [
        ('GetModelMetadata', 'stable', 0),
        ('Predict', '', 1),
        ('Predict', '', 1),
        ('Predict', 'stable', 0),
        ('Predict', '', 1),
      ],
    )


if __name__ == '__main__':
  absltest.main()
