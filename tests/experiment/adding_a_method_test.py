"""docs/adding_a_method.md, followed: its method trains, resumes and is meta-tested."""

import contextlib
import re
import sys

from absl.testing import absltest

from pearl_tf.experiment import local_loop, metrics, trained
from pearl_tf.testing import small_run, test_case

PAGE = small_run.ROOT / 'docs' / 'adding_a_method.md'
SMALL = ['sample_task_split.num_test = 2']


class AddingAMethodTest(test_case.TestCase):
  def test_the_page_works(self):
    folder = self.temp_dir()
    blocks = re.findall(r'```(?:python)?\n# (\S+)\n(.*?)```', PAGE.read_text(), re.DOTALL)
    for name, text in blocks:
      (folder / name).write_text(text)
    self.enter_context(absltest.mock.patch.object(sys, 'path', [str(folder), *sys.path]))
    self.enter_context(contextlib.chdir(folder))
    self.addCleanup(sys.modules.pop, 'my_method', None)
    self.assertTrue(local_loop.train('run', gin_files=['mine.gin'], gin_bindings=SMALL))
    records = metrics.read('run')
    # Four tasks, two episodes of twenty steps.
    self.assertEqual([record['env_steps'] for record in records], [160, 320])
    self.assertEqual({record['episode/length'] for record in records}, {20})
    self.assertTrue(local_loop.train('run', gin_files=['mine.gin'], gin_bindings=SMALL))
    self.assertEqual(metrics.read('run'), records)
    agent = trained.load('run')
    self.assertLess(agent.meta_test().trajectories[-1].episode_return, 0)


if __name__ == '__main__':
  absltest.main()
