import json
import subprocess
import sys

from absl.testing import absltest, parameterized

from pearl_tf.experiment import config, run_folder
from pearl_tf.testing import test_case

LOCK = """
import sys
from pearl_tf.experiment import run_folder
handle = run_folder.RunFolder(sys.argv[1]).lock()
print('locked', flush=True)
sys.stdin.read()
"""


def contents(folder):
  return {path.name: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


class RunFolderTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.root = self.temp_dir() / 'runs' / 'a'
    self.folder = run_folder.RunFolder(self.root)

  def test_the_same_run_continues(self):
    self.assertEmpty(self.folder.claim('A = 1\n', 3))
    self.assertEmpty(self.folder.claim('A = 1\n', 3))
    self.assertEqual(self.folder.seed, 3)
    self.assertEqual(self.folder.config.read_text(), 'A = 1\n')
    self.assertIn('pearl_tf', json.loads(self.folder.run.read_text()))

  def test_another_configuration_is_refused_with_the_difference(self):
    self.folder.claim('A = 1\nB = 2\nC = 3\n', 3)
    before = contents(self.root)
    with self.assertRaises(run_folder.RunFolderError) as caught:
      self.folder.claim('A = 1\nB = 5\nC = 3\nD = 6\n', 3)
    lines = str(caught.exception).splitlines()
    self.assertIn('-B = 2', lines)
    self.assertIn('+B = 5', lines)
    self.assertIn('+D = 6', lines)
    self.assertFalse({'-A = 1', '+A = 1', ' A = 1'} & set(lines))
    self.assertIn('--root_dir', lines[-1])
    self.assertEqual(contents(self.root), before)

  def test_a_run_of_an_earlier_version_continues(self):
    old = 'Training.batch_size = 7\nTraining.num_iterations = 5\n'
    self.folder.claim(old, 3)
    self.assertEmpty(self.folder.claim(config.load_text(old), 3))
    with self.assertRaisesRegex(run_folder.RunFolderError, r'\+PearlTraining.batch_size = 8'):
      self.folder.claim(config.load_text(old.replace('7', '8')), 3)

  def test_a_run_can_be_made_longer_and_the_change_is_kept(self):
    self.folder.claim('A = 1\nTraining.num_iterations = 5\n', 3)
    longer = 'A = 1\nTraining.evaluation_interval = 2\nTraining.num_iterations = 9\n'
    expected = [
      '-Training.num_iterations = 5',
      '+Training.evaluation_interval = 2',
      '+Training.num_iterations = 9',
    ]
    self.assertEqual(self.folder.claim(longer, 3), expected)
    self.assertEqual(self.folder.config.read_text(), longer)
    self.assertEqual(json.loads(self.folder.run.read_text())['changes'], [expected])
    self.assertEmpty(self.folder.claim(longer, 3))
    with self.assertRaisesRegex(run_folder.RunFolderError, r'(?s)-A = 1\n\+A = 2\n') as caught:
      self.folder.claim('A = 2\nTraining.num_iterations = 10\n', 3)
    self.assertNotIn('+Training.num_iterations = 10', str(caught.exception))

  @parameterized.parameters('', '{}', '{"seed":', '[]', '{"seed": null}')
  def test_a_damaged_identity_names_the_file_and_the_remedy(self, text):
    self.folder.claim('A = 1\n', 3)
    self.folder.run.write_text(text)
    with self.assertRaisesRegex(run_folder.RunFolderError, 'run.json is damaged.*--seed'):
      self.folder.claim('A = 1\n', 3)

  def test_an_empty_configuration_is_named(self):
    self.folder.claim('A = 1\n', 3)
    self.folder.config.write_text('')
    with self.assertRaisesRegex(run_folder.RunFolderError, 'config.gin is empty'):
      self.folder.claim('A = 1\n', 3)

  def test_another_seed_is_refused_with_the_difference(self):
    self.folder.claim('A = 1\n', 3)
    before = contents(self.root)
    with self.assertRaisesRegex(run_folder.RunFolderError, r'(?s)-seed = 3\n\+seed = 4'):
      self.folder.claim('A = 1\n', 4)
    self.assertEqual(contents(self.root), before)

  def test_a_claim_that_died_half_way_can_be_made_again(self):
    self.root.mkdir(parents=True)
    self.folder.config.write_text('A = 1\n')  # The identity file comes last and is missing.
    self.assertEmpty(self.folder.claim('A = 2\n', 0))
    self.assertEqual(self.folder.config.read_text(), 'A = 2\n')

  def test_a_folder_in_use_by_another_process_is_refused(self):
    command = [sys.executable, '-c', LOCK, str(self.root)]
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    with subprocess.Popen(command, **pipes) as other:
      self.assertEqual(other.stdout.readline(), 'locked\n')
      with self.assertRaisesRegex(run_folder.RunFolderError, 'another process is training into'):
        self.folder.lock()
      other.kill()  # Whatever way it ends, the folder is free again.
    self.folder.lock().close()

  def test_a_lock_is_released_when_closed(self):
    with self.folder.lock(), self.assertRaises(run_folder.RunFolderError):
      self.folder.lock()
    self.folder.lock().close()

  def test_a_file_is_no_run_folder(self):
    self.root.parent.mkdir(parents=True)
    self.root.write_text('mine')
    with self.assertRaisesRegex(run_folder.RunFolderError, 'cannot be used as a run folder'):
      self.folder.lock()
    self.assertEqual(self.root.read_text(), 'mine')

  def test_what_is_not_a_run_folder_says_how_to_make_one(self):
    with self.assertRaisesRegex(run_folder.RunFolderError, 'python -m trainers.train --root_dir='):
      self.folder.require()


if __name__ == '__main__':
  absltest.main()
