import grpc
import tensorflow as tf
from absl.testing import absltest

from pearl_tf.testing import test_case
from serving.server import errors


class ServingErrorTest(test_case.TestCase):
  def test_tells_code_and_message(self):
    error = errors.not_found('no such model')
    self.assertIs(error.code, grpc.StatusCode.NOT_FOUND)
    self.assertEqual(str(error), 'NOT_FOUND: no such model')

  def test_cuts_long_messages(self):
    message = errors.invalid_argument('x' * 2000).message
    self.assertEqual(message, 'x' * 1024 + '...TRUNCATED')

  def test_is_never_ok(self):
    with self.assertRaisesRegex(ValueError, 'must not have the code OK'):
      errors.ServingError(grpc.StatusCode.OK, 'fine')

  def test_keeps_code_and_text_of_tensorflow(self):
    error = errors.from_exception(tf.errors.DataLossError(None, None, 'broken'))
    self.assertEqual((error.code.value[0], error.message), (15, 'broken'))

  def test_keeps_its_own_kind(self):
    error = errors.not_found('x')
    self.assertIs(errors.from_exception(error), error)

  def test_what_nobody_foresaw_is_internal(self):
    error = errors.from_exception(KeyError('x'))
    self.assertIs(error.code, grpc.StatusCode.INTERNAL)
    self.assertIn('KeyError', error.message)


if __name__ == '__main__':
  absltest.main()
