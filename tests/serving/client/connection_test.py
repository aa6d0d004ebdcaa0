import asyncio
import datetime
import ipaddress
import json
import socket
import threading
import time

import grpc
import numpy as np
from absl.testing import absltest, parameterized
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pearl_tf.testing import scripted_server, test_case
from serving import client

GENEROUS = client.Deadlines(connect=30.0, act=20.0, adapt=20.0, describe=20.0)
CODE = grpc.StatusCode


def certificate(authority=None):
  """Returns PEM key and certificate for this machine; signed by `authority`, or by itself."""
  key = ec.generate_private_key(ec.SECP256R1())
  name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, 'localhost')])
  issuer_name, issuer_key = authority or (name, key)
  names = [x509.DNSName('localhost'), x509.IPAddress(ipaddress.ip_address('127.0.0.1'))]
  now = datetime.datetime.now(datetime.UTC)
  signed = (
    x509.CertificateBuilder()
    .subject_name(name)
    .issuer_name(issuer_name)
    .public_key(key.public_key())
    .serial_number(x509.random_serial_number())
    .not_valid_before(now - datetime.timedelta(days=1))
    .not_valid_after(now + datetime.timedelta(days=1))
    .add_extension(x509.SubjectAlternativeName(names), critical=False)
    .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
    .sign(issuer_key, hashes.SHA256())
  )
  pem = key.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
  )
  return pem, signed.public_bytes(serialization.Encoding.PEM)


