import contextlib
import io
import signal
import subprocess
import sys

from absl.testing import absltest, parameterized

from pearl_tf.agents import learner
from pearl_tf.environments import gymnasium_adapter
from pearl_tf.experiment import checkpoints, config, run_folder
from pearl_tf.programs import program
from pearl_tf.testing import small_run, test_case

PROGRAM = """
'''What it does.

  an example
'''
import os, subprocess, sys, warnings
from absl import flags
from pearl_tf.programs import program

flags.DEFINE_integer('number', 0, 'A number.')

def main(argv):
  {body}

program.run(main)
"""


def run(body, *arguments, ignored=(), **environment):
  def ignore():
    for name in ('SIGINT', 'SIGTERM', 'SIGHUP'):  # Whatever the tests themselves inherit.
      action = signal.SIG_IGN if name in ignored else signal.SIG_DFL
      signal.signal(getattr(signal, name), action)

  return subprocess.run(
    [sys.executable, '-c', PROGRAM.replace('{body}', body), *arguments],
    cwd=small_run.ROOT,
    env={'PATH': '/usr/bin:/bin', 'PYTHONPATH': str(small_run.ROOT), **environment},
    capture_output=True,
    text=True,
    check=False,
    preexec_fn=ignore,
  )


class ProgramTest(test_case.TestCase):
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

  def test_terminated_by_a_signal(self):
    for name, code in (('SIGINT', 130), ('SIGTERM', 143), ('SIGHUP', 129)):
      # Ignored, as a shell has it for what it starts with & in a script, but for the hang-up.
      result = run(
        f'import signal; signal.raise_signal(signal.{name})', ignored=('SIGINT', 'SIGTERM')
      )
      self.assertEqual((result.returncode, result.stderr), (code, 'interrupted\n'))

  def test_a_hang_up_stays_ignored(self):
    result = run('import signal; signal.raise_signal(signal.SIGHUP)', ignored=('SIGHUP',))
    self.assertEqual((result.returncode, result.stderr), (0, ''))

  def test_the_proxy_is_not_for_this_machine(self):
    body = "print(os.environ['no_grpc_proxy'])"
    for given, expected in (
      ({}, 'localhost,127.0.0.1,::1'),
      ({'no_proxy': 'a.org, localhost'}, 'a.org,localhost,127.0.0.1,::1'),
      ({'NO_PROXY': 'a.org', 'no_grpc_proxy': 'b.org'}, 'b.org,localhost,127.0.0.1,::1'),
    ):
      self.assertEqual(run(body, **given).stdout.strip(), expected)

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
      program._guarded(main, ['program'])
    return caught.exception.code, stderr.getvalue()

  @parameterized.parameters(
    config.ConfigError,
    run_folder.RunFolderError,
    checkpoints.CheckpointError,
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
      program._guarded(main, ['program'])


if __name__ == '__main__':
  absltest.main()
