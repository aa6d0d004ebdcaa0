import numpy as np
from absl.testing import absltest

from pearl_tf.agents.maml import trust_region
from pearl_tf.testing import test_case

SEARCH = {'max_kl': 0.01, 'backtrack': 0.5, 'max_tries': 4}


class TrustRegionTest(test_case.TestCase):
  def test_conjugate_gradient_solves(self):
    random = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(random.normal(size=(12, 12)))
    matrix = rotation @ np.diag(np.linspace(1, 4, 12)) @ rotation.T
    target = random.normal(size=12)
    found = trust_region.conjugate_gradient(lambda v: matrix @ v, target, iterations=12)
    self.assertAllClose(found, np.linalg.solve(matrix, target), rtol=0, atol=1e-4)
    nothing = trust_region.conjugate_gradient(lambda v: matrix @ v, 0 * target, iterations=12)
    self.assertAllEqual(nothing, np.zeros(12))

  def test_the_longest_step_that_is_allowed(self):
    step = trust_region.line_search(
      lambda x: (-x[0], x[0] ** 2), np.zeros(1), -np.ones(1) / 4, **SEARCH
    )
    self.assertEqual((step.tries, step.accepted), (3, True))
    self.assertAllClose(step.parameters, [1 / 16])

  def test_nothing_better_stays(self):
    for value in (1.0, np.nan):
      step = trust_region.line_search(
        lambda x, value=value: (value if x[0] else 0.0, 0.0), np.zeros(1), np.ones(1), **SEARCH
      )
      self.assertEqual((step.tries, step.accepted, step.loss), (4, False, 0.0))
      self.assertAllEqual(step.parameters, [0])
    broken = trust_region.line_search(
      lambda x: (float(x[0]), 0.0), np.zeros(1), np.full(1, np.nan), **SEARCH
    )
    self.assertFalse(broken.accepted)


if __name__ == '__main__':
  absltest.main()
