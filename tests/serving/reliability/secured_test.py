"""Client certificates and tokens together: who lacks either is refused, and disturbs nobody."""

import contextlib
import socket

import grpc
from absl.testing import absltest, parameterized
from tensorflow_serving.apis import prediction_service_pb2_grpc

from pearl_tf.testing import test_case
from tests.serving.support import certificates, contract_cases, toy_server

CODE = grpc.StatusCode
TOKEN = 'the-token-of-this-test'
ACT = contract_cases.predict('act', contract_cases.acting(), model=toy_server.MODEL)
NUM_STRANGERS = 50


class SecuredTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.authority = certificates.Authority()
    cls.pair = cls.authority.issue('client')

  def setUp(self):
    super().setUp()
    folder = self.temp_dir()
    files = self.authority.write(folder, self.authority.issue('server'), client_verify=True)
    (folder / 'tokens').write_text(f'{TOKEN}\n')
    self.server = self.enter_context(
      toy_server.serving(**files, auth_token_file=str(folder / 'tokens'))
    )

  def call(self, token: str | None, *, with_pair: bool) -> CODE:
    """Returns the code of a call."""
    key, certificate = (self.pair.key, self.pair.certificate) if with_pair else (None, None)
    trusted = grpc.ssl_channel_credentials(self.authority.certificate, key, certificate)
    metadata = [('authorization', f'Bearer {token}')] if token else []
    with grpc.secure_channel(self.server.address, trusted) as channel:
      stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
      try:
        stub.Predict(ACT, timeout=30, metadata=metadata)
      except grpc.RpcError as error:
        return error.code()
    return CODE.OK

  @parameterized.parameters(
    (TOKEN, True, CODE.OK),
    (None, True, CODE.UNAUTHENTICATED),
    ('another-token-of-that-size', True, CODE.UNAUTHENTICATED),
    (TOKEN, False, CODE.UNAVAILABLE),
    (None, False, CODE.UNAVAILABLE),
  )
  def test_both_are_needed(self, token, with_pair, code):
    self.assertIs(self.call(token, with_pair=with_pair), code)

  @parameterized.parameters(b'', b'GET / HTTP/1.1\r\n\r\n', b'\x16\x03\x01\xff\xff', b'\0' * 4096)
  def test_strangers_on_the_port_disturb_nobody(self, greeting):
    host, port = self.server.address.split(':')
    with contextlib.ExitStack() as connections:
      for _ in range(NUM_STRANGERS):
        connection = connections.enter_context(socket.create_connection((host, int(port))))
        with contextlib.suppress(OSError):  # It may have been thrown out already.
          connection.sendall(greeting)
      self.assertIs(self.call(TOKEN, with_pair=True), CODE.OK)
    self.assertIs(self.call(TOKEN, with_pair=True), CODE.OK)


if __name__ == '__main__':
  absltest.main()
