"""The policy: when a latent is redrawn, and that a belief outlives the end of an episode."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from tf_agents.drivers import dynamic_episode_driver, py_driver
from tf_agents.environments import py_environment, tf_py_environment
from tf_agents.policies import py_tf_eager_policy
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from pearl_tf.data import specs, types
from pearl_tf.networks import actor, encoder
from pearl_tf.policies import latent_policy
from pearl_tf.testing import test_case

DOMAIN = specs.DomainSpec(observation_size=3, action_size=2)
LATENT_SIZE = 4
NUM_ROWS = 3
FIRST, MID, LAST = (int(x) for x in (ts.StepType.FIRST, ts.StepType.MID, ts.StepType.LAST))


def policy_of(
  encoder_class=encoder.GaussianEncoder, **arguments
) -> tuple[latent_policy.LatentPolicy, actor.LatentActor]:
  """Returns a policy whose actions depend on its latent by much, and its actor."""
  context_encoder = encoder_class(
    specs.context_spec(DOMAIN), latent_size=LATENT_SIZE, hidden_units=(4,)
  )
  latent_spec = tf.TensorSpec([LATENT_SIZE], tf.float32)
  network = actor.LatentActor((DOMAIN.observation, latent_spec), action_size=2, hidden_units=(16,))
  for part in (context_encoder, network):
    part.create_variables()
  *hidden, kernel, bias = network.get_weights()
  network.set_weights([*hidden, 500 * kernel, 500 * bias])
  policy = latent_policy.LatentPolicy(
    DOMAIN, context_encoder=context_encoder, actor_network=network, **arguments
  )
  return policy, network


def time_step(*step_types: int) -> ts.TimeStep:
  num_rows = len(step_types)
  observation = np.random.default_rng(0).normal(size=[1, 3]).repeat(num_rows, axis=0)
  return ts.TimeStep(
    step_type=tf.constant(step_types, tf.int32),
    reward=tf.zeros([num_rows]),
    discount=tf.ones([num_rows]),
    observation=tf.constant(observation, tf.float32),
  )


def adapted_state(num_rows: int = NUM_ROWS) -> types.PolicyState:
  """Returns a state that nobody could take for the prior."""
  latent = np.arange(num_rows * LATENT_SIZE, dtype=np.float32).reshape(num_rows, LATENT_SIZE)
  return types.PolicyState(
    latent=tf.constant(latent / 10),
    posterior=types.Posterior(
      mean=tf.constant(5 + latent), variance=tf.fill([num_rows, LATENT_SIZE], 0.01)
    ),
  )


class RowEnvironment(py_environment.PyEnvironment):
  """Three rows whose episodes take 2, 3 and 4 steps; rows start again on their own."""

  LENGTHS = np.array([2, 3, 4])

  def __init__(self):
    super().__init__()
    self._clock = np.zeros(NUM_ROWS, np.int64)

  @property
  def batched(self):
    return True

  @property
  def batch_size(self):
    return NUM_ROWS

  def observation_spec(self):
    return array_spec.ArraySpec([3], np.float32, 'observation')

  def action_spec(self):
    return array_spec.BoundedArraySpec([2], np.float32, -1.0, 1.0, 'action')

  def _time_step(self):
    step_type = np.where(self._clock == self.LENGTHS, LAST, np.where(self._clock == 0, FIRST, MID))
    return ts.TimeStep(
      step_type=step_type.astype(np.int32),
      reward=np.zeros(NUM_ROWS, np.float32),
      discount=np.ones(NUM_ROWS, np.float32),
      observation=np.ones([NUM_ROWS, 3], np.float32),
    )

  def _reset(self):
    self._clock[:] = 0
    return self._time_step()

  def _step(self, action):
    del action
    self._clock = np.where(self._clock == self.LENGTHS, 0, self._clock + 1)
    return self._time_step()


class LatentPolicyTest(test_case.TestCase):
  def assertSameBelief(self, first: types.PolicyState, second: types.PolicyState):
    self.assertAllEqual(first.posterior.mean, second.posterior.mean)
    self.assertAllEqual(first.posterior.variance, second.posterior.variance)

  @parameterized.parameters(None, 1, 5)
  def test_initial_belief_is_the_prior(self, batch_size):
    policy, _ = policy_of()
    state = policy.get_initial_state(batch_size)
    shape = ([] if batch_size is None else [batch_size]) + [LATENT_SIZE]
    self.assertAllEqual(state.latent, np.zeros(shape))
    self.assertAllEqual(state.posterior.mean, np.zeros(shape))
    self.assertAllEqual(state.posterior.variance, np.ones(shape))

  def test_initial_belief_without_a_bottleneck(self):
    policy, _ = policy_of(encoder.DeterministicEncoder)
    state = policy.get_initial_state(2)
    self.assertAllEqual(state.posterior.variance, np.zeros([2, LATENT_SIZE]))
    step = policy.action(time_step(FIRST, FIRST), state)
    self.assertAllEqual(step.state.latent, np.zeros([2, LATENT_SIZE]))

  @parameterized.parameters(False, True)
  def test_latent_is_redrawn_at_first_steps_only(self, deterministic):
    policy, _ = policy_of(deterministic=deterministic)
    state = adapted_state()
    step = policy.action(time_step(MID, FIRST, LAST), state, seed=[1, 2])
    self.assertAllEqual(step.state.latent[0], state.latent[0])
    self.assertAllEqual(step.state.latent[2], state.latent[2])
    # The belief of row 1 is far from its former latent and ten times narrower than a unit.
    self.assertNotAllClose(step.state.latent[1], state.latent[1], atol=1.0)
    self.assertAllClose(step.state.latent[1], state.posterior.mean[1], atol=0.5)
    self.assertNotAllClose(step.state.latent[1], state.posterior.mean[1], atol=1e-3)

  @parameterized.product(deterministic=(False, True), step_type=(FIRST, MID, LAST))
  def test_belief_is_carried_through_unchanged(self, deterministic, step_type):
    policy, _ = policy_of(deterministic=deterministic)
    state = adapted_state()
    step = policy.action(time_step(*[step_type] * NUM_ROWS), state)
    self.assertSameBelief(step.state, state)
    step = policy.distribution(time_step(*[step_type] * NUM_ROWS), state)
    self.assertSameBelief(step.state, state)

  def test_belief_survives_the_end_of_an_episode(self):
    policy, _ = policy_of()
    state = start = adapted_state(1)
    latents = []
    for step_type in (FIRST, MID, MID, LAST, FIRST, MID, LAST):
      state = policy.action(time_step(step_type), state).state
      latents.append(state.latent.numpy())
    self.assertSameBelief(state, start)
    for latent in latents[1:4]:
      self.assertAllEqual(latent, latents[0])
    for latent in latents[5:]:
      self.assertAllEqual(latent, latents[4])
    self.assertNotAllClose(latents[0], latents[4], atol=1e-3)
    self.assertAllClose(latents[4], start.posterior.mean, atol=0.5)

  def test_replaced_belief_is_followed_at_the_next_first_step(self):
    policy, _ = policy_of()
    state = policy.action(time_step(FIRST, FIRST), policy.get_initial_state(2)).state
    state = state._replace(posterior=adapted_state(2).posterior)
    unchanged = policy.action(time_step(MID, LAST), state).state
    self.assertAllEqual(unchanged.latent, state.latent)
    redrawn = policy.action(time_step(FIRST, FIRST), unchanged).state
    self.assertAllClose(redrawn.latent, state.posterior.mean, atol=0.5)

  def test_mean_action_of_a_sampled_latent(self):
    policy, network = policy_of(deterministic=True)
    steps = [
      policy.action(time_step(FIRST, FIRST), policy.get_initial_state(2), seed=[0, i])
      for i in range(2)
    ]
    for step in steps:
      parameters, _ = network((time_step(FIRST, FIRST).observation, step.state.latent))
      self.assertAllClose(step.action, np.tanh(parameters.mean))
    self.assertNotAllClose(steps[0].state.latent, steps[1].state.latent)
    again = policy.action(time_step(MID, MID), steps[0].state, seed=[7, 7])
    self.assertAllClose(again.action, steps[0].action)

  def test_sampled_actions_follow_the_actor(self):
    policy, network = policy_of()
    num_rows = 20_000
    state = adapted_state(num_rows)
    state = state._replace(latent=tf.repeat(state.latent[1:2], num_rows, axis=0))
    step = policy.action(time_step(*[MID] * num_rows), state, seed=[1, 2])
    parameters, _ = network((time_step(MID).observation, state.latent[:1]))
    draws = np.arctanh(np.clip(np.float64(step.action), -1 + 1e-7, 1 - 1e-7))
    mean, std = parameters.mean[0], tf.exp(parameters.log_std[0])
    self.assertAllClose(np.median(draws, axis=0), mean, atol=0.05)
    quartiles = np.quantile(draws, [0.25, 0.75], axis=0)
    self.assertAllClose((quartiles[1] - quartiles[0]) / 1.349, std, rtol=0.05)

  def test_seed_decides_latent_and_action(self):
    policy, _ = policy_of()
    state = policy.get_initial_state(2)
    first, same, other = (
      policy.action(time_step(FIRST, FIRST), state, seed=seed) for seed in ([1, 2], [1, 2], [1, 3])
    )
    self.assertAllEqual(first.action, same.action)
    self.assertAllEqual(first.state.latent, same.state.latent)
    self.assertNotAllClose(first.action, other.action)
    self.assertNotAllClose(first.state.latent, other.state.latent)
    unseeded = [policy.action(time_step(FIRST, FIRST), state).action for _ in range(2)]
    self.assertNotAllClose(*unseeded)

  def test_rows_differ(self):
    policy, _ = policy_of()
    step = policy.action(time_step(*[FIRST] * 3), policy.get_initial_state(3), seed=[1, 2])
    self.assertLen(np.unique(step.state.latent), 3 * LATENT_SIZE)
    state = step.state._replace(latent=tf.zeros([3, LATENT_SIZE]))
    action = policy.action(time_step(*[MID] * 3), state, seed=[1, 2]).action
    self.assertLen(np.unique(action), 6)

  def test_noise_of_latent_and_action_is_independent(self):
    policy, _ = policy_of()
    num_rows = 500
    state = policy.get_initial_state(num_rows)
    step = policy.action(time_step(*[FIRST] * num_rows), state, seed=[1, 2])
    replay = policy.action(time_step(*[MID] * num_rows), state, seed=[1, 2])
    draws = np.arctanh(np.clip(np.float64(replay.action), -1 + 1e-7, 1 - 1e-7))
    together = np.corrcoef(np.concatenate([step.state.latent, draws], axis=1).T)
    self.assertAllLess(np.abs(together[:LATENT_SIZE, LATENT_SIZE:]), 0.2)

  def test_actions_lie_within_the_bounds(self):
    policy, _ = policy_of()
    state = adapted_state(200)
    action = policy.action(time_step(*[FIRST] * 200), state).action
    self.assertAllInRange(action, -1.0, 1.0)

  @parameterized.parameters(False, True)
  def test_any_number_of_rows_in_one_trace(self, deterministic):
    policy, _ = policy_of(deterministic=deterministic)

    @tf.function(
      input_signature=[
        specs.with_leading(policy.time_step_spec, None),
        specs.with_leading(policy.policy_state_spec, None),
        tf.TensorSpec([2], tf.int32),
      ]
    )
    def act(step, state, seed):
      result = policy.action(step, state, seed)
      return result.action, result.state

    for num_rows in (1, 3):
      state = adapted_state(num_rows)
      action, _ = act(time_step(*[FIRST] * num_rows), state, tf.constant([1, 2]))
      expected = policy.action(time_step(*[FIRST] * num_rows), state, seed=[1, 2])
      self.assertAllClose(action, expected.action, atol=1e-5)
    self.assertEqual(act.experimental_get_tracing_count(), 1)

  def test_variables_are_those_of_encoder_and_actor(self):
    policy, _ = policy_of()
    self.assertLen(policy.variables(), 8)

  def test_distribution_is_that_of_the_actor(self):
    policy, network = policy_of()
    state = adapted_state()
    step = policy.distribution(time_step(*[MID] * NUM_ROWS), state)
    parameters, _ = network((time_step(*[MID] * NUM_ROWS).observation, state.latent))
    action = tf.fill([NUM_ROWS, 2], 0.25)
    self.assertAllClose(
      step.action.log_prob(action), actor.distribution(parameters).log_prob(action)
    )


class DriverTest(test_case.TestCase):
  """TF-Agents' own drivers must not make the policy forget either."""

  def assertLatentsChangeWithEpisodes(self, steps: list[tuple[np.ndarray, np.ndarray]]):
    """Checks the pairs (step types `[B]`, latents `[B, Z]`) that a driver reported."""
    num_redrawn = 0
    for (_, before), (step_type, after) in zip(steps[:-1], steps[1:], strict=True):
      for row in range(NUM_ROWS):
        is_equal = np.array_equal(before[row], after[row])
        self.assertEqual(is_equal, step_type[row] != FIRST)
        num_redrawn += not is_equal
    self.assertGreaterEqual(num_redrawn, 3)

  def test_dynamic_episode_driver(self):
    policy, _ = policy_of()
    steps = []

    def observe(transition):
      step, action_step, _ = transition
      steps.append((step.step_type.numpy(), action_step.state.latent.numpy()))

    driver = dynamic_episode_driver.DynamicEpisodeDriver(
      tf_py_environment.TFPyEnvironment(RowEnvironment()),
      policy,
      transition_observers=[observe],
      num_episodes=7,
    )
    start = adapted_state()
    _, state = driver.run(policy_state=start)
    self.assertAllEqual(state.posterior.mean, start.posterior.mean)
    self.assertAllEqual(state.posterior.variance, start.posterior.variance)
    self.assertAllClose(state.latent, start.posterior.mean, atol=0.5)
    self.assertLatentsChangeWithEpisodes(steps)

  def test_py_driver(self):
    policy, _ = policy_of()
    steps = []
    driver = py_driver.PyDriver(
      RowEnvironment(),
      py_tf_eager_policy.PyTFEagerPolicy(policy, use_tf_function=True, batch_time_steps=False),
      observers=[lambda trajectory: steps.append((trajectory.step_type, None))],
      max_episodes=7,
    )
    start = tf.nest.map_structure(lambda part: part.numpy(), adapted_state())
    _, state = driver.run(RowEnvironment().reset(), start)
    self.assertAllEqual(state.posterior.mean, start.posterior.mean)
    self.assertAllEqual(state.posterior.variance, start.posterior.variance)
    self.assertAllClose(state.latent, start.posterior.mean, atol=0.5)
    self.assertGreater(sum(int((kind == FIRST).sum()) for kind, _ in steps), 4)


if __name__ == '__main__':
  absltest.main()
