import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.collect import rollout
from pearl_tf.evaluation import meta_testing
from pearl_tf.testing import fakes, test_case

SEED = np.random.SeedSequence([5])


def run(*, num_tasks=3, num_environments=4, seed=SEED, acting=None, **protocol):
  environment = {'termination_probability': protocol.pop('termination_probability', 0.0)}
  roll = rollout.Rollout(
    fakes.line_adapters(num_environments, **environment), acting or fakes.ScriptedActing()
  )
  tasks = fakes.line_tasks(num_tasks)
  return meta_testing.MetaTest(**protocol).run(tasks, roll, seed=seed)


class MetaTestTest(test_case.TestCase):
  @parameterized.product(num_exploration=[0, 1, 2], num_environments=[1, 4, 30])
  def test_protocol(self, num_exploration, num_environments):
    result = run(
      num_environments=num_environments,
      num_repeats=2,
      steps_per_repeat=18,
      num_exploration_episodes=num_exploration,
    )
    # 18 steps are four whole trajectories of five; each repeat is a trial of its own.
    keys = [(t.task.index, t.repeat, t.index) for t in result.trajectories]
    self.assertEqual(keys, [(t, r, i) for t in range(3) for r in range(2) for i in range(4)])
    self.assertEqual(result.env_steps, 3 * 2 * 20)
    for trajectory in result.trajectories:
      # The belief starts on the prior in every repeat: nothing is known before a trajectory.
      self.assertEqual(trajectory.adapted, trajectory.index >= max(num_exploration, 1))
      mean, variance = trajectory.posterior
      if trajectory.adapted:
        self.assertEqual(variance, 5 * trajectory.index)  # The whole context so far.
      else:
        self.assertEqual((mean, variance), (fakes.ScriptedActing.PRIOR_MEAN, 0.0))
      self.assertEqual(trajectory.latent, fakes.ScriptedActing.draw(mean, variance))

  def test_the_belief_is_that_of_all_earlier_trajectories_of_the_repeat(self):
    result = run(
      num_repeats=2, steps_per_repeat=40, num_exploration_episodes=2, termination_probability=0.2
    )
    returns, steps = {}, {}
    for trajectory in result.trajectories:
      key = (trajectory.task.index, trajectory.repeat)
      if trajectory.adapted:
        mean, variance = trajectory.posterior
        self.assertEqual(variance, steps[key])
        self.assertAllClose(mean, [returns[key] / steps[key]], atol=1e-6)
      returns[key] = returns.get(key, 0.0) + trajectory.episode_return
      steps[key] = steps.get(key, 0) + trajectory.length
    self.assertEqual(sum(steps.values()), result.env_steps)
    self.assertTrue(all(40 <= number < 45 for number in steps.values()))
    self.assertGreater(len(set(steps.values())), 1)  # Terminations made them differ.

  def test_what_is_recorded(self):
    for trajectory in run(num_repeats=1, steps_per_repeat=10).trajectories:
      self.assertEqual(trajectory.observations.shape, (6, 1))
      distance = np.abs(trajectory.observations[1:, 0] - trajectory.task.parameters[0])
      self.assertAlmostEqual(trajectory.dense_return, -float(distance.sum()), places=5)
      self.assertEqual(trajectory.episode_return, float((distance < 0.25).sum()))

  def test_context_may_be_sub_sampled(self):
    acting = fakes.ScriptedActing()
    result = run(num_repeats=1, steps_per_repeat=20, context_size=3, acting=acting)
    self.assertEqual({len(context.reward) for context in acting.contexts}, {3})
    adapted = [t for t in result.trajectories if t.adapted]
    self.assertLen(adapted, 3 * 3)
    self.assertEqual({float(t.posterior.variance[0]) for t in adapted}, {3.0})

  def test_the_seed_decides_and_repeats_differ(self):
    def starts(seed):
      result = run(num_repeats=3, steps_per_repeat=5, seed=seed)
      return [float(t.observations[0, 0]) for t in result.trajectories]

    self.assertEqual(starts(SEED), starts(np.random.SeedSequence([5])))
    self.assertNotEqual(starts(SEED), starts(np.random.SeedSequence([6])))
    self.assertLen(set(starts(SEED)), 9)

  @parameterized.parameters(
    {'num_repeats': 0},
    {'steps_per_repeat': 0},
    {'num_exploration_episodes': -1},
    {'steps_per_repeat': 2.5},
    {'context_size': 0},
  )
  def test_refuses_impossible_numbers(self, **numbers):
    (value,) = numbers.values()
    with self.assertRaisesRegex(ValueError, f'got.*{value}'):
      meta_testing.MetaTest(**numbers)


if __name__ == '__main__':
  absltest.main()
