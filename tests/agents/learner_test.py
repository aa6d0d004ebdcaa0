import numpy as np
import tensorflow as tf
from absl.testing import absltest
from tf_agents.agents import tf_agent

from pearl_tf.agents import learner
from pearl_tf.data import types
from pearl_tf.testing import test_case

SEED = np.random.SeedSequence(7)


class CountingAgent:
  """Reports its step number and what it was given; diverges at a step of choice."""

  def __init__(self, diverges_at: int = -1):
    self.train_step_counter = tf.Variable(0, dtype=tf.int64)
    self._diverges_at = diverges_at

  def train(self, experience):
    step = tf.cast(self.train_step_counter, tf.float32)
    self.train_step_counter.assign_add(1)
    broken = tf.where(tf.equal(step, float(self._diverges_at)), np.nan, 0.0)
    extra = {'step': step, 'drawn': experience.task, 'loss/critic': broken}
    return tf_agent.LossInfo(loss=step, extra=extra)


class SeededSampler:
  """Gives a number that depends on its seed only, and records the readiness checks."""

  def __init__(self):
    self.num_checks = 0
    self.ready = True

  def check_ready(self):
    self.num_checks += 1
    if not self.ready:
      raise RuntimeError('The replay has no context for 1 of 4 tasks')

  def sample(self, seed):
    drawn = tf.random.stateless_uniform([], seed)
    return types.MetaBatch(task=drawn, context=None, transitions=None)


def make(**agent):
  sampler = SeededSampler()
  return learner.Learner(CountingAgent(**agent), sampler, seed=SEED), sampler


class LearnerTest(test_case.TestCase):
  def test_sums_over_the_steps(self):
    learn, sampler = make()
    self.assertEqual(learn.run(4)['step'], 0 + 1 + 2 + 3)
    self.assertEqual(learn.run(2)['step'], 4 + 5)
    self.assertEqual(sampler.num_checks, 2)

  def test_batches_depend_on_the_step_not_on_how_steps_are_grouped(self):
    one, _ = make()
    single = [one.run(1)['drawn'] for _ in range(5)]
    many, _ = make()
    grouped = [many.run(2)['drawn'], many.run(3)['drawn']]
    self.assertLen(set(single), 5)
    self.assertAllClose(grouped, [sum(single[:2]), sum(single[2:])], rtol=1e-6)

  def test_a_loss_that_is_not_a_number_stops_with_its_name(self):
    learn, _ = make(diverges_at=5)
    learn.run(4)
    with self.assertRaisesRegex(
      learner.DivergenceError, 'gradient steps 4 to 8: loss/critic not finite.*learning rates'
    ):
      learn.run(4)

  def test_an_empty_task_stops_before_a_step(self):
    learn, sampler = make()
    sampler.ready = False
    with self.assertRaisesRegex(RuntimeError, 'no context for 1 of 4 tasks'):
      learn.run(1)


if __name__ == '__main__':
  absltest.main()
