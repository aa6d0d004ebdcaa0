"""Programs whose output nobody reads any more."""

import os
import subprocess
import sys

from absl.testing import absltest, parameterized

from pearl_tf.testing import small_run, test_case

# Prints more than any pipe or buffer holds, then proves that it went on.
_PROGRAM = """
import os, sys
from pearl_tf.programs import program

def main(argv):
  for line in range(20000):
    print('line', line)
    sys.stderr.write('to stderr\\n')
  os.write(3, b'to the end')
  sys.exit(0) if argv[1:] else None

program.run(main)
"""


def run(redirections, *arguments):
  """Runs the program by a shell; returns its exit code, what it wrote to stderr, and the proof."""
  command = [sys.executable, '-c', _PROGRAM, *arguments]
  return subprocess.run(
    ['bash', '-c', f'exec 4>&1; ("$@" 3>&4 4>&-; echo " $?" >&4) {redirections}', '-', *command],
    env=dict(os.environ, PYTHONPATH=str(small_run.ROOT)),
    capture_output=True,
    text=True,
    check=False,
  )


class OutputTest(test_case.TestCase):
  @parameterized.parameters(
    '2>&1 | head -1 >/dev/null',
    '2>/dev/null | true',
    '>&- 2>/dev/null',
    '>/dev/null 2>&-',
    '<&- >&- 2>&-',
  )
  def test_a_program_goes_on_without_a_reader(self, redirections):
    result = run(redirections)
    self.assertEqual((result.stdout, result.stderr), ('to the end 0\n', ''))

  def test_a_full_disk_is_told_at_the_end(self):
    result = run('>/dev/full')
    self.assertEqual(result.stdout, 'to the end 1\n')
    self.assertEndsWith(
      result.stderr, 'error: not all of the output could be written: No space left on device\n'
    )
    self.assertEqual(run('>/dev/full 2>&1', 'with its own exit code').stdout, 'to the end 0\n')


if __name__ == '__main__':
  absltest.main()