class ConnectionTest(test_case.TestCase):
  def start(self, **arguments):
    return self.enter_context(
      scripted_server.ScriptedServer({1: scripted_server.ToyModel(11)}, **arguments)
    )

  def connect(self, server, **options):
    options = {'deadlines': GENEROUS} | options
    return self.enter_context(client.connect(server.address, client.Options(**options)))

  def in_episode(self, server, **options):
    session = client.Session(self.connect(server, **options))
    session.begin_episode()
    return session

  @parameterized.product(
    code=[CODE.UNAVAILABLE, CODE.RESOURCE_EXHAUSTED], method=['act', 'GetModelMetadata']
  )
  def test_retry_after_two_failures(self, code, method):
    server = self.start()
    session = self.in_episode(server)
    expected = session.act([1.0, 2.0])
    first = len(server.received(method))
    server.fail_next(code, times=2, details='Server Threadpool Exhausted', signature=method)
    if method == 'act':
      self.assertAllEqual(session.act([1.0, 2.0]), expected)
    else:
      session.begin_episode()
    times = [call.time for call in server.received(method)[first:]]
    self.assertLen(times, 3)
    # 20 ms and 40 ms, a fifth less at the least.
    self.assertGreater(times[1] - times[0], 0.015)
    self.assertGreater(times[2] - times[1], 0.031)

  def test_three_retries_at_most(self):
    server = self.start()
    session = self.in_episode(server)
    server.fail_next(CODE.UNAVAILABLE, times=4, details='overloaded')
    with self.assertRaisesRegex(client.errors.CallError, 'UNAVAILABLE: overloaded') as caught:
      session.act([1.0, 2.0])
    self.assertIs(caught.exception.code, CODE.UNAVAILABLE)
    self.assertLen(server.received('act'), 4)
    session.act([1.0, 2.0])

  @parameterized.parameters(
    CODE.INVALID_ARGUMENT, CODE.FAILED_PRECONDITION, CODE.INTERNAL, CODE.NOT_FOUND
  )
  def test_other_errors_are_not_retried(self, code):
    server = self.start()
    session = self.in_episode(server)
    server.fail_next(code, details='wrong', signature='act')
    with self.assertRaisesRegex(client.errors.CallError, f'act at .*{code.name}: wrong'):
      session.act([1.0, 2.0])
    self.assertLen(server.received('act'), 1)

  def test_retries_may_be_switched_off(self):
    server = self.start()
    session = self.in_episode(server, retries=client.Retries(number=0))
    server.fail_next(CODE.UNAVAILABLE)
    with self.assertRaises(client.errors.CallError):
      session.act([1.0, 2.0])
    self.assertLen(server.received('act'), 1)

  def test_asyncio_retries_too(self):
    server = self.start()

    async def run():
      async with await client.aio.connect(
        server.address, client.Options(deadlines=GENEROUS)
      ) as connection:
        session = client.aio.Session(connection)
        await session.begin_episode()
        server.fail_next(CODE.UNAVAILABLE, times=2)
        await session.act([1.0, 2.0])
        server.fail_next(CODE.INVALID_ARGUMENT)
        with self.assertRaises(client.errors.CallError):
          await session.act([1.0, 2.0])

    asyncio.run(run())
    self.assertLen(server.received('act'), 4)

  def test_many_sessions_in_one_loop(self):
    server = self.start()
    server.delay_seconds = 0.05

    async def episode(connection, seed):
      session = client.aio.Session(connection, seed=seed)
      await session.begin_episode()
      session.observe([float(seed), 0.0], [0.0, 0.0], 0.0)
      await session.adapt()
      return float(session.belief.eta[0])

    async def run():
      options = client.Options(deadlines=GENEROUS)
      async with await client.aio.connect(server.address, options) as connection:
        return await asyncio.gather(*(episode(connection, seed) for seed in range(4)))

    self.assertEqual(asyncio.run(run()), [0.0, 1.0, 2.0, 3.0])
    # After the call of connecting: one session does not wait for the other to come to its end.
    self.assertEqual([call.signature for call in server.calls[1:3]], ['GetModelMetadata'] * 2)

  def test_every_call_has_its_deadline(self):
    server = self.start()
    deadlines = client.Deadlines(connect=30.0, act=11.0, adapt=12.0, describe=13.0)
    session = self.in_episode(server, deadlines=deadlines)
    session.act([0.0, 0.0])
    session.observe([0.0, 0.0], [0.0, 0.0], 0.0)
    session.adapt()
    session.begin_episode()
    expected = {'encode': 12.0, 'sample_z': 11.0, 'act': 11.0, 'update': 12.0}
    for signature, seconds in expected.items():
      for call in server.received(signature):
        self.assertBetween(call.seconds_left, seconds - 5.0, seconds + 0.5)  # gRPC rounds up.
    connecting, beginning, *_ = server.received('GetModelMetadata')
    self.assertBetween(connecting.seconds_left, 25.0, 30.5)
    self.assertBetween(beginning.seconds_left, 8.0, 13.5)

  @parameterized.parameters('blocking', 'asyncio')
  def test_deadline_is_kept(self, kind):
    server = self.start()
    deadlines = client.Deadlines(connect=30.0, act=0.3, adapt=20.0, describe=20.0)
    options = client.Options(deadlines=deadlines)

    async def act_in_asyncio():
      async with await client.aio.connect(server.address, options) as connection:
        session = client.aio.Session(connection)
        await session.begin_episode()
        server.delay_seconds = 1.5
        await session.act([0.0, 0.0])

    started = time.monotonic()
    with self.assertRaises(client.errors.CallError) as caught:
      if kind == 'asyncio':
        asyncio.run(act_in_asyncio())
      else:
        session = self.in_episode(server, deadlines=deadlines)
        server.delay_seconds = 1.5
        started = time.monotonic()
        session.act([0.0, 0.0])
    self.assertIs(caught.exception.code, CODE.DEADLINE_EXCEEDED)
    if kind == 'blocking':
      self.assertLess(time.monotonic() - started, 1.4)

  def test_connecting_waits_for_the_server(self):
    with socket.socket() as probe:
      probe.bind(('127.0.0.1', 0))
      address = f'127.0.0.1:{probe.getsockname()[1]}'
    server = scripted_server.ScriptedServer({1: scripted_server.ToyModel(11)}, address=address)

    def serve_later():
      time.sleep(0.5)
      server.__enter__()

    # The port is bound, but nobody answers before the server starts.
    thread = threading.Thread(target=serve_later)
    thread.start()
    self.addCleanup(server.__exit__)
    self.addCleanup(thread.join)
    started = time.monotonic()
    with client.connect(address, client.Options(deadlines=GENEROUS)):
      self.assertGreater(time.monotonic() - started, 0.4)

  def test_nobody_there(self):
    with socket.socket() as probe:
      probe.bind(('127.0.0.1', 0))
      address = f'127.0.0.1:{probe.getsockname()[1]}'
    options = client.Options(deadlines=client.Deadlines(connect=0.3, describe=0.3))
    with self.assertRaises(client.errors.CallError) as caught:
      client.connect(address, options)
    self.assertIs(caught.exception.code, CODE.DEADLINE_EXCEEDED)
    connection = self.enter_context(client.Connection(address, options))
    started = time.monotonic()
    with self.assertRaises(client.errors.CallError):
      client.Session(connection).begin_episode()
    self.assertLess(time.monotonic() - started, 5.0)

  def test_unknown_model(self):
    server = scripted_server.ScriptedServer({})
    self.enter_context(server)
    with self.assertRaisesRegex(client.errors.CallError, r'NOT_FOUND: .*Latest\(other\)'):
      self.connect(server, model_name='other')

  def test_foreign_model(self):
    server = self.start()
    model = server.versions[1]
    signatures = model.signatures()
    del signatures.signature_def['sample_z']
    model.signatures = lambda: signatures
    with self.assertRaisesRegex(client.errors.ModelMismatchError, "no signature 'sample_z'"):
      self.connect(server)

  def test_sizes(self):
    connection = self.connect(self.start())
    sizes = connection.connect()
    self.assertEqual(sizes[:4], (2, 2, 3, 5))
    self.assertFalse(sizes.uses_next_observation)

  def test_row_errors(self):
    server = self.start()
    session = self.in_episode(server)
    model = server.versions[1]
    act = model._act
    model._act = lambda **inputs: act(**inputs) | {'status': np.array([3], np.int32)}
    with self.assertRaisesRegex(client.errors.BadNumbersError, r'act: status 3 in row\(s\) \[0\]'):
      session.act([0.0, 0.0])

  def test_token(self):
    server = self.start(token='secret-of-the-robot')
    tokens = ['wrong', 'secret-of-the-robot']
    with self.assertRaises(client.errors.CallError) as caught:
      self.connect(server, token=tokens[0])
    self.assertIs(caught.exception.code, CODE.UNAUTHENTICATED)
    self.assertNotIn('wrong', str(caught.exception))
    with self.assertRaises(client.errors.CallError):
      self.connect(server)
    session = self.in_episode(server, token=tokens[1])
    session.act([0.0, 0.0])
    rotating = client.Options(token=lambda: tokens[1], deadlines=GENEROUS)
    session = client.Session(self.enter_context(client.connect(server.address, rotating)))
    tokens[1] = server.token = 'the-next-secret-one'
    session.begin_episode()
    self.assertNotIn('secret', repr(client.Options(token='secret')))

  def test_no_token_in_plaintext(self):
    options = client.Options(token='secret')
    for address in ('robot.example.com:8500', '192.0.2.1:8500', '[2001:db8::1]:8500'):
      with self.assertRaisesRegex(ValueError, 'would travel to .* in plaintext'):
        client.Connection(address, options)
    for address in ('localhost:8500', '127.0.0.1:1', '[::1]:8500', 'unix:/tmp/socket'):
      client.Connection(address, options).close()
    allowed = client.Options(token='secret', send_token_in_plaintext=True)
    client.Connection('robot.example.com:8500', allowed).close()

  def test_tls(self):
    key, chain = certificate()
    server = self.start(credentials=grpc.ssl_server_credentials([(key, chain)]))
    folder = self.temp_dir()
    (folder / 'ca.pem').write_bytes(chain)
    tls = client.Tls.from_files(ca_file=str(folder / 'ca.pem'))
    self.in_episode(server, tls=tls, token='x').act([0.0, 0.0])
    self.assertEqual(server.calls[-1].metadata['authorization'], 'Bearer x')
    hasty = client.Deadlines(connect=1.0)
    for wrong in (None, client.Tls(root_certificates=certificate()[1])):
      with self.assertRaises(client.errors.CallError):
        self.connect(server, tls=wrong, deadlines=hasty)

  def test_mutual_tls(self):
    server_key, server_chain = certificate()
    client_key, client_chain = certificate()
    credentials = grpc.ssl_server_credentials(
      [(server_key, server_chain)], root_certificates=client_chain, require_client_auth=True
    )
    server = self.start(credentials=credentials)
    mutual = client.Tls(server_chain, client_key, client_chain)
    self.in_episode(server, tls=mutual).act([0.0, 0.0])
    self.assertNotIn('PRIVATE', repr(mutual))
    with self.assertRaises(client.errors.CallError):
      self.connect(server, tls=client.Tls(server_chain), deadlines=client.Deadlines(connect=1.0))

  @parameterized.parameters(
    (lambda: client.Deadlines(act=0.0), 'Deadlines.act must be positive'),
    (lambda: client.Retries(number=4), 'between 0 and 3, got 4'),
    (lambda: client.Retries(initial_seconds=2.0), '0 < initial_seconds'),
    (lambda: client.Tls(private_key=b'x'), 'go together'),
    (lambda: client.Options(model_name=''), 'model_name must not be empty'),
    (lambda: client.Options(max_message_bytes=1), 'at least 65536, got 1'),
    (lambda: client.Connection(''), "must be 'host:port'"),
  )
  def test_options_are_checked(self, make, message):
    with self.assertRaisesRegex(ValueError, message):
      make()

  def test_service_config(self):
    policy = json.loads(client.Retries().service_config())['methodConfig'][0]['retryPolicy']
    self.assertEqual(policy['maxAttempts'], 4)
    self.assertCountEqual(policy['retryableStatusCodes'], ['UNAVAILABLE', 'RESOURCE_EXHAUSTED'])


if __name__ == '__main__':
  absltest.main()
