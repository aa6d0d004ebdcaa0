import shutil

import grpc
import tensorflow as tf
from absl.testing import absltest

from pearl_tf.testing import test_case
from serving import errors
from serving.model_server import version_files
from tests.serving.support import toy_model


class VersionFilesTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.root = self.temp_dir()
    self.version = toy_model.save(self.root / '1')

  def refusal(self, version=None, root=None):
    with self.assertRaises(errors.ServingError) as caught:
      version_files.check(version or self.version, root=root or self.root)
    return caught.exception.code, caught.exception.message

  def test_a_complete_version_passes(self):
    version_files.check(self.version, root=self.root)

  def test_links_within_the_root_pass(self):
    self.version.rename(self.root / '..data')
    self.version.symlink_to('..data')
    version_files.check(self.version, root=self.root)

  def test_a_root_that_is_a_link_passes(self):
    link = self.temp_dir() / 'models'
    link.symlink_to(self.root)
    version_files.check(link / '1', root=link)

  def test_the_version_must_not_lead_out(self):
    elsewhere = self.temp_dir() / '1'
    shutil.move(self.version, elsewhere)
    self.version.symlink_to(elsewhere)
    code, message = self.refusal()
    self.assertIs(code, grpc.StatusCode.PERMISSION_DENIED)
    self.assertIn('leads out of', message)

  def test_a_file_must_not_lead_out(self):
    (self.version / 'assets').mkdir(exist_ok=True)
    (self.version / 'assets' / 'x').symlink_to('/etc/passwd')
    self.assertIs(self.refusal()[0], grpc.StatusCode.PERMISSION_DENIED)

  def test_a_folder_must_not_lead_out(self):
    (self.version / 'assets.extra').symlink_to('/etc')
    self.assertIs(self.refusal()[0], grpc.StatusCode.PERMISSION_DENIED)

  def test_missing_model(self):
    (self.version / 'saved_model.pb').unlink()
    code, message = self.refusal()
    self.assertIs(code, grpc.StatusCode.NOT_FOUND)
    self.assertStartsWith(message, 'Could not find SavedModel .pb or .pbtxt')

  def test_a_file_in_place_of_the_folder(self):
    (self.root / '2').write_text('')
    self.assertIs(self.refusal(self.root / '2')[0], grpc.StatusCode.NOT_FOUND)

  def test_truncated_model(self):
    path = self.version / 'saved_model.pb'
    path.write_bytes(path.read_bytes()[:1000])
    code, message = self.refusal()
    self.assertEqual(code.value[0], 11)
    self.assertStartsWith(message, 'Read less bytes than requested')

  def test_model_without_the_tag(self):
    (self.version / 'saved_model.pb').write_bytes(b'')
    code, message = self.refusal()
    self.assertIs(code, grpc.StatusCode.NOT_FOUND)
    self.assertIn('matching supplied tags: { serve }', message)

  def test_variables_not_copied_yet(self):
    shutil.rmtree(self.version / 'variables')
    code, message = self.refusal()
    self.assertIs(code, grpc.StatusCode.DATA_LOSS)
    self.assertIn('an incomplete copy?', message)

  def test_a_model_may_have_no_variables(self):
    @tf.function(input_signature=[tf.TensorSpec([None], name='x')])
    def double(x):
      return {'y': 2 * x}

    toy_model.save_function(self.root / '2', double)
    shutil.rmtree(self.root / '2' / 'variables')
    version_files.check(self.root / '2', root=self.root)


if __name__ == '__main__':
  absltest.main()
