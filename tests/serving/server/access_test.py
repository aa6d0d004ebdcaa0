import hmac
import pathlib
import ssl
import tempfile
from unittest import mock

import grpc
from absl.testing import absltest, parameterized
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc as prediction_grpc

from pearl_tf.testing import test_case
from serving.server import access, metrics, options
from tests.serving.support import certificates, contract_cases, contract_server, toy_server

CODE = grpc.StatusCode
TOKEN, OTHER_TOKEN = 'correct-horse-battery', 'a-second-token-for-another-client'
STATUS_PATH = f'/v1/models/{toy_server.MODEL}'
REQUEST = contract_cases.predict('act', contract_cases.acting(), model=toy_server.MODEL)


def predict(channel: grpc.Channel, token: str | None = None, *, timeout: float = 60):
  metadata = [('authorization', f'Bearer {token}')] if token is not None else []
  stub = prediction_grpc.PredictionServiceStub(channel)
  return stub.Predict(REQUEST, timeout=timeout, metadata=metadata)


def write(folder: pathlib.Path, text: str) -> str:
  path = folder / 'config.txt'
  path.write_text(text)
  return str(path)


class TlsTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.authority = certificates.Authority()
    cls.server_pair = cls.authority.issue('server')
    cls.client_pair = cls.authority.issue('client')

  def serve(self, *, client_verify: bool, **changes):
    files = self.authority.write(self.temp_dir(), self.server_pair, client_verify=client_verify)
    return self.enter_context(toy_server.serving(**files, **changes))

  def channel(self, server, *, authority=None, pair: certificates.Pair | None = None):
    credentials = grpc.ssl_channel_credentials(
      (authority or self.authority).certificate,
      pair.key if pair else None,
      pair.certificate if pair else None,
    )
    return self.enter_context(grpc.secure_channel(server.address, credentials))

  def assert_refused(self, channel: grpc.Channel) -> None:
    error = toy_server.failure(predict, channel, timeout=5)
    self.assertIn(error.code(), (CODE.UNAVAILABLE, CODE.DEADLINE_EXCEEDED))

  def test_server_proves_who_it_is(self):
    server = self.serve(client_verify=False)
    predict(self.channel(server))
    self.assert_refused(self.channel(server, authority=certificates.Authority()))
    self.assert_refused(self.enter_context(grpc.insecure_channel(server.address)))

  def test_client_must_prove_who_it_is(self):
    server = self.serve(client_verify=True)
    predict(self.channel(server, pair=self.client_pair))
    self.assert_refused(self.channel(server))
    self.assert_refused(self.channel(server, pair=certificates.Authority().issue('stranger')))
    self.assert_refused(self.enter_context(grpc.insecure_channel(server.address)))

  def test_a_renewed_certificate_is_shown_without_a_restart(self):
    server = self.serve(client_verify=False)
    renewed = certificates.Authority()
    folder = pathlib.Path(server.options.tls_key).parent
    (folder / 'tls_key').write_bytes(b'half of a')  # Nothing changes until it is whole.
    with self.assertRaisesRegex(ValueError, 'not usable'):
      access.Access(server.options)
    predict(self.channel(server))
    renewed.write(folder, renewed.issue('server'), client_verify=False)
    contract_server.wait_for(
      lambda: (folder / 'tls_key').read_bytes() in server._access.tls, 'the files to be read again'
    )
    predict(self.channel(server, authority=renewed))
    self.assert_refused(self.channel(server))

  def test_http_is_protected_as_well(self):
    server = self.serve(client_verify=True)
    url = f'{server.rest_address}{STATUS_PATH}'
    context = ssl.create_default_context(cadata=self.authority.certificate.decode())
    folder = self.temp_dir()
    (folder / 'pair').write_bytes(self.client_pair.key + self.client_pair.certificate)
    with self.assertRaises(OSError):
      toy_server.http(f'https://{url}', context=context)
    with self.assertRaises(OSError):
      toy_server.http(f'http://{url}')
    context.load_cert_chain(folder / 'pair')
    self.assertEqual(toy_server.http(f'https://{url}', context=context).status, 200)

  def test_key_of_another_certificate_is_refused(self):
    pair = certificates.Pair(self.client_pair.key, self.server_pair.certificate)
    files = self.authority.write(self.temp_dir(), pair, client_verify=False)
    with self.assertRaisesRegex(ValueError, 'not usable'):
      access.Access(options.ServerOptions(model_base_path='/x', **files))

  @parameterized.parameters(
    {'tls_key': 'x'},
    {'tls_cert': 'x'},
    {'tls_client_ca': 'x'},
    {'tls_key': 'x', 'tls_client_ca': ''},
  )
  def test_half_of_it_is_refused(self, **files):
    with self.assertRaisesRegex(ValueError, 'go together'):
      options.ServerOptions(model_base_path='/x', **files)


class TokenTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    path = write(folder, f'# clients\n{TOKEN}\n\n{OTHER_TOKEN}\n')
    cls.server = cls.enterClassContext(toy_server.serving(auth_token_file=path))
    cls.channel = cls.enterClassContext(grpc.insecure_channel(cls.server.address))

  @parameterized.parameters(TOKEN, OTHER_TOKEN)
  def test_known_token_is_let_in(self, token):
    self.assertEqual(predict(self.channel, token).model_spec.version.value, toy_server.VERSION)

  @parameterized.parameters(None, '', 'wrong-token-of-the-length', TOKEN[:-1], TOKEN + 'x')
  def test_others_are_not(self, token):
    error = toy_server.failure(predict, self.channel, token)
    self.assertEqual(error.code(), CODE.UNAUTHENTICATED)

  def test_health_is_open_to_all(self):
    stub = health_pb2_grpc.HealthStub(self.channel)
    stub.Check(health_pb2.HealthCheckRequest(), timeout=60)

  def test_other_services_are_not(self):
    stub = model_service_pb2_grpc.ModelServiceStub(self.channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    error = toy_server.failure(stub.GetModelStatus, request, timeout=60)
    self.assertEqual(error.code(), CODE.UNAUTHENTICATED)

  @parameterized.parameters(STATUS_PATH, metrics.PATH)
  def test_http_needs_it_as_well(self, path):
    url = f'http://{self.server.rest_address}{path}'
    self.assertEqual(toy_server.http(url).status, 401)
    wrong = {'Authorization': f'Basic {TOKEN}'}
    self.assertEqual(toy_server.http(url, headers=wrong).status, 401)
    right = {'Authorization': f'Bearer {TOKEN}'}
    self.assertEqual(toy_server.http(url, headers=right).status, 200)

  def test_every_token_is_compared_in_constant_time(self):
    tokens = access.Tokens([TOKEN, OTHER_TOKEN])
    with mock.patch.object(hmac, 'compare_digest', wraps=hmac.compare_digest) as compare:
      self.assertTrue(tokens.accept(f'Bearer {TOKEN}'))
    self.assertEqual(compare.call_count, 2)

  @parameterized.parameters('Bearer \udcff', b'Bearer \xff\xfe', 'Bearer \u20ac')
  def test_bytes_beyond_ascii_are_wrong_and_no_more(self, header):
    self.assertFalse(access.Tokens([TOKEN]).accept(header))

  def test_a_changed_file_is_in_force_without_a_restart(self):
    path = pathlib.Path(write(self.temp_dir(), TOKEN))
    tested = access.Access(options.ServerOptions(model_base_path='/m', auth_token_file=str(path)))
    self.assertFalse(tested.renew())
    path.write_text(f'{OTHER_TOKEN}\n')
    self.assertTrue(tested.renew())
    self.assertTrue(tested.tokens.accept(f'Bearer {OTHER_TOKEN}'))
    self.assertFalse(tested.tokens.accept(f'Bearer {TOKEN}'))
    path.write_text('short')
    with self.assertRaisesRegex(ValueError, 'shorter than 16'):
      tested.renew()
    self.assertTrue(tested.tokens.accept(f'Bearer {OTHER_TOKEN}'))

  @parameterized.parameters(('', 'no token'), ('short', 'shorter than 16'))
  def test_file_without_usable_token_is_refused(self, text, message):
    path = write(self.temp_dir(), text)
    with self.assertRaisesRegex(ValueError, message):
      access.Access(options.ServerOptions(model_base_path='/m', auth_token_file=path))


class ExposureTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.temp_dir()
    authority = certificates.Authority()
    self.mutual = authority.write(folder, authority.issue('server'), client_verify=True)
    self.tls = {name: path for name, path in self.mutual.items() if name != 'tls_client_ca'}
    self.tokens = {'auth_token_file': write(folder, TOKEN)}

  def check(self, host, **changes):
    access.Access(options.ServerOptions(model_base_path='/m', host=host, **changes))

  @parameterized.parameters('127.0.0.1', '127.0.0.9', '::1', '[::1]', 'localhost')
  def test_loopback_needs_nothing(self, host):
    self.check(host)

  @parameterized.parameters('0.0.0.0', '::', '10.0.0.1', 'example.com', 'localhost.evil.com')
  def test_plaintext_beyond_it_is_refused(self, host):
    with self.assertRaisesRegex(ValueError, 'without TLS is refused'):
      self.check(host, **self.tokens)

  def test_so_is_everybody(self):
    with self.assertRaisesRegex(ValueError, 'for anybody is refused'):
      self.check('::', **self.tls)

  def test_proof_of_either_kind_is_enough(self):
    self.check('::', **self.tls, **self.tokens)
    self.check('::', **self.mutual)

  def test_all_may_be_allowed(self):
    self.check('::', allow_insecure_remote=True)

  def test_server_listens_on_this_machine_only(self):
    self.assertTrue(access.is_loopback(options.ServerOptions(model_base_path='/x').host))


if __name__ == '__main__':
  absltest.main()
