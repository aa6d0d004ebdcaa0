from absl.testing import absltest

from pearl_tf.data import files
from pearl_tf.export import versions
from pearl_tf.testing import test_case


class VersionsTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.root = self.temp_dir() / 'export'
    self.versions = versions.Versions(self.root, ('a', 'b'), keep=2)

  def publish(self, versions_=None):
    def write(version, staged):
      for folder, path in staged.items():
        (path / 'content').write_text(f'{folder} {version}')

    return (versions_ or self.versions).publish(write)

  def names(self, folder='a'):
    return sorted(path.name for path in (self.root / folder).iterdir())

  def test_versions_count_up_and_the_newest_are_kept(self):
    self.assertEqual([self.publish() for _ in range(3)], [1, 2, 3])
    self.assertEqual(self.versions.all(), [2, 3])
    for folder in ('a', 'b'):
      self.assertEqual(self.names(folder), ['2', '3'])
      self.assertEqual((self.root / folder / '3' / 'content').read_text(), f'{folder} 3')

  def test_a_number_is_never_used_again(self):
    self.publish()
    self.publish()
    for folder in ('a', 'b'):
      versions.shutil.rmtree(self.root / folder)
    self.assertEqual(self.publish(versions.Versions(self.root, ('a', 'b'), keep=1)), 3)
    # A version that somebody copied here counts, too.
    (self.root / 'b' / '41').mkdir()
    self.assertEqual(self.publish(), 42)

  def test_nothing_appears_before_it_is_complete(self):
    seen = []

    def write(version, staged):
      seen.append(version)
      (staged['a'] / 'content').write_text('half')
      self.assertEqual(self.names(), [f'.tmp-{version}'])
      raise OSError('disk full')

    with self.assertRaisesRegex(files.FileError, 'cannot be written: disk full'):
      self.versions.publish(write)
    self.assertEqual((seen, self.names(), self.versions.all()), ([1], [], []))
    self.assertEqual(self.publish(), 2)  # The number is used up.

  def test_leftovers_of_a_dead_process_are_removed(self):
    (self.root / 'a' / '.tmp-7').mkdir(parents=True)
    (self.root / 'a' / 'notes').mkdir()  # Not ours to remove.
    self.assertEqual(self.publish(), 1)
    self.assertEqual(self.names(), ['1', 'notes'])

  def test_at_least_one_is_kept(self):
    with self.assertRaisesRegex(ValueError, 'got keep=0'):
      versions.Versions(self.root, ('a',), keep=0)


if __name__ == '__main__':
  absltest.main()
