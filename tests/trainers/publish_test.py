"""From a run to a published agent, and to the table of what it is worth."""

import json
import os
import subprocess
import sys

from absl.testing import absltest

from pearl_tf.testing import small_run, test_case, untrained_run


def run(program, *arguments, cwd):
  return subprocess.run(
    [sys.executable, '-m', f'trainers.{program}', *arguments],
    cwd=cwd,
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(small_run.ROOT)},
  )


class PublishTest(test_case.TestCase):
  def test_evaluation_of_what_was_published_gives_what_it_was_published_with(self):
    folder = self.temp_dir()
    untrained_run.make(folder / 'run')
    where = [f'--root_dir={folder}/run', '--checkpoint=latest', f'--output_dir={folder}/agents']
    done = run('publish', *where, '--name=line', cwd=folder)
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertRegex(
      done.stdout, r'^published latest-0*1 to .*/agents/line \(0\.\d MB\): final ret'
    )
    done = run('evaluate', f'--pretrained={folder}/agents/line', '--seed=1', cwd=folder)
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertIn('published with: final return', done.stdout)
    (written,) = (folder / 'line' / 'evaluations').iterdir()
    claim = json.loads((folder / 'agents' / 'line' / 'published.json').read_text())['meta_test']
    self.assertEqual(json.loads(written.read_text())['final_return'], claim['final_return'])


if __name__ == '__main__':
  absltest.main()
