import contextlib
import io
import os
import re
import signal
from unittest import mock

from absl.testing import absltest, parameterized

from pearl_tf.experiment import console, interruption
from pearl_tf.testing import test_case


class _Terminal(io.StringIO):
  def isatty(self) -> bool:
    return True


class _Clock:
  """A clock that the test moves."""

  def __init__(self):
    self.seconds = 100.0

  def __call__(self) -> float:
    return self.seconds


class ConsoleTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.clock = _Clock()
    environment = {'TERM': 'xterm-256color', 'COLUMNS': '90', 'LINES': '40'}
    self.enterContext(mock.patch.dict(os.environ, environment))

  def make(self, stream, **options) -> console.Console:
    options = {'num_iterations': 10, **options}
    return console.Console(stream=stream, clock=self.clock, **options)

  def run_iterations(self, view: console.Console, iterations, seconds: float = 30.0) -> None:
    for iteration in iterations:
      view.phase('collect')
      self.clock.seconds += seconds / 3
      view.phase('train')
      self.clock.seconds += seconds * 2 / 3
      view.phase('evaluate')
      view.update(
        iteration=iteration,
        env_steps=5000 * iteration,
        gradient_steps=2000 * iteration,
        test_return=-100.0 + iteration if iteration % 2 else None,
      )

  def test_plain_lines_when_not_on_a_terminal(self):
    stream = io.StringIO()
    self.enterContext(mock.patch.dict(os.environ, {'FORCE_COLOR': '1'}))
    with self.make(stream) as view:
      self.run_iterations(view, [1, 2])
      view.message('saved [checkpoint] 2')
    self.assertEqual(
      stream.getvalue().splitlines(),
      [
        'iteration 1/10 | env steps 5,000 | gradient steps 2,000 (100/s)'
        ' | test return -99.0 (best -99.0) | elapsed 0:00:30 | left 0:04:30',
        'iteration 2/10 | env steps 10,000 | gradient steps 4,000 (100/s)'
        ' | elapsed 0:01:00 | left 0:04:00',
        'saved [checkpoint] 2',
      ],
    )
    self.assertNotIn('\x1b', stream.getvalue())

  @parameterized.parameters(('dumb', '90'), ('', '90'), ('xterm', '20'))
  def test_plain_lines_on_a_terminal_that_cannot_show_a_panel(self, term, columns):
    stream = _Terminal()
    self.enterContext(mock.patch.dict(os.environ, {'TERM': term, 'COLUMNS': columns}))
    with self.make(stream) as view:
      self.run_iterations(view, [1])
    self.assertStartsWith(stream.getvalue(), 'iteration 1/10 | env steps 5,000 | ')
    self.assertNotIn('\x1b', stream.getvalue())

  @parameterized.parameters('50', '90', '250')
  def test_panel_on_a_terminal(self, columns):
    stream = _Terminal()
    self.enterContext(mock.patch.dict(os.environ, {'COLUMNS': columns}))
    with self.make(stream, title='cheetah [vel]') as view:
      self.run_iterations(view, [1, 2])
      view.message('saved [checkpoint] 2')
      view.phase('checkpoint')
    shown = stream.getvalue()
    self.assertIn('\x1b', shown)
    for expected in (
      'cheetah [vel]',
      'saved [checkpoint] 2',
      ' 2/10',
      'env steps 10,000',
      '100/s',
      '-99.0',
      '0:04:00 left',
    ):
      self.assertIn(expected, shown)
    self.assertNotIn('iteration 2/10', shown)
    self.assertEndsWith(shown, '\x1b[?25h', 'the cursor must be visible again')

  def test_panel_is_taken_down_when_the_run_fails(self):
    stream = _Terminal()
    with self.assertRaisesRegex(RuntimeError, 'simulator'), self.make(stream):
      raise RuntimeError('simulator')
    self.assertEndsWith(stream.getvalue(), '\x1b[?25h')

  def test_the_panel_moves_within_a_phase(self):
    stream, steps = _Terminal(), 0
    with self.make(stream, steps=lambda: steps) as view:

      def shown() -> str:
        start = len(stream.getvalue())
        view._live.refresh()
        return re.sub(r'\x1b\[[^a-zA-Z]*[a-zA-Z]', '', stream.getvalue()[start:])

      view.phase('collect')
      steps = 300
      self.assertRegex(shown(), r'collect .* 300/\? ')
      view.phase('train')
      steps = 350
      self.assertRegex(shown(), r'train .* 50/\? ')
      view.phase('collect')  # Now it is known how long that takes, more or less.
      steps = 450
      self.assertRegex(shown(), r'collect .* 100/300 ')
      steps = 750
      self.assertRegex(shown(), r'collect .* 400/400 ')
      view.phase('checkpoint')
      self.assertRegex(shown(), r'checkpoint .* 0/\? ')

  def test_a_signal_is_answered_within_the_panel(self):
    stream = _Terminal()
    with self.make(stream) as view, interruption.Interruption(view.notice):
      os.kill(os.getpid(), signal.SIGINT)
      view._live.refresh()
      self.assertIn('SIGINT: finishing this phase', stream.getvalue())
      end = len(stream.getvalue())
    self.assertNotIn('SIGINT', stream.getvalue()[end:])

  def test_what_libraries_print_does_not_spoil_the_panel(self):
    terminal, keyboard = os.openpty()
    log = self.temp_dir() / 'log.txt'
    stderr = os.dup(2)
    os.dup2(keyboard, 2)
    try:
      with self.make(_Terminal(), log=log):
        os.write(2, b'within\n')
      os.write(2, b'after\n')
    finally:
      os.dup2(stderr, 2)
    self.assertEqual(log.read_text(), 'within\n')
    self.assertEqual(os.read(terminal, 100), b'after\r\n')
    for descriptor in (terminal, keyboard, stderr):
      os.close(descriptor)

  def test_standard_output_by_default(self):
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), console.Console(num_iterations=1) as view:
      view.message('hello')
    self.assertEqual(stream.getvalue(), 'hello\n')

  def test_time_left_counts_this_process_only(self):
    with self.make(io.StringIO(), start_iteration=6, start_gradient_steps=12_000) as view:
      self.assertIsNone(view.seconds_left())
      self.run_iterations(view, [7])
      self.assertAlmostEqual(view.seconds_left(), 3 * 30)
      self.clock.seconds += 10
      self.assertAlmostEqual(view.seconds_left(), 3 * 30 - 10)
      self.clock.seconds += 1000
      self.assertEqual(view.seconds_left(), 0)

  def test_time_left_leaves_the_initial_pool_out(self):
    with self.make(io.StringIO()) as view:
      self.clock.seconds += 600
      self.run_iterations(view, [1, 2, 3])
      self.assertAlmostEqual(view.seconds_left(), 7 * 30)

  def test_gradient_steps_per_second_of_a_resumed_run(self):
    stream = io.StringIO()
    with self.make(stream, start_iteration=6, start_gradient_steps=12_000) as view:
      self.run_iterations(view, [7])
    self.assertIn('gradient steps 14,000 (100/s)', stream.getvalue())

  def test_rate_without_a_train_phase_is_that_of_the_wall_clock(self):
    stream = io.StringIO()
    with self.make(stream) as view:
      self.clock.seconds += 40
      view.update(iteration=1, env_steps=1, gradient_steps=100)
    self.assertIn('gradient steps 100 (2.5/s)', stream.getvalue())

  def test_impossible_numbers_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'num_iterations must be positive, got 0'):
      console.Console(num_iterations=0)
    with self.assertRaisesRegex(ValueError, 'must not be negative, got -1'):
      console.Console(num_iterations=1, start_iteration=-1)


if __name__ == '__main__':
  absltest.main()
