from absl.testing import absltest

from pearl_tf.testing import test_case
from serving.model_server import patience


class PatienceTest(test_case.TestCase):
  def rounds(self, tested):
    """Returns how many rounds it waits if no call comes."""
    tested.arrived()
    count = 0
    while tested.should_wait():
      count += 1
    return count

  def test_a_lone_client_never_waits(self):
    tested = patience.Patience()
    for _ in range(5):
      self.assertEqual(self.rounds(tested), 0)
      tested.ran(1)

  def test_waits_where_calls_meet(self):
    tested = patience.Patience()
    tested.ran(2)
    self.assertEqual(self.rounds(tested), 2)
    for _ in range(20):
      tested.ran(5)
    self.assertEqual(self.rounds(tested), 8)

  def test_forgets_when_they_no_longer_do(self):
    tested = patience.Patience()
    tested.ran(2)
    tested.ran(1)
    tested.ran(1)
    self.assertEqual(self.rounds(tested), 0)

  def test_new_calls_prolong_the_wait(self):
    tested = patience.Patience()
    tested.ran(2)
    for _ in range(10):
      tested.arrived()
      self.assertTrue(tested.should_wait())

  def test_but_not_for_ever(self):
    tested = patience.Patience()
    tested.ran(2)
    for _ in range(200):
      tested.arrived()
      if not tested.should_wait():
        return
    self.fail('it waits for ever')


if __name__ == '__main__':
  absltest.main()
