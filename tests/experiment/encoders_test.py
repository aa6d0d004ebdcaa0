"""Every encoder through the same loop: train, stop, resume, meta-test; and early refusals."""

import os
import signal
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.agents import learner
from pearl_tf.data import sampling_scheme, seeds
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import config, local_loop, metrics, trained
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.testing import small_run, test_case

ORDERED = (
  "PearlTraining.context_sampling = 'trajectories'",
  "MetaTest.context_sampling = 'trajectories'",
)
RECURRENT = ('RecurrentEncoder.recurrent_units = 8', 'RecurrentEncoder.backpropagation_steps = 10')
VARIANTS = {
  'gaussian': ('Gaussian', ()),
  'gaussian_ordered': ('Gaussian', ORDERED),
  'deterministic': ('Deterministic', ()),
  'linear_gaussian': ('LinearGaussian', ()),
  'recurrent': ('Recurrent', ORDERED + RECURRENT),
}


def bindings_of(variant: str) -> list[str]:
  encoder_name, more = VARIANTS[variant]
  bindings = [binding.replace('Gaussian', encoder_name) for binding in small_run.SMALL]
  return bindings + [
    f'PearlAgent.encoder_class = @{encoder_name}Encoder',
    'Training.num_iterations = 2',
    'PearlTraining.gradient_steps_per_iteration = 10',
    'PearlTraining.steps_per_call = 5',
    *more,
  ]


def train(root, variant: str) -> bool:
  return local_loop.train(
    root, gin_files=[small_run.GIN_FILE], gin_bindings=bindings_of(variant), seed=1
  )


def timeless(root) -> list[dict]:
  """Returns the metrics that do not depend on the clock."""
  return [
    {name: value for name, value in record.items() if not name.startswith('time/')}
    for record in metrics.read(root)
  ]


class EncodersTest(test_case.TestCase):
  @parameterized.parameters(*VARIANTS)
  def test_trains_resumes_and_is_meta_tested(self, variant):
    left_alone, stopped = self.temp_dir() / 'alone', self.temp_dir() / 'stopped'
    self.assertTrue(train(left_alone, variant))
    original, calls = learner.Learner.run, []

    def interrupted(self, num_steps):
      calls.append(num_steps)
      if len(calls) == 3:  # The first steps of the second iteration.
        os.kill(os.getpid(), signal.SIGTERM)
      return original(self, num_steps)

    with mock.patch.object(learner.Learner, 'run', interrupted):
      self.assertFalse(train(stopped, variant))
    self.assertTrue(train(stopped, variant))
    for expected, actual in zip(timeless(left_alone), timeless(stopped), strict=True):
      self.assertEqual(expected.keys(), actual.keys())
      for name, value in expected.items():
        self.assertAllClose(actual[name], value, rtol=1e-3, atol=1e-4, msg=name)

    builder, _ = trained.restore(stopped)
    result = builder.meta_test.run(
      builder.tasks.test,
      builder.make_rollout(deterministic=True, num_environments=4),
      seed=seeds.sequence(1, seeds.Stream.META_TEST),
    )
    adapted = [t for t in result.trajectories if t.adapted]
    self.assertNotEmpty(adapted)
    prior = builder.agent.encoder.prior([])
    for trajectory in adapted:
      self.assertTrue(np.isfinite(trajectory.episode_return))
      self.assertNotAllClose(trajectory.posterior.mean, prior.mean, atol=1e-9)


class OrderTest(test_case.TestCase):
  def _build(self, *bindings) -> builder_lib.Builder:
    return builder_lib.Builder(
      experiment_lib.load([small_run.GIN_FILE], (*bindings_of('recurrent'), *bindings))
    )

  @parameterized.parameters('Training', 'MetaTest')
  def test_a_recurrent_encoder_refuses_loose_transitions(self, owner):
    builder = self._build(f"{owner}.context_sampling = 'transitions'")
    with self.assertRaisesRegex(ValueError, f"{owner}.context_sampling = 'transitions'"):
      builder.check()

  def test_the_refusal_comes_before_anything_long_and_leaves_no_folder(self):
    root = self.temp_dir() / 'run'
    with self.assertRaisesRegex(config.ConfigError, 'in time order'):
      local_loop.train(
        root,
        gin_files=[small_run.GIN_FILE],
        gin_bindings=[*bindings_of('recurrent'), "PearlTraining.context_sampling = 'transitions'"],
      )
    self.assertFalse(root.exists())

  def test_collection_and_learner_draw_alike(self):
    builder = self._build()
    process = builder.make_process()
    self.addCleanup(process.close)
    expected = sampling_scheme.SamplingScheme('trajectories')
    self.assertEqual(process.learner.sampler._scheme, expected)
    phases = process.collector._phases
    self.assertEqual([phase.context_sampling for phase in phases[1:]], ['trajectories'] * 2)


if __name__ == '__main__':
  absltest.main()
