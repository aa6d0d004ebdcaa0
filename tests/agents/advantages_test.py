import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.agents import advantages
from pearl_tf.data import types
from pearl_tf.testing import test_case


def episode(random, length):
  rows = random.normal(size=(length, 3)).astype(np.float32) * 6
  reward = random.normal(size=length).astype(np.float32)
  return types.Episode(rows, rows[:, :2], reward, reward, np.ones(length, np.float32), rows)


class AdvantagesTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.random = np.random.default_rng(0)

  def test_features(self):
    found = advantages.features(np.array([[1.0, -20.0], [3.0, 0.5]]))
    self.assertAllClose(found[1], [3, 0.5, 9, 0.25, 0.01, 1e-4, 1e-6, 1])
    self.assertAllClose(found[0], [1, -10, 1, 100, 0, 0, 0, 1])

  def test_fit_solves_the_normal_equations(self):
    inputs, targets = self.random.normal(size=(50, 4)), self.random.normal(size=50)
    solved = np.linalg.solve(inputs.T @ inputs + 1e-5 * np.eye(4), inputs.T @ targets)
    self.assertAllClose(advantages.fit(inputs, targets), solved, rtol=0, atol=1e-12)
    degenerate = advantages.fit(np.ones([5, 3]), np.full(5, 6.0))
    self.assertAllClose(degenerate, [2, 2, 2], atol=1e-4)

  @parameterized.parameters(1.0, 0.9)
  def test_is_the_recursion_of_each_episode(self, gae_lambda):
    gamma = 0.97
    tasks = [[episode(self.random, n) for n in lengths] for lengths in ((30, 7), (25, 25, 30))]
    found = advantages.advantages(tasks, gamma=gamma, gae_lambda=gae_lambda)
    for task, actual in zip(tasks, found, strict=True):
      returns = []
      for one in task:
        total, column = 0.0, []
        for reward in one.reward[::-1]:
          total = reward + gamma * total
          column.append(total)
        returns.append(np.array(column[::-1]))
      inputs = [advantages.features(one.observation) for one in task]
      weights = advantages.fit(np.concatenate(inputs), np.concatenate(returns))
      expected = []
      for one, rows in zip(task, inputs, strict=True):
        values = np.append(rows @ weights, 0.0)
        total, column = 0.0, []
        for t in range(len(rows) - 1, -1, -1):
          delta = one.reward[t] + gamma * values[t + 1] - values[t]
          total = delta + gamma * gae_lambda * total
          column.append(total)
        expected.append(column[::-1])
      expected = np.concatenate(expected)
      expected = (expected - expected.mean()) / expected.std()
      self.assertAllClose(actual, expected, atol=1e-5)

  def test_equal_values_stay_finite(self):
    self.assertAllEqual(advantages.standardized(np.full(4, 2.5)), np.zeros(4))


if __name__ == '__main__':
  absltest.main()
