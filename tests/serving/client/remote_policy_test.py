import numpy as np
from absl.testing import absltest, parameterized
from tf_agents.drivers import py_driver
from tf_agents.environments import batched_py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from pearl_tf.environments import gymnasium_adapter, point_robot
from pearl_tf.testing import fakes, scripted_server, test_case
from serving import client
from serving.client import adaptation as adaptation_lib
from serving.client import remote_policy

GENEROUS = client.Deadlines(connect=30.0, act=20.0, adapt=20.0, describe=20.0)
STEPS = 5


def make_environment():
  return gymnasium_adapter.GymnasiumAdapter(point_robot.PointRobot(), max_episode_steps=STEPS)


class RemotePolicyTest(test_case.TestCase):
  def start(self, **model):
    server = self.enter_context(
      scripted_server.ScriptedServer({1: scripted_server.ToyModel(11, **model)})
    )
    options = client.Options(deadlines=GENEROUS)
    return server, self.enter_context(client.connect(server.address, options))

  def drive(self, connection, environment, *, max_episodes, adaptation=None, **settings):
    """Runs a driver and returns its policy and the transitions between steps of an episode."""
    policy = remote_policy.RemotePearlPolicy(
      connection,
      environment.time_step_spec(),
      environment.action_spec(),
      adaptation=adaptation,
      **settings,
    )
    transitions = []
    driver = py_driver.PyDriver(
      environment,
      policy,
      observers=[],
      transition_observers=[adaptation or (lambda transition: None), transitions.append],
      max_episodes=max_episodes,
      end_episode_on_boundary=False,
    )
    size = environment.batch_size or 1
    driver.run(environment.reset(), policy.get_initial_state(batch_size=size))
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
    adaptation = adaptation_lib.AdaptationObserver(connection)
    _, transitions = self.drive(
      connection, make_environment(), max_episodes=3, adaptation=adaptation
    )
    self.assertLen(transitions, 3 * STEPS + 2)  # Two from a last step to a first one.
    total, count = self.evidence(transitions)
    belief = adaptation.beliefs()[0]
    self.assertEqual(belief.count, count)
    self.assertAllClose(belief.eta, [total] * 3, rtol=1e-4)
    self.assertLen(server.received('update'), 3)
    counts = [int(call.inputs['count'][0]) for call in server.received('sample_z')]
    self.assertEqual(counts, [0, STEPS, 2 * STEPS])
    adaptation.reset()
    self.assertEqual(adaptation.beliefs(), [None])

  def test_latent_is_constant_within_an_episode(self):
    server, connection = self.start()
    adaptation = adaptation_lib.AdaptationObserver(connection)
    self.drive(connection, make_environment(), max_episodes=2, adaptation=adaptation)
    latents = [float(call.inputs['z'][0, 0]) for call in server.received('act')]
    # With the last step of the first episode, for which a driver wants an action too.
    self.assertEqual([latents.index(latent) for latent in latents], [0] * 6 + [6] * 5)

  def test_batched_environment(self):
    server, connection = self.start()
    environment = batched_py_environment.BatchedPyEnvironment(
      [make_environment() for _ in range(3)]
    )
    adaptation = adaptation_lib.AdaptationObserver(connection, every_steps=2)
    _, transitions = self.drive(connection, environment, max_episodes=6, adaptation=adaptation)
    for row in range(3):
      total, count = self.evidence(transitions, row)
      belief = adaptation.beliefs()[row]
      self.assertEqual((belief.count, count), (2 * STEPS, 2 * STEPS))
      self.assertAllClose(belief.eta, [total] * 3, rtol=1e-4)
    self.assertEqual({len(call.inputs['z']) for call in server.received('act')}, {3})
    lengths = [int(call.inputs['num_transitions'][0]) for call in server.received('update')]
    self.assertEqual(lengths, [2, 2, 1] * 2)

  def test_sparse_reward(self):
    _, connection = self.start(observation_size=1, action_size=1)
    environment = gymnasium_adapter.GymnasiumAdapter(fakes.Line(), max_episode_steps=STEPS)
    rewards = []

    def context_reward():
      rewards.append(environment.context_reward)
      return environment.context_reward

    adaptation = adaptation_lib.AdaptationObserver(connection, context_reward_fn=context_reward)
    _, transitions = self.drive(connection, environment, max_episodes=1, adaptation=adaptation)
    dense, _ = self.evidence(transitions)
    dense_rewards = sum(float(after.reward) for _, _, after in transitions)
    self.assertAllClose(
      adaptation.beliefs()[0].eta, [dense - dense_rewards + sum(rewards)] * 3, rtol=1e-4
    )

  def test_belief_may_travel_in_the_state(self):
    _, connection = self.start()
    environment = make_environment()
    policy = remote_policy.RemotePearlPolicy(
      connection, environment.time_step_spec(), environment.action_spec()
    )
    first = ts.restart(np.zeros([2, 2], np.float32), batch_size=2)
    step = policy.action(first, policy.get_initial_state(batch_size=2))
    for name, spec in policy.policy_state_spec.items():
      self.assertTrue(spec.check_array(np.asarray(step.state[name][0])), name)
    self.assertAllEqual(step.state['count'], [0, 0])
    self.assertAllEqual(step.state['version'], [1, 1])
    state = {
      **step.state,
      'eta': np.array([[30.0] * 3, [8.0] * 3], np.float32),
      'precision': np.full([2, 3], 2.0, np.float32),
      'count': np.array([2, 2], np.int32),
    }
    step = policy.action(first, state)
    self.assertAllClose(np.floor(step.state['z'][:, 0]), [15.0, 4.0])

  def test_unbatched_step_without_a_batch_in_the_state(self):
    _, connection = self.start()
    environment = make_environment()
    policy = remote_policy.RemotePearlPolicy(
      connection, environment.time_step_spec(), environment.action_spec()
    )
    time_step = environment.reset()
    for state in (policy.get_initial_state(), ()):
      step = policy.action(time_step, state)
      self.assertEqual(step.action.shape, (2,))
      for name, spec in policy.policy_state_spec.items():
        self.assertTrue(spec.check_array(np.asarray(step.state[name])), name)
      self.assertEqual(step.info['version_changed'].shape, ())

  def test_seed_argument_decides(self):
    _, connection = self.start()
    environment = make_environment()
    policy = remote_policy.RemotePearlPolicy(
      connection, environment.time_step_spec(), environment.action_spec()
    )
    time_step = environment.reset()
    drawn = [float(policy.action(time_step, (), seed=seed).state['z'][0]) for seed in (1, 1, 2)]
    self.assertEqual(drawn[0], drawn[1])
    self.assertNotEqual(drawn[0], drawn[2])

  @parameterized.parameters(True, False)
  def test_version_gone_within_an_episode(self, reencode):
    server, connection = self.start()
    environment = make_environment()
    adaptation = adaptation_lib.AdaptationObserver(connection)
    policy = remote_policy.RemotePearlPolicy(
      connection,
      environment.time_step_spec(),
      environment.action_spec(),
      adaptation=adaptation,
      reencode_within_episode=reencode,
    )
    first = ts.restart(np.zeros([2, 2], np.float32), batch_size=2)
    state = policy.action(first, policy.get_initial_state(batch_size=2)).state
    middle = ts.transition(np.zeros([2, 2], np.float32), np.ones([2], np.float32))
    # The first row begins a new episode on version 2 while the second one is still on version 1.
    server.versions[2] = scripted_server.ToyModel(22)
    mixed = middle._replace(step_type=np.array([0, 1], np.int32))
    step = policy.action(mixed, state)
    self.assertAllEqual(step.state['version'], [2, 1])
    self.assertAllEqual(step.info['version_changed'], [False, False])
    del server.versions[1]
    if not reencode:
      with self.assertRaises(client.errors.VersionChangedError):
        policy.action(middle, step.state)
      return
    step = policy.action(middle, step.state)
    self.assertAllEqual(step.state['version'], [2, 2])
    self.assertAllEqual(step.state['latent_tag'], [22, 22])
    self.assertAllEqual(step.info['version_changed'], [False, True])

  def test_model_of_another_environment(self):
    _, connection = self.start(observation_size=7)
    environment = make_environment()
    with self.assertRaisesRegex(ValueError, r'observations of shape \[7\], the environment of'):
      remote_policy.RemotePearlPolicy(
        connection, environment.time_step_spec(), environment.action_spec()
      )

  def test_actions_with_other_bounds(self):
    _, connection = self.start()
    environment = make_environment()
    action_spec = array_spec.BoundedArraySpec([2], np.float32, -0.1, 0.1)
    with self.assertRaisesRegex(ValueError, r'acts in \[-1, 1\]'):
      remote_policy.RemotePearlPolicy(connection, environment.time_step_spec(), action_spec)


if __name__ == '__main__':
  absltest.main()
