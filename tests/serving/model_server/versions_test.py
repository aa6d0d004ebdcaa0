from absl.testing import absltest, parameterized

from pearl_tf.testing import test_case
from serving.model_server import model_config, versions


class VersionsTest(test_case.TestCase):
  def test_finds_numbers_only(self):
    base = self.temp_dir()
    for name in ('1', '12', '.tmp-3', '4.5', 'x', '-7', '9' * 19, ' 8', '٣'):
      (base / name).mkdir()
    self.assertEqual(versions.scan(base), {1: base / '1', 12: base / '12'})

  def test_takes_the_shorter_of_two_names(self):
    base = self.temp_dir()
    for name in ('007', '7', '08'):
      (base / name).mkdir()
    self.assertEqual(versions.scan(base), {7: base / '7', 8: base / '08'})

  def test_largest_int64_counts(self):
    base = self.temp_dir()
    (base / str(2**63 - 1)).mkdir()
    self.assertEqual(list(versions.scan(base)), [2**63 - 1])

  def test_missing_folder_is_an_error(self):
    with self.assertRaises(OSError):
      versions.scan(self.temp_dir() / 'nowhere')

  @parameterized.parameters(
    (model_config.Latest(), [30]),
    (model_config.Latest(2), [30, 7]),
    (model_config.Latest(9), [30, 7, 1]),
    (model_config.All(), [30, 7, 1]),
    (model_config.Specific(frozenset({7, 1, 99})), [7, 1]),
    (model_config.Specific(frozenset({99})), []),
  )
  def test_policy(self, policy, expected):
    found = {version: f'/{version}' for version in (7, 30, 1)}
    wanted = versions.wanted(found, policy)
    self.assertEqual(list(wanted), expected)
    self.assertEqual(wanted, {version: f'/{version}' for version in expected})


if __name__ == '__main__':
  absltest.main()
