import pathlib
import signal
import subprocess
import sys
from unittest import mock

import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.data import files
from pearl_tf.experiment import checkpoints, progress
from pearl_tf.testing import test_case

# Saves checkpoint 2 and is killed at one point of it.
DIE = """
import os, pathlib, signal, sys
import tensorflow as tf
from pearl_tf.experiment import checkpoints

def die(*unused, **unused_too):
  os.kill(os.getpid(), signal.SIGKILL)

point = sys.argv[2]
if point == 'variables':
  tf.train.Checkpoint.write = die
elif point == 'sync':
  checkpoints.files.sync_tree = die
elif point == 'rename':
  os.replace = die
elif point == 'removal':
  checkpoints.shutil.rmtree = die
keep = 1 if point == 'removal' else 2
saved = checkpoints.Checkpoints(pathlib.Path(sys.argv[1]), prefix='latest', keep=keep)
saved.save(2, {'net': tf.Module()}, {'iteration': 2})
"""


class Net(tf.Module):
  def __init__(self, value: float, size: int = 3):
    super().__init__()
    self.weight = tf.Variable(tf.fill([size], value))


class CheckpointsTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = self.temp_dir() / 'checkpoints'
    self.saved = checkpoints.Checkpoints(self.directory, prefix='latest', keep=2)

  def save(self, number, **options):
    return self.saved.save(number, {'net': Net(float(number))}, {'iteration': number}, **options)

  def assert_intact(self, number):
    newest = self.saved.latest()
    self.assertEqual(newest.name, f'latest-{number:012d}')
    self.assertEqual(checkpoints.progress(newest), {'iteration': number})
    net = Net(0.0)
    checkpoints.restore(newest, {'net': net})
    self.assertAllEqual(net.weight, [float(number)] * 3)

  def test_nothing_is_there_at_first(self):
    self.assertIsNone(self.saved.latest())
    self.assertEqual(self.saved.all(), [])
    self.saved.remove_staged()

  def test_the_newest_few_are_kept(self):
    for number in (1, 2, 9, 10, 100):
      self.save(number)
    self.assertEqual([path.name[-3:] for path in self.saved.all()], ['010', '100'])
    self.assertLen(list(self.directory.iterdir()), 2)
    self.assert_intact(100)

  def test_the_last_one_of_a_number_is_the_newest(self):
    for iteration in range(12):
      path = self.saved.save(5, {'net': Net(5.0)}, {'iteration': iteration})
      self.assertEqual(self.saved.latest(), path)
      self.assertEqual(checkpoints.progress(path), {'iteration': iteration})
      self.assertEqual(checkpoints.number_of(path), 5)
    self.assertLen(self.saved.all(), 2)

  def test_kinds_do_not_disturb_each_other(self):
    best = checkpoints.Checkpoints(self.directory, prefix='best', keep=1)
    self.save(1)
    best.save(5, {'net': Net(5.0)}, {})
    best.save(7, {'net': Net(7.0)}, {})
    self.save(2)
    self.assertLen(self.saved.all(), 2)
    self.assertEqual([path.name for path in best.all()], ['best-000000000007'])

  def test_a_number_may_be_written_again(self):
    self.save(1)
    again = self.saved.save(1, {'net': Net(7.0)}, {'iteration': 1})
    self.assertEqual(self.saved.latest(), again)
    self.assertEqual(checkpoints.number_of(again), 1)
    net = Net(0.0)
    checkpoints.restore(again, {'net': net})
    self.assertAllEqual(net.weight, [7.0] * 3)

  def test_a_future_that_is_gone_goes(self):
    best = checkpoints.Checkpoints(self.directory, prefix='best', keep=1)
    best.save(6000, {'net': Net(6.0)}, {})
    saved = best.save(4000, {'net': Net(4.0)}, {})
    self.assertEqual(best.all(), [saved])
    self.assertTrue(saved.is_dir())
    best.drop_after(3999)
    self.assertEmpty(best.all())

  def test_kill_minus_nine_while_replacing_leaves_the_former(self):
    best = checkpoints.Checkpoints(self.directory, prefix='latest', keep=1)
    best.save(2, {'net': Net(2.0)}, {'iteration': 2})
    for point in ('sync', 'rename', 'removal'):
      subprocess.run([sys.executable, '-c', DIE, str(self.directory), point], check=False)
      self.assertIsNotNone(best.latest())
      checkpoints.progress(best.latest())

  def test_an_exception_while_saving_leaves_the_former(self):
    self.save(1)

    def fail(checkpoint, path):
      pathlib.Path(path).with_name('half').write_text('half')
      raise OSError('disk full')

    with (
      mock.patch.object(tf.train.Checkpoint, 'write', fail),
      self.assertRaisesRegex(files.FileError, 'checkpoints cannot be written: disk full'),
    ):
      self.save(2)
    self.assertFalse(list(self.directory.glob('.*')))
    self.assert_intact(1)
    self.save(3)
    self.assert_intact(3)
    self.assertFalse(list(self.directory.glob('.*')))

  def test_a_staged_folder_is_no_checkpoint_and_is_removed(self):
    self.save(1)
    staged = self.directory / '.staged-latest-2'
    staged.mkdir()
    (staged / 'progress.json').write_text('{"iteration": 2}')
    self.assert_intact(1)
    self.saved.remove_staged()
    self.assertFalse(staged.exists())

  @parameterized.parameters('variables', 'sync', 'rename')
  def test_kill_minus_nine_while_saving_leaves_the_former(self, point):
    self.save(1)
    process = subprocess.run([sys.executable, '-c', DIE, str(self.directory), point], check=False)
    self.assertEqual(process.returncode, -signal.SIGKILL)
    self.assertTrue(list(self.directory.glob('.staged-*')))  # It did die half-way.
    self.assert_intact(1)
    self.save(2)
    self.assert_intact(2)

  def test_kill_minus_nine_while_removing_leaves_no_ruin(self):
    self.save(1)
    subprocess.run([sys.executable, '-c', DIE, str(self.directory), 'removal'], check=False)
    self.assertEqual([path.name for path in self.saved.all()], ['latest-000000000002'])

  @parameterized.parameters('variables.index', 'variables.data-00000-of-00001', 'progress.json')
  def test_a_damaged_file_is_an_error_that_names_the_checkpoint(self, name):
    for damage in ('cut', 'removed'):
      saved = self.save(1)
      if damage == 'cut':
        (saved / name).write_bytes((saved / name).read_bytes()[:5])
      else:
        (saved / name).unlink()
      with self.assertRaisesRegex(checkpoints.CheckpointError, 'latest-000000000001.*damaged'):
        checkpoints.progress(saved)
        checkpoints.restore(saved, {'net': Net(0.0)})

  def test_another_experiment_is_an_error(self):
    saved = self.save(1)
    for variables in ({'net': Net(0.0, size=4)}, {'net': Net(0.0), 'more': Net(0.0)}, {}):
      with self.assertRaisesRegex(checkpoints.CheckpointError, 'of another experiment'):
        checkpoints.restore(saved, variables)

  def test_progress_of_another_version_says_so(self):
    known = progress.read(
      self.saved.save(1, {'net': Net(1)}, {'iteration': 1, 'process': {'a': 2}})
    )
    self.assertEqual((known.iteration, known.env_steps, known.process), (1, 0, {'a': 2}))
    path = self.saved.save(2, {'net': Net(1)}, {'iteration': 1, 'fresh_counts': [1]})
    with self.assertRaisesRegex(
      checkpoints.CheckpointError, r"latest-0+2 .* another version of .* \['fresh_counts'\]"
    ):
      progress.read(path)

  def test_a_part_may_be_restored_when_asked_for(self):
    saved = self.saved.save(1, {'net': Net(1.0), 'more': Net(2.0)}, {})
    net = Net(0.0)
    checkpoints.restore(saved, {'net': net}, partial=True)
    self.assertAllEqual(net.weight, [1.0] * 3)
    with self.assertRaises(checkpoints.CheckpointError):
      checkpoints.restore(saved, {'net': net})

  def test_at_least_one_is_kept(self):
    with self.assertRaisesRegex(ValueError, 'keep=0'):
      checkpoints.Checkpoints(self.directory, prefix='latest', keep=0)


if __name__ == '__main__':
  absltest.main()
