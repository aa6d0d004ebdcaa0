"""docs/extending.md, followed: its files in a folder, trained, resumed, evaluated and exported."""

import contextlib
import re
import sys

import numpy as np
import tensorflow as tf
from absl.testing import absltest

from pearl_tf.data import types
from pearl_tf.experiment import local_loop, trained
from pearl_tf.testing import small_run, test_case

PAGE = small_run.ROOT / 'docs' / 'extending.md'
# What makes it small, but for the widths of networks that are not used.
SMALL = [
  binding
  for binding in small_run.SMALL
  if not binding.startswith(('LatentActor', 'Training.export_interval'))
] + [
  'Training.num_iterations = 1',
  'PearlTraining.gradient_steps_per_iteration = 10',
  'MetaTest.steps_per_repeat = 40',
  'Training.max_episode_steps = 20',
  'sample_task_split.num_train = 2',
  'sample_task_split.num_test = 1',
]


def files_of_the_page() -> dict[str, str]:
  """Returns the blocks whose first line is a comment with a file's name."""
  blocks = re.findall(r'```(?:python)?\n# (\S+)\n(.*?)```', PAGE.read_text(), re.DOTALL)
  return dict(blocks)


class ExtendingTest(test_case.TestCase):
  def test_the_page_works(self):
    folder = self.temp_dir()
    for name, text in files_of_the_page().items():
      (folder / name).write_text(text)
    self.enter_context(absltest.mock.patch.object(sys, 'path', [str(folder), *sys.path]))
    self.enter_context(contextlib.chdir(folder))
    self.addCleanup(sys.modules.pop, 'my_networks', None)
    finished = local_loop.train('run', gin_files=['mine.gin'], gin_bindings=SMALL)
    self.assertTrue(finished)
    self.assertStartsWith((folder / 'run' / 'config.gin').read_text(), 'import my_networks\n')

    builder, _ = trained.restore('run')
    encoder = builder.agent.encoder
    self.assertEqual((type(encoder).__name__, encoder.latent_size), ('CautiousEncoder', 3))
    self.assertEqual(encoder._prior_weight, 0.5)
    self.assertEqual(builder.agent.actor.variables[0].shape[1], 64)
    # Bound of the class it derives from, see `small_run.NARROW`.
    self.assertEqual(encoder.variables[0].shape[1], 8)

    (version,) = (folder / 'run' / 'export' / 'pearl').iterdir()
    size, action_size = builder.domain
    context = np.random.default_rng(0).normal(size=[2, 5, size + action_size + 1])
    observation, action, reward = np.split(
      context.astype(np.float32), [size, size + action_size], axis=-1
    )
    belief = encoder.infer_posterior(
      types.ContextBatch(
        observation, action, reward[..., 0], np.zeros_like(observation), np.ones([2, 5], np.float32)
      )
    )
    answer = tf.saved_model.load(version).signatures['encode'](
      context=tf.constant(context, tf.float32), num_transitions=tf.constant([5, 5])
    )
    self.assertAllClose(answer['mean'], belief.mean, rtol=1e-4, atol=1e-6)
    self.assertAllClose(answer['variance'], belief.variance, rtol=1e-4)


if __name__ == '__main__':
  absltest.main()
