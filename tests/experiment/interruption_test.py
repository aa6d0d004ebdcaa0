import os
import signal
import subprocess
import sys

from absl.testing import absltest, parameterized

from pearl_tf.experiment import interruption
from pearl_tf.testing import small_run, test_case

# Does not end by itself, as one that waits for a lost server within a library.
_STUCK = """
import time
from pearl_tf.experiment import interruption

interruption.PHASE_SECONDS, interruption.END_SECONDS = {phase}, {end}
interruption._interrupt = lambda *unused: None
interruption.end_on_signals()
with {context}:
  print('stuck', flush=True)
  while True:
    time.sleep(60)
"""


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
    former = [signal.getsignal(number) for number in interruption.SIGNALS]
    with self.assertRaises(ValueError), interruption.Interruption():
      raise ValueError
    self.assertEqual([signal.getsignal(number) for number in interruption.SIGNALS], former)

  def test_says_what_it_does(self):
    said = []
    with interruption.Interruption(said.append):
      os.kill(os.getpid(), signal.SIGTERM)
    self.assertEqual(
      said, ['SIGTERM: finishing this phase, then saving; a second one stops at once']
    )


class EndTest(test_case.TestCase):
  def _end(self, *signals, context='interruption.Interruption(print)', phase=1e6, end=1e6):
    process = subprocess.Popen(
      [sys.executable, '-c', _STUCK.format(context=context, phase=phase, end=end)],
      env=dict(os.environ, PYTHONPATH=str(small_run.ROOT)),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
    )
    self.assertEqual(process.stdout.readline(), b'stuck\n')
    for number in signals:
      process.send_signal(number)
    _, stderr = process.communicate()
    self.assertEqual(stderr, b'did not end within its time, ended\n')
    return process.returncode

  def test_a_program_that_goes_on_after_a_signal_ends(self):
    self.assertEqual(self._end(signal.SIGTERM, context='open("/dev/null")', end=0.01), 143)

  def test_a_phase_that_cannot_be_finished_ends(self):
    self.assertEqual(self._end(signal.SIGINT, phase=0.01), 130)
    # Two at once come in either order.
    self.assertIn(self._end(signal.SIGINT, signal.SIGTERM, end=0.01), (130, 143))


if __name__ == '__main__':
  absltest.main()
