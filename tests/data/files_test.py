import errno
import os
import pathlib
import threading
from unittest import mock

from absl.testing import absltest, parameterized

from pearl_tf.data import files
from pearl_tf.testing import test_case

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class PathTest(test_case.TestCase):
  @parameterized.parameters('gs://bucket/run', 's3://b/x', 'hdfs:/x', 'GS://bucket')
  def test_an_address_is_refused(self, text):
    with self.assertRaisesRegex(files.FileError, f'--root_dir={text} is an address.*local path'):
      files.local_path(text, '--root_dir')

  @parameterized.parameters(
    ('net=[64,64]', r'\[ \]'), ('a*', r'\*'), ('b?', r'\?'), ('c\\d', r'\\')
  )
  def test_a_pattern_is_refused(self, text, characters):
    with self.assertRaisesRegex(files.FileError, f'has {characters} in its name'):
      files.local_path(text, '--root_dir')

  @parameterized.parameters(
    ('file:///tmp/x', '/tmp/x'), ('runs/lr=0.1,net=64', 'runs/lr=0.1,net=64'), ('a:b', 'a:b')
  )
  def test_what_is_local(self, text, expected):
    self.assertEqual(files.local_path(text, '--root_dir'), pathlib.Path(expected))

  def test_an_output_is_tried_before_the_work(self):
    folder = self.temp_dir()
    (folder / 'file').write_text('content')
    self.assertEqual(files.output_file(folder / 'new' / 'x', '--output'), folder / 'new' / 'x')
    files.output_file(folder / 'file', '--output')
    for path in (folder, folder / 'file' / 'x', pathlib.Path('/proc/x')):
      with self.assertRaisesRegex(files.FileError, f'--output={path}'):
        files.output_file(path, '--output')
    self.assertEqual([path.name for path in folder.iterdir()], ['file'])


class WriteTest(test_case.TestCase):
  def test_a_full_disk_is_one_line_with_a_remedy(self):
    path = self.temp_dir() / 'x'
    path.write_text('old')
    with (
      mock.patch.object(os, 'fsync', side_effect=FULL),
      self.assertRaisesRegex(files.FileError, r'x cannot be written: No space.* MB are free: make'),
    ):
      files.write_text(path, 'new')
    self.assertEqual(path.read_text(), 'old')
    self.assertEqual(list(path.parent.iterdir()), [path])

  def test_an_error_of_a_library_about_a_full_disk(self):
    with (
      self.assertRaisesRegex(files.FileError, '3 MB are needed'),
      files.explained('/tmp/x', needs=3_000_000),
    ):
      raise RuntimeError('variables.data: No space left on device')
    with self.assertRaisesRegex(RuntimeError, 'something else'), files.explained('/tmp/x'):
      raise RuntimeError('something else')

  def test_writers_at_the_same_time_do_not_mix(self):
    path = self.temp_dir() / 'x'

    def write(digit: int) -> None:
      for _ in range(50):
        files.write_text(path, str(digit) * 100)

    threads = [threading.Thread(target=write, args=[digit]) for digit in (1, 2)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    self.assertIn(path.read_text(), ('1' * 100, '2' * 100))
    self.assertEqual(list(path.parent.iterdir()), [path])

  @parameterized.parameters(errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
  def test_a_mount_that_cannot_sync_folders(self, number):
    folder = self.temp_dir()
    with mock.patch.object(os, 'fsync', side_effect=OSError(number, 'no')):
      files.sync_folder(folder)

  def test_a_real_error_of_a_disk_stays_one(self):
    folder = self.temp_dir()
    with (
      mock.patch.object(os, 'fsync', side_effect=OSError(errno.EIO, 'broken')),
      self.assertRaisesRegex(OSError, 'broken'),
    ):
      files.sync_folder(folder)


if __name__ == '__main__':
  absltest.main()
