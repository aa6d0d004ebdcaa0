import contextlib
import io
import subprocess
import sys

from absl.testing import absltest, parameterized

from pearl_tf.agents import learner
from pearl_tf.environments import gymnasium_adapter
from pearl_tf.experiment import checkpoints, config, run_folder
from pearl_tf.replay import server
from pearl_tf.testing import small_run, test_case
from trainers import cli

PROGRAM = """
'''What it does.

  an example
'''
import os, subprocess, sys, warnings
from absl import flags
from trainers import cli

flags.DEFINE_integer('number', 0, 'A number.')

def main(argv):
  {body}

cli.run(main)
"""


def run(body, *arguments, **environment):
  return subprocess.run(
    [sys.executable, '-c', PROGRAM.replace('{body}', body), *arguments],
    cwd=small_run.ROOT,
    env={'PATH': '/usr/bin:/bin', 'PYTHONPATH': str(small_run.ROOT), **environment},
    capture_output=True,
    text=True,
    check=False,
  )


class CliTest(test_case.TestCase):
  def test_success(self):
    result = run("print('done', flags.FLAGS.number, argv[1:])", '--number=3', 'rest')
    self.assertEqual(
      (result.returncode, result.stdout, result.stderr), (0, "done 3 ['rest']\n", '')
    )

  def test_an_exit_code_is_passed_on(self):
    self.assertEqual(run('sys.exit(130)').returncode, 130)

  @parameterized.parameters('--number=three', '--nmber=3')
  def test_wrong_flags(self, argument):
    result = run('pass', argument)
    self.assertEqual((result.returncode, result.stdout), (2, ''))
    self.assertStartsWith(result.stderr, 'error: ')
    self.assertIn(argument.split('=')[0].strip('-'), result.stderr)
    self.assertIn('--help', result.stderr)
    self.assertNotIn('Traceback', result.stderr)

  def test_wrong_arguments(self):
    result = run("from absl import app; raise app.UsageError('one argument too many')")
    self.assertEqual(result.returncode, 2)
    self.assertStartsWith(result.stderr, 'error: one argument too many\n')
    self.assertNotIn('Traceback', result.stderr)

  def test_ctrl_c_has_no_traceback(self):
    result = run('raise KeyboardInterrupt')
    self.assertEqual((result.returncode, result.stderr), (130, 'interrupted\n'))

  def test_harmless_lines_are_dropped_and_all_others_kept(self):
    lines = [
      '[reverb/cc/platform/default/server.cc:71] Started replay server on port 3',
      '[reverb/cc/client.cc:165] Sampler and server are owned by the same process (1) so Table x',
      '[reverb/cc/platform/tfrecord_checkpointer.cc:565] Loading latest checkpoint from /x',
      '[reverb/cc/client.cc:99] Connection lost',
      'E cuda_dnn.cc:9261] Unable to register cuDNN factory: Attempting to register',
      'E cuda_driver.cc:1] failed call to cuInit',
      'Gym has been unmaintained since 2022 and does not support NumPy 2.0',
      'something else',
    ]
    body = f'os.write(2, {chr(10).join(lines) + chr(10)!r}.encode())'
    self.assertEqual(run(body).stderr.splitlines(), [lines[3], lines[5], lines[7]])
    self.assertEqual(run(body, TF_CPP_MIN_LOG_LEVEL='0').stderr.splitlines(), lines)

  def test_the_last_words_of_a_crash_are_kept(self):
    result = run("os.write(2, b'check failed'); os.abort()")
    self.assertEqual(result.returncode, -6)
    self.assertIn('check failed', result.stderr)

  def test_nothing_is_lost_or_late_at_the_end(self):
    result = run("sys.stderr.write('line\\n' * 50000)")
    self.assertLen(result.stderr.splitlines(), 50000)

  def test_only_the_known_warning_is_ignored(self):
    result = run("eval('[] is not ()'); eval('[] is ()')")
    self.assertNotIn('"is not" with a literal', result.stderr)
    self.assertIn('"is" with a literal', result.stderr)

  def test_other_errors_keep_their_traceback(self):
    result = run("{}['missing']")
    self.assertEqual(result.returncode, 1)
    self.assertIn('Traceback', result.stderr)
    self.assertIn("KeyError: 'missing'", result.stderr)


class UserErrorTest(test_case.TestCase):
  def end(self, error):
    def main(argv):
      raise error

    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), self.assertRaises(SystemExit) as caught:
      cli._guarded(main, ['program'])
    return caught.exception.code, stderr.getvalue()

  @parameterized.parameters(
    config.ConfigError,
    run_folder.RunFolderError,
    checkpoints.CheckpointError,
    server.CheckpointError,
    learner.DivergenceError,
    gymnasium_adapter.EnvironmentFault,
  )
  def test_is_one_message(self, error_class):
    code, stderr = self.end(error_class('what to do'))
    self.assertEqual((code, stderr), (1, 'error: what to do\n'))

  def test_a_fault_shows_where_the_users_code_raised(self):
    try:
      raise gymnasium_adapter.EnvironmentFault('step raised') from ZeroDivisionError('deep inside')
    except gymnasium_adapter.EnvironmentFault as error:
      _, stderr = self.end(error)
    self.assertIn('ZeroDivisionError: deep inside', stderr)
    self.assertEndsWith(stderr, 'error: step raised\n')

  @parameterized.parameters(ValueError, KeyError, RuntimeError, ImportError)
  def test_bugs_are_raised(self, error_class):
    def main(argv):
      raise error_class('a bug')

    with self.assertRaises(error_class):
      cli._guarded(main, ['program'])


if __name__ == '__main__':
  absltest.main()
