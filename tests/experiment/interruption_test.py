import os
import signal

from absl.testing import absltest, parameterized

from pearl_tf.experiment import interruption
from pearl_tf.testing import test_case


class InterruptionTest(test_case.TestCase):
  @parameterized.parameters(signal.SIGINT, signal.SIGTERM)
  def test_the_first_signal_is_a_request(self, number):
    with interruption.Interruption() as stop:
      self.assertIsNone(stop.requested)
      os.kill(os.getpid(), number)
      self.assertEqual(stop.requested, number)
      self.assertEqual(stop.requested.name, signal.Signals(number).name)

  @parameterized.parameters(signal.SIGINT, signal.SIGTERM)
  def test_the_second_signal_interrupts_at_once(self, second):
    with interruption.Interruption(), self.assertRaises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
      os.kill(os.getpid(), second)

  def test_former_handlers_are_restored(self):
    former = [signal.getsignal(number) for number in interruption.Interruption.SIGNALS]
    with self.assertRaises(ValueError), interruption.Interruption():
      raise ValueError
    self.assertEqual(
      [signal.getsignal(number) for number in interruption.Interruption.SIGNALS], former
    )


if __name__ == '__main__':
  absltest.main()
