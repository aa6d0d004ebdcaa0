"""The proof: what is served does in a meta-test what the trained agent does."""

import numpy as np
from absl.testing import absltest, parameterized
from tf_agents.drivers import py_driver

from pearl_tf.agents.pearl import actor as pearl_actor
from pearl_tf.collect import rollout
from pearl_tf.data import seeds, specs, types
from pearl_tf.environments import gymnasium_adapter, point_robot
from pearl_tf.evaluation import meta_testing
from pearl_tf.experiment import local_loop, trained
from pearl_tf.export import exporter
from pearl_tf.policies import latent_policy
from pearl_tf.testing import exported_model, small_run, test_case
from serving import client
from serving.server import options as server_options
from serving.server import server as server_lib
from serving.tf_agents import remote_actor, remote_policy

GENEROUS = client.Deadlines(connect=60.0, act=60.0, adapt=60.0, begin=60.0)
# Long enough for the latent to matter, not so long that actions stay at their bounds.
TRAINING = (
  *small_run.SMALL,
  'Training.num_iterations = 2',
  'PearlTraining.gradient_steps_per_iteration = 100',
  'PearlAgent.actor_learning_rate = 3e-3',
  'PearlAgent.encoder_learning_rate = 3e-3',
  'PearlAgent.critic_learning_rate = 3e-3',
)
SEED = np.random.SeedSequence([5])


def environments(number):
  return [
    gymnasium_adapter.GymnasiumAdapter(point_robot.PointRobot(), max_episode_steps=20)
    for _ in range(number)
  ]


def returns(result):
  return [trajectory.episode_return for trajectory in result.trajectories]


class WithOtherLatents(remote_actor.RemoteActor):
  def act(self, observation, step_type, reward, state, seed):
    return super().act(observation, step_type, reward, state, seed + 1)


