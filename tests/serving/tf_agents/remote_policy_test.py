import numpy as np
from absl.testing import absltest, parameterized
from tf_agents.drivers import py_driver
from tf_agents.environments import batched_py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from pearl_tf.environments import gymnasium_adapter, point_robot
from pearl_tf.testing import fakes, scripted_server, test_case
from serving import client
from serving.tf_agents import remote_policy

GENEROUS = client.Deadlines(connect=30.0, act=20.0, adapt=20.0, begin=20.0)
STEPS = 5


def make_environment():
  return gymnasium_adapter.GymnasiumAdapter(point_robot.PointRobot(), max_episode_steps=STEPS)


class RemotePolicyTest(test_case.TestCase):
  def start(self, **model):
    server = self.enter_context(
      scripted_server.ScriptedServer({1: scripted_server.ToyModel(11, gain=1e-3, **model)})
    )
    options = client.Options(deadlines=GENEROUS)
    return server, self.enter_context(client.connect(server.address, options))

  def policy(self, connection, environment, **settings):
    return remote_policy.RemotePearlPolicy(
      connection, environment.time_step_spec(), environment.action_spec(), **settings
    )

  def drive(self, connection, environment, *, max_episodes, **settings):
    """Runs a driver and returns its policy and the transitions between steps of an episode."""
    policy, transitions = self.policy(connection, environment, **settings), []
    driver = py_driver.PyDriver(
      environment,
      policy,
      observers=[],
      transition_observers=[policy.observe, transitions.append],
      max_episodes=max_episodes,
      end_episode_on_boundary=False,
    )
    driver.run(environment.reset())
    return policy, transitions

  def evidence(self, transitions, row=None):
    """Returns the sum of all numbers of the transitions, which the toy model makes of them."""
    total, count = 0.0, 0
    for before, step, after in transitions:
      pick = (lambda value: value) if row is None else (lambda value: value[row])
      if not pick(before.is_last()):
        total += pick(before.observation).sum() + pick(step.action).sum() + pick(after.reward)
        count += 1
    return total, count

  def test_driver_adapts_after_every_episode(self):
    server, connection = self.start()
    policy, transitions = self.drive(connection, make_environment(), max_episodes=3)
    self.assertLen(transitions, 3 * STEPS + 2)  # Two from a last step to a first one.
    total, count = self.evidence(transitions)
    belief = policy.sessions(1)[0].belief
    self.assertEqual(belief.count, count)
    self.assertAllClose(belief.eta, [total] * 3, rtol=1e-4)
    self.assertLen(server.received('update'), 3)
    counts = [int(call.inputs['count'][0]) for call in server.received('sample_z')]
    self.assertEqual(counts, [0, STEPS, 2 * STEPS])
    latents = [float(call.inputs['z'][0, 0]) for call in server.received('act')]
    # With the last step of the first two episodes, for which a driver wants an action too.
    self.assertEqual([latents.index(latent) for latent in latents], [0] * 6 + [6] * 6 + [12] * 5)
    policy.reset()
    self.assertIsNone(policy.sessions(1)[0].belief)

  def test_batched_environment(self):
    server, connection = self.start()
    environment = batched_py_environment.BatchedPyEnvironment(
      [make_environment() for _ in range(3)]
    )
    policy, transitions = self.drive(connection, environment, max_episodes=6, every_steps=2)
    for row, session in enumerate(policy.sessions(3)):
      total, count = self.evidence(transitions, row)
      self.assertEqual((session.belief.count, count), (2 * STEPS, 2 * STEPS))
      self.assertAllClose(session.belief.eta, [total] * 3, rtol=1e-4)
    self.assertEqual({len(call.inputs['z']) for call in server.received('act')}, {3})
    lengths = [int(call.inputs['num_transitions'][0]) for call in server.received('update')]
    self.assertEqual(lengths, [2, 2, 2, 2, 2, 2, 1, 1, 1] * 2)

  def test_sparse_reward(self):
    _, connection = self.start(observation_size=1, action_size=1)
    environment = gymnasium_adapter.GymnasiumAdapter(fakes.Line(), max_episode_steps=STEPS)
    rewards = []

    def context_reward():
      rewards.append(environment.last_step.context_reward)
      return environment.last_step.context_reward

    policy, transitions = self.drive(
      connection, environment, max_episodes=1, context_reward_fn=context_reward
    )
    dense, _ = self.evidence(transitions)
    dense_rewards = sum(float(after.reward) for _, _, after in transitions)
    self.assertAllClose(
      policy.sessions(1)[0].belief.eta, [dense - dense_rewards + sum(rewards)] * 3, rtol=1e-4
    )

  @parameterized.parameters(True, False)
  def test_shapes_and_seeds(self, deterministic):
    _, connection = self.start()
    environment = make_environment()
    first = environment.reset()
    later = ts.transition(first.observation, 0.0)
    policies = [
      self.policy(connection, environment, deterministic=deterministic, seed=seed)
      for seed in (1, 1, 2)
    ]
    steps = [policy.action(first) for policy in policies]
    for step in steps:
      self.assertEqual(step.action.shape, (2,))
      self.assertEqual((step.info['version'], step.info['version_changed']), (1, False))
    self.assertAllEqual(steps[0].action, steps[1].action)
    self.assertNotAllClose(steps[0].action, steps[2].action)
    again = [policies[0].action(later, seed=seed).action for seed in (7, 7, 8)]
    self.assertAllEqual(again[0], again[1])
    self.assertEqual(np.allclose(again[0], again[2]), deterministic)

  @parameterized.parameters(True, False)
  def test_version_gone_within_an_episode(self, moves):
    server, connection = self.start()
    policy = self.policy(connection, make_environment(), moves_within_episode=moves)
    policy.action(ts.restart(np.zeros([2, 2], np.float32), batch_size=2))
    middle = ts.transition(np.zeros([2, 2], np.float32), np.ones([2], np.float32))
    # The first row begins a new episode on version 2 while the second one is still on version 1.
    server.versions[2] = scripted_server.ToyModel(22)
    mixed = middle._replace(step_type=np.array([0, 1], np.int32))
    info = policy.action(mixed).info
    self.assertAllEqual(info['version'], [2, 1])
    self.assertAllEqual(info['version_changed'], [False, False])
    del server.versions[1]
    if not moves:
      with self.assertRaises(client.errors.VersionChangedError):
        policy.action(middle)
      return
    info = policy.action(middle).info
    self.assertAllEqual(info['version'], [2, 2])
    self.assertAllEqual(info['version_changed'], [False, True])

  def test_model_of_another_environment(self):
    _, connection = self.start(observation_size=7)
    environment = make_environment()
    with self.assertRaisesRegex(ValueError, r'observations of shape \[7\], the environment of'):
      self.policy(connection, environment)

  def test_actions_with_other_bounds(self):
    _, connection = self.start()
    environment = make_environment()
    action_spec = array_spec.BoundedArraySpec([2], np.float32, -0.1, 0.1)
    with self.assertRaisesRegex(ValueError, r'acts in \[-1, 1\]'):
      remote_policy.RemotePearlPolicy(connection, environment.time_step_spec(), action_spec)


if __name__ == '__main__':
  absltest.main()
