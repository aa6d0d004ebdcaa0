from absl.testing import absltest

from pearl_tf.experiment import experiment
from pearl_tf.testing import small_run, test_case
from trainers import returns


class ReturnsTest(test_case.TestCase):
  def test_measures_and_shows_episodes(self):
    robot = experiment.load([small_run.GIN_FILE])
    measured = returns.measure(robot, 2)
    self.assertEqual(measured, returns.measure(robot, 2))
    self.assertLess(measured['standing still']['mean'], 0)
    self.assertNotEqual(measured['at random'], measured['standing still'])
    rows = returns.strips(robot, None)
    still, moving = rows.values()
    self.assertLen(still, returns.NUM_FRAMES)
    self.assertAllEqual(still[0], still[-1])
    self.assertTrue((moving[0] != moving[-1]).any())

  def test_every_shipped_domain_is_a_configuration(self):
    for domain in returns.DOMAINS:
      self.assertTrue((small_run.ROOT / 'trainers' / 'configs' / f'{domain}.gin').is_file())


if __name__ == '__main__':
  absltest.main()
