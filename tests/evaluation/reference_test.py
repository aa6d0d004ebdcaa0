import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.evaluation.reference_curves import reference
from pearl_tf.testing import test_case


class ReferenceTest(test_case.TestCase):
  def test_available(self):
    self.assertEqual(
      reference.available(), ['ant-dir', 'cheetah-dir', 'cheetah-vel', 'walker-rand-params']
    )

  @parameterized.parameters('ant-dir', 'cheetah-dir', 'cheetah-vel', 'walker-rand-params')
  def test_curves_are_whole(self, domain):
    for curve in reference.load(domain):
      self.assertEqual(curve.env_steps.shape, curve.test_return.shape)
      self.assertEqual(curve.env_steps.shape, curve.hours.shape)
      self.assertTrue(np.all(np.diff(curve.env_steps) > 0))
      self.assertTrue(np.all(np.diff(curve.hours) > 0))
      self.assertTrue(np.all(np.isfinite(curve.test_return)))

  # The landmarks that README.md names.
  @parameterized.parameters(
    ('cheetah-vel', 205_000, -280.63),
    ('cheetah-dir', 1_444_000, 1673.56),
    ('ant-dir', 8000, 188.67),
  )
  def test_values_are_the_peers(self, domain, env_steps, expected):
    peer = reference.load(domain)[0]
    self.assertAllClose(peer.test_return[peer.env_steps == env_steps], [expected])

  def test_cheetah_dir_has_the_authors_code_too(self):
    peer, authors = reference.load('cheetah-dir')
    self.assertIn('peer', peer.label)
    self.assertIn('authors', authors.label)
    self.assertAllClose(authors.test_return[authors.env_steps == 174_000], [713.7])
    self.assertAllClose(authors.hours[-1], 0.9031)

  @parameterized.parameters('cheetah', 'authors-cheetah-dir', 'README')
  def test_unknown_domain_lists_the_known(self, domain):
    with self.assertRaisesRegex(ValueError, f"'{domain}'; available are ant-dir, cheetah-dir"):
      reference.load(domain)


if __name__ == '__main__':
  absltest.main()