class ServedMetaTestTest(test_case.TestCase):
  def serve(self, directory):
    """Returns a connection to an embedded server of an export directory."""
    settings = server_options.ServerOptions(
      model_name='pearl', model_base_path=str(directory / 'pearl'), port=0
    )
    server = self.enter_context(server_lib.in_background(settings))
    return self.enter_context(client.connect(server.address, client.Options(deadlines=GENEROUS)))

  def assert_same(self, local, served):
    self.assertEqual(local.env_steps, served.env_steps)
    self.assertLen(served.trajectories, len(local.trajectories))
    for one, other in zip(local.trajectories, served.trajectories, strict=True):
      self.assertEqual(one[1:3], other[1:3])
      self.assertEqual(one.adapted, other.adapted)
      self.assertAllClose(one.posterior, other.posterior, rtol=1e-4, atol=1e-5)
      self.assertAllClose(one.latent, other.latent, rtol=1e-4, atol=1e-5)
      self.assertAllClose(one.observations, other.observations, rtol=1e-4, atol=1e-4)
      self.assertAllClose(one.episode_return, other.episode_return, rtol=1e-4, atol=1e-4)

  def test_trained_point_robot(self):
    root = self.temp_dir()
    self.assertTrue(
      local_loop.train(root / 'run', gin_files=[small_run.GIN_FILE], gin_bindings=TRAINING, seed=0)
    )
    builder, _ = trained.restore(root / 'run')
    agent = builder.agent
    exporter.Exporter(
      builder.domain,
      root / 'export',
      context_encoder=agent.encoder,
      actor_network=agent.actor,
    ).export(exported_model.origin())
    protocol = meta_testing.MetaTest(num_repeats=3, steps_per_repeat=60)
    seed = seeds.sequence(0, seeds.Stream.META_TEST)
    local = protocol.run(
      builder.tasks.test, builder.make_rollout(deterministic=True, num_environments=4), seed=seed
    )
    connection = self.serve(root / 'export')
    served = protocol.run(
      builder.tasks.test,
      rollout.Rollout(builder.environments(4), remote_actor.RemoteActor(connection)),
      seed=seed,
    )
    self.assert_same(local, served)
    # The comparison could fail: actions are not at their bounds, and latents make a difference.
    observations = np.concatenate(
      [t.observations[1:] - t.observations[:-1] for t in local.trajectories]
    )
    actions = np.abs(observations) / point_robot.MAX_STEP
    self.assertBetween(float(np.median(actions)), 0.02, 0.95)
    redrawn = protocol.run(
      builder.tasks.test,
      rollout.Rollout(builder.environments(4), WithOtherLatents(connection)),
      seed=seed,
    )
    self.assertAllEqual(
      local.trajectories[0].observations[0], redrawn.trajectories[0].observations[0]
    )
    self.assertNotAllClose(returns(local), returns(redrawn), rtol=1e-3, atol=1e-3)

  @parameterized.parameters(('gaussian', True), ('linear_gaussian', False), ('recurrent', False))
  def test_other_encoders(self, kind, use_next_observation):
    settings = {'encoder': kind, 'use_next_observation': use_next_observation}
    connection = self.serve(exported_model.export_small(self.temp_dir(), **settings))
    context_encoder, actor = exported_model.small_networks(**settings)
    local = pearl_actor.PearlActor(
      exported_model.DOMAIN,
      latent_policy.LatentPolicy(
        specs.DomainSpec(2, 2),
        context_encoder=context_encoder,
        actor_network=actor,
        deterministic=True,
      ),
      context_encoder.infer_posterior,
    )
    tasks = point_robot.PointRobot().sample_tasks(2, seed=1)
    protocol = meta_testing.MetaTest(num_repeats=2, steps_per_repeat=60)
    results = [
      protocol.run(tasks, rollout.Rollout(environments(3), each), seed=SEED)
      for each in (local, remote_actor.RemoteActor(connection))
    ]
    self.assert_same(*results)

  def test_session_on_a_recurrent_encoder(self):
    connection = client.load(exported_model.export_small(self.temp_dir(), encoder='recurrent'))
    sessions = [self.enter_context(client.Session(connection)) for _ in range(2)]
    transitions = np.random.default_rng(0).uniform(-1, 1, size=[6, 5]).astype(np.float32)
    for session, every_steps in zip(sessions, (2, 6), strict=True):
      session.begin_episode()
      for number, row in enumerate(transitions):
        session.observe(row[:2], row[2:4], row[4])
        if (number + 1) % every_steps == 0:
          session.adapt()
    self.assertEqual([session.belief.count for session in sessions], [6, 6])
    self.assertAllClose(sessions[0].belief.mean, sessions[1].belief.mean, rtol=1e-4, atol=1e-5)

  def test_acting_alone(self):
    directory = exported_model.export_small(self.temp_dir())
    connection = self.serve(directory)
    remote = remote_actor.RemoteActor(connection)
    self.assertAllEqual(remote.prior().mean, np.zeros(5))
    self.assertAllEqual(remote.prior().variance, np.ones(5))
    rows = 600  # More than a server takes at once.
    observation = np.random.default_rng(0).normal(size=[rows, 2]).astype(np.float32)
    state = types.PolicyState(
      np.zeros([rows, 5], np.float32),
      types.Posterior(np.zeros([rows, 5], np.float32), np.ones([rows, 5], np.float32)),
    )
    step_type = np.ones([rows], np.int32)
    step_type[7] = 0
    seed = np.array([3, 4], np.int32)
    reward = np.zeros([rows], np.float32)
    action, after = remote.act(observation, step_type, reward, state, seed)
    self.assertEqual(action.shape, (rows, 2))
    self.assertAllEqual(
      np.flatnonzero(after.latent.any(axis=1)), [7]
    )  # Drawn at the first step only.
    sampling = remote_actor.RemoteActor(connection, deterministic=False)
    sampled, _ = sampling.act(observation, step_type, reward, state, seed)
    again, _ = sampling.act(observation, step_type, reward, state, seed)
    self.assertAllEqual(sampled, again)
    self.assertNotAllClose(sampled, action)
    # Another version does not take over: a score is that of one model.
    exported_model.export_small(directory, seed=1)
    kept, _ = remote.act(observation, step_type, reward, state, seed)
    self.assertAllClose(kept, action)

  def test_session_and_driver_against_the_real_model(self):
    connection = client.load(exported_model.export_small(self.temp_dir()))
    session = self.enter_context(client.Session(connection))
    environment = environments(1)[0]
    policy = remote_policy.RemotePearlPolicy(
      connection, environment.time_step_spec(), environment.action_spec()
    )

    def observe(transition):
      before, step, after = transition
      if session.latent is None:
        session.begin_episode()
      session.observe(before.observation, step.action, after.reward)
      session.adapt()  # After each step, where the policy does it once.

    driver = py_driver.PyDriver(
      environment,
      policy,
      observers=[],
      transition_observers=[policy.observe, observe],
      max_episodes=1,
      end_episode_on_boundary=False,
    )
    driver.run(environment.reset())
    belief = policy.sessions(1)[0].belief
    self.assertEqual((belief.count, session.belief.count), (20, 20))
    self.assertAllClose(belief.eta, session.belief.eta, rtol=1e-4, atol=1e-4)
    self.assertAllClose(belief.variance, session.belief.variance, rtol=1e-4)
    self.assertAllClose(belief.mean, belief.eta / belief.precision, rtol=1e-4, atol=1e-5)


if __name__ == '__main__':
  absltest.main()
