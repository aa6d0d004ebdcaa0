"""The program as its users start it, on a run that was never trained."""

import os
import signal
import subprocess
import sys
import time

import imageio.v2
from absl.testing import absltest, parameterized

from pearl_tf.experiment import published, trained
from pearl_tf.testing import small_run, test_case, untrained_run

STEPS = 4


def make_run(root, name='point_robot'):
  shrunken = (*small_run.SMALL, f'Training.max_episode_steps = {STEPS}')
  shrunken = (*shrunken, f'MetaTest.steps_per_repeat = {3 * STEPS}')
  return untrained_run.make(root, shrunken, gin_file=f'{name}.gin')


def command(root, *arguments):
  return [sys.executable, '-m', 'trainers.record_video', f'--root_dir={root}', *arguments]


def record(root, *arguments):
  return run_program(f'--root_dir={root}', *arguments)


def run_program(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'trainers.record_video', *arguments],
    cwd=small_run.ROOT,
    capture_output=True,
    text=True,
    check=False,
  )


class RecordVideoTest(test_case.TestCase):
  def assert_video(self, path, num_frames, size):
    with imageio.v2.get_reader(path) as reader:
      self.assertEqual(reader.count_frames(), num_frames)
      self.assertEqual(reader.get_meta_data()['size'], size)

  def test_point_robots(self):
    root = make_run(self.temp_dir() / 'run')
    result = record(root, '--tasks=5', '--fps=4')
    self.assertEqual(result.returncode, 0, result.stderr)
    self.assertEqual(result.stderr, '')
    names = [f'latest-000000000001-task{index:03d}.mp4' for index in (4, 5)]
    self.assertCountEqual([path.name for path in (root / 'videos').iterdir()], names)
    for name in names:
      self.assertIn(f'written to {root}/videos/{name}', result.stdout)
      self.assert_video(root / 'videos' / name, 3 * (STEPS + 1 + 3), (736, 480))
    self.assertRegex(result.stdout, r'task 4 \(1 of 2\): goal at \(')
    self.assertRegex(result.stdout, r'trajectory 3 \(posterior after 2 trajectories\): return -')

  def test_mujoco(self):
    root = make_run(self.temp_dir() / 'run', 'cheetah_vel')
    agent = self.temp_dir() / 'cheetah'
    builder = trained.load(root).builder
    published.publish(builder, root, agent, {'env_steps': 1, 'meta_test': {}})
    folder = self.temp_dir() / 'films'
    options = ['--tasks=1', '--episodes=2', '--fps=4', '--width=320', f'--output_dir={folder}']
    result = run_program(f'--pretrained={agent}', *options)
    self.assertEqual(result.returncode, 0, result.stderr)
    (path,) = folder.iterdir()
    self.assertEqual(path.name[:12], 'cheetah-task')
    self.assert_video(path, 2 * (STEPS + 1 + 3), (576, 480))
    self.assertRegex(result.stdout, r'target velocity \d\.\d\d m/s')

  @parameterized.parameters(
    (['--tasks=0'], 2, '--tasks'),
    (['--width=101'], 2, '--width must be even, got 101'),
    (['stray'], 2, 'unexpected arguments'),
    (['--pretrained=both'], 2, 'give --root_dir, the folder of a run, or --pretrained'),
    ([], 1, 'not a run folder'),
  )
  def test_what_the_user_can_mend_is_one_line(self, arguments, code, message):
    result = record(self.temp_dir(), *arguments)
    self.assertEqual(result.returncode, code, result.stderr)
    self.assertIn(message, result.stderr)
    self.assertNotIn('Traceback', result.stderr)

  def test_no_display_says_what_to_install(self):
    root = make_run(self.temp_dir() / 'run', 'cheetah_vel')
    program = (
      'from pearl_tf.evaluation.video import display; from trainers import record_video; '
      "display.BACKENDS = ('nowhere',); record_video.run()"
    )
    result = subprocess.run(
      [sys.executable, '-c', program, f'--root_dir={root}'],
      cwd=small_run.ROOT,
      env={name: value for name, value in os.environ.items() if name != 'MUJOCO_GL'},
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual(result.returncode, 1, result.stderr)
    self.assertIn('error: MuJoCo cannot draw here', result.stderr)
    self.assertIn('apt-get install', result.stderr)
    self.assertNotIn('Traceback', result.stderr)
    self.assertFalse((root / 'videos').exists())

  def test_ctrl_c_leaves_no_half_file(self):
    root = make_run(self.temp_dir() / 'run')
    process = subprocess.Popen(
      command(root, '--episodes=2000'),
      cwd=small_run.ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
      # As a shell has it for what it starts with & in a script.
      preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    self.addCleanup(process.kill)
    deadline = time.monotonic() + 300
    while not list(root.glob('videos/.partial-*')) and time.monotonic() < deadline:
      time.sleep(0.05)
    self.assertLen(list(root.glob('videos/.partial-*')), 1)
    # To the encoder, too, as a terminal does.
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    self.assertEqual((process.returncode, stderr), (130, 'interrupted\n'))
    self.assertEmpty(list(root.glob('videos/*')) + list(root.glob('videos/.*')))


if __name__ == '__main__':
  absltest.main()
