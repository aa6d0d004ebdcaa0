"""The agent: which loss reaches which variables, its options, determinism and checkpoints."""

import re
from collections.abc import Sequence

import gin
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.agents.pearl import agent as pearl_agent
from pearl_tf.data import specs, types
from pearl_tf.networks import encoder
from pearl_tf.testing import meta_batches, test_case

DOMAIN = specs.DomainSpec(observation_size=3, action_size=2)
SMALL = """
  GaussianEncoder.hidden_units = (7, 6)
  DeterministicEncoder.hidden_units = (7, 6)
  LatentCritic.hidden_units = (8, 6)
  LatentValue.hidden_units = (9, 6)
  LatentActor.hidden_units = (6, 7)
"""
LATER_SAC = """
PearlAgent.target_class = @CriticTarget
PearlAgent.entropy_weight_class = @AutomaticEntropyWeight
"""
NO_BOTTLENECK = 'PearlAgent.encoder_class = @DeterministicEncoder'


def agent_of(seed: int = 1, **arguments) -> pearl_agent.PearlAgent:
  return pearl_agent.PearlAgent(
    DOMAIN, train_step_counter=tf.Variable(0, dtype=tf.int64), seed=seed, **arguments
  )


def random_batch(seed: int = 0, num_tasks: int = 3) -> types.MetaBatch:
  batch = meta_batches.random_meta_batch(
    DOMAIN, num_tasks=num_tasks, num_context=5, batch_size=4, seed=seed
  )
  return tf.nest.map_structure(tf.constant, batch)


def weights(network: tf.Module) -> list[np.ndarray]:
  return [variable.numpy() for variable in network.variables]


def mute_inputs(network: tf.keras.layers.Layer, rows: slice) -> None:
  """Makes a network blind to some of its inputs."""
  kernel, *others = network.get_weights()
  kernel[rows] = 0.0
  network.set_weights([kernel, *others])


class AgentTestCase(test_case.TestCase):
  def setUp(self):
    super().setUp()
    gin.parse_config(SMALL)

  def assertSameWeights(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray]):
    for array, other in zip(first, second, strict=True):
      self.assertAllEqual(array, other)

  def assertAllMoved(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray]):
    for array, other in zip(first, second, strict=True):
      self.assertNotAllEqual(array, other)


class GradientRoutingTest(AgentTestCase):
  """One step is enough: later, every network hears of every other."""

  def test_everything_learns(self):
    agent = agent_of()
    before = weights(agent)
    agent.train(random_batch())
    agent.train(random_batch())
    self.assertAllMoved(before, weights(agent))

  @parameterized.parameters('', LATER_SAC)
  def test_encoder_learns_from_the_critics_only_through_their_latent(self, variant):
    gin.parse_config(variant)
    agent = agent_of(kl_weight=0.0)
    for network in agent.critics:
      mute_inputs(network, slice(5, None))
    before = weights(agent.encoder)
    # Target, value function and actor still depend on the latent.
    agent.train(random_batch())
    self.assertSameWeights(before, weights(agent.encoder))

  def test_encoder_learns_from_the_divergence(self):
    agent = agent_of(kl_weight=0.1)
    for network in agent.critics:
      mute_inputs(network, slice(5, None))
    before = weights(agent.encoder)
    agent.train(random_batch())
    self.assertAllMoved(before, weights(agent.encoder))

  @parameterized.parameters(
    'PearlAgent.actor_mean_weight = 50.0',
    'PearlAgent.actor_log_std_weight = 50.0',
    'PearlAgent.actor_learning_rate = 0.1',
    'ValueTarget.learning_rate = 0.1',
    'PearlAgent.target_update_rate = 0.9',
    'FixedEntropyWeight.weight = 9.0',
    'LatentActor.hidden_units = (5,)',
  )
  def test_encoder_and_critics_ignore_actor_and_value(self, binding):
    first = agent_of()
    first.train(random_batch())
    gin.parse_config(binding)
    second = agent_of()
    second.train(random_batch())
    self.assertSameWeights(weights(first.encoder), weights(second.encoder))
    for network, other in zip(first.critics, second.critics, strict=True):
      self.assertSameWeights(weights(network), weights(other))

  @parameterized.parameters('ValueTarget.learning_rate = 0.1', 'LatentValue.hidden_units = (4,)')
  def test_actor_ignores_the_value_function(self, binding):
    # The target's first layer has other weights, hence other critics: keep them still.
    still = {'critic_learning_rate': 1e-30}
    first = agent_of(**still)
    first.train(random_batch())
    gin.parse_config(binding)
    second = agent_of(**still)
    second.train(random_batch())
    self.assertSameWeights(weights(first.actor), weights(second.actor))

  def test_actor_learns_from_the_critics_only_through_the_action(self):
    gin.parse_config('FixedEntropyWeight.weight = 0.0')
    unregularized = {'actor_mean_weight': 0.0, 'actor_log_std_weight': 0.0}
    for is_muted in (True, False):
      agent = agent_of(critic_learning_rate=1e-30, **unregularized)
      if is_muted:
        for network in agent.critics:
          mute_inputs(network, slice(3, 5))
      before = weights(agent.actor)
      agent.train(random_batch())
      if is_muted:
        self.assertSameWeights(before, weights(agent.actor))
      else:
        self.assertAllMoved(before, weights(agent.actor))

  def test_actor_uses_critics_that_have_already_moved(self):
    actors = []
    for critic_learning_rate in (1e-30, 0.1):
      agent = agent_of(critic_learning_rate=critic_learning_rate)
      agent.train(random_batch())
      actors.append(weights(agent.actor))
    self.assertNotAllClose(actors[0][0], actors[1][0], atol=1e-5)

  def encoder_moments(self, batch: types.MetaBatch, **arguments) -> list[np.ndarray]:
    """Returns Adam's first moments after one step: a tenth of the gradients."""
    agent = agent_of(**arguments)
    if arguments['kl_weight'] > 0:
      for network in agent.critics:
        mute_inputs(network, slice(5, None))
    agent.train(batch)
    optimizer = agent._inference_optimizer
    return [
      optimizer.get_slot(variable, 'm').numpy() for variable in agent.encoder.trainable_variables
    ]

  def test_divergence_is_summed_over_tasks(self):
    batch = random_batch()
    twice = tf.nest.map_structure(lambda column: tf.concat([column, column], axis=0), batch)
    once = self.encoder_moments(batch, kl_weight=0.1)
    for moment, double in zip(once, self.encoder_moments(twice, kl_weight=0.1), strict=True):
      self.assertGreater(np.abs(moment).max(), 1e-6)
      self.assertAllClose(2 * moment, double, rtol=1e-4, atol=1e-7)
    for moment, heavy in zip(once, self.encoder_moments(batch, kl_weight=0.2), strict=True):
      self.assertAllClose(2 * moment, heavy, rtol=1e-4, atol=1e-7)

  def test_critic_loss_is_a_mean_over_tasks(self):
    # Without noise, because doubled tasks would get noise of their own.
    gin.parse_config(NO_BOTTLENECK)
    batch = random_batch()
    twice = tf.nest.map_structure(lambda column: tf.concat([column, column], axis=0), batch)
    once, double = (self.encoder_moments(b, kl_weight=0.0) for b in (batch, twice))
    for moment, other in zip(once, double, strict=True):
      self.assertGreater(np.abs(moment).max(), 1e-8)
      self.assertAllClose(moment, other, rtol=1e-3, atol=1e-9)


class OptionsTest(AgentTestCase):
  def test_options_by_gin(self):
    gin.parse_config([NO_BOTTLENECK, LATER_SAC])
    gin.parse_config("""
      DeterministicEncoder.latent_size = 4
      DeterministicEncoder.use_next_observation = True
      LatentCritic.hidden_units = (3,)
      LatentActor.hidden_units = (2,)
      PearlAgent.kl_weight = 0.5
      PearlAgent.reward_scale = 7.0
      PearlAgent.gamma = 0.5
    """)
    agent = agent_of()
    self.assertIsInstance(agent.encoder, encoder.DeterministicEncoder)
    self.assertEqual(type(agent.target).__name__, 'CriticTarget')
    self.assertEqual(type(agent.entropy_weight).__name__, 'AutomaticEntropyWeight')
    self.assertEqual(weights(agent.encoder)[0].shape, (9, 7))
    self.assertEqual(weights(agent.critics[0])[0].shape, (9, 3))
    self.assertEqual(weights(agent.actor)[0].shape, (7, 2))
    info = agent.train(random_batch())
    self.assertAllEqual(info.extra['loss/kl'], 0.0)
    self.assertAllEqual(info.extra['posterior/variance'], 0.0)
    # Near-zero critics: their targets are scaled rewards plus half of an entropy of about 1.
    expected = 7 * np.mean(random_batch().transitions.reward)
    self.assertAllClose(info.extra['q/target_mean'], expected, atol=0.8)

  def test_kl_is_that_of_the_posterior(self):
    agent = agent_of(kl_weight=0.25)
    belief = agent.infer_posterior(random_batch().context)
    mean, variance = (np.float64(part) for part in belief)
    expected = 0.25 * 0.5 * np.sum(variance + mean**2 - 1 - np.log(variance))
    self.assertAllClose(agent.train(random_batch()).extra['loss/kl'], expected, rtol=1e-4)

  @parameterized.named_parameters(
    ('kl', 'PearlAgent.kl_weight', -0.1),
    ('reward_scale', 'PearlAgent.reward_scale', -5.0),
    ('gamma_above', 'PearlAgent.gamma', 1.01),
    ('gamma_below', 'PearlAgent.gamma', -0.1),
    ('tau_above', 'PearlAgent.target_update_rate', 1.5),
    ('tau_zero', 'PearlAgent.target_update_rate', 0.0),
    ('mean_weight', 'PearlAgent.actor_mean_weight', -1e-3),
    ('log_std_weight', 'PearlAgent.actor_log_std_weight', -1e-3),
    ('encoder_rate', 'PearlAgent.encoder_learning_rate', 0.0),
    ('critic_rate', 'PearlAgent.critic_learning_rate', -3e-4),
    ('actor_rate', 'PearlAgent.actor_learning_rate', 0.0),
    ('value_rate', 'ValueTarget.learning_rate', 0.0),
    ('latent', 'GaussianEncoder.latent_size', 0),
    ('width', 'LatentActor.hidden_units', (4, 0)),
    ('no_layer', 'LatentCritic.hidden_units', ()),
  )
  def test_refuses_impossible_numbers(self, name, value):
    gin.bind_parameter(name, value)
    with self.assertRaisesRegex(
      ValueError, re.escape(f'{name} must be') + '.*' + re.escape(str(value))
    ):
      agent_of()

  @parameterized.parameters('kl_weight', 'reward_scale', 'gamma', 'target_update_rate')
  def test_refuses_nan(self, name):
    with self.assertRaisesRegex(ValueError, f'{name}.*nan'):
      agent_of(**{name: float('nan')})

  def test_refuses_batches_that_do_not_fit(self):
    agent = agent_of()
    batch = random_batch()
    transitions = batch.transitions
    with self.assertRaises((ValueError, tf.errors.InvalidArgumentError)):
      column = transitions._replace(reward=transitions.reward[..., tf.newaxis])
      agent.train(batch._replace(transitions=column))
    with self.assertRaises((ValueError, tf.errors.InvalidArgumentError)):
      fewer = tf.nest.map_structure(lambda column: column[:2], batch.context)
      agent.train(batch._replace(context=fewer))
    with self.assertRaises((ValueError, tf.errors.InvalidArgumentError)):
      narrow = transitions._replace(observation=transitions.observation[..., :2])
      agent.train(batch._replace(transitions=narrow))


class DeterminismTest(AgentTestCase):
  def test_critics_differ_from_each_other(self):
    first, second = agent_of().critics
    for array, other in zip(weights(first)[::2], weights(second)[::2], strict=True):
      self.assertNotAllClose(array, other)

  def test_no_two_networks_share_numbers(self):
    gin.parse_config("""
      GaussianEncoder.hidden_units = (20,)
      LatentCritic.hidden_units = (20,)
      LatentValue.hidden_units = (20,)
      LatentActor.hidden_units = (20,)
    """)
    agent = agent_of()
    kernels = [network.get_weights()[0] for network in (agent.encoder, *agent.critics, agent.actor)]
    kernels += [
      part.get_weights()[0] for part in agent.target.submodules if part.name == 'LatentValue'
    ]
    self.assertLen(kernels, 5)
    values = np.concatenate([kernel.ravel() for kernel in kernels])
    # Uniform draws on 2^23 numbers: a shared stream would repeat hundreds of them.
    self.assertGreater(len(np.unique(values)), len(values) - 5)

  def test_equal_seeds_equal_training(self):
    train_steps = []
    for global_seed in (1, 2):
      tf.random.set_seed(global_seed)
      agent = agent_of(seed=4)
      train = tf.function(agent.train)
      for step in range(3):
        train(random_batch(step))
      train_steps.append(weights(agent))
    self.assertSameWeights(*train_steps)

  def test_seed_decides_weights_and_noise(self):
    first, second = agent_of(seed=1), agent_of(seed=2)
    self.assertNotAllClose(weights(first.encoder)[0], weights(second.encoder)[0])
    first_networks = (first.encoder, first.actor, *first.critics)
    second_networks = (second.encoder, second.actor, *second.critics)
    for network, other in zip(first_networks, second_networks, strict=True):
      other.set_weights(network.get_weights())
    entropies = [agent.train(random_batch()).extra['policy/entropy'] for agent in (first, second)]
    self.assertNotAllClose(*entropies)

  def test_noise_depends_on_the_step(self):
    entropies = []
    for step in (0, 1):
      agent = agent_of()
      agent.train_step_counter.assign(step)
      entropies.append(agent.train(random_batch()).extra['policy/entropy'])
    self.assertNotAllClose(*entropies)

  def test_large_seeds_are_accepted(self):
    agent_of(seed=2**31 - 1).train(random_batch())

  def test_counter(self):
    agent = agent_of()
    for step in range(1, 3):
      agent.train(random_batch())
      self.assertEqual(agent.train_step_counter.numpy(), step)

  def test_compiled_equals_eager(self):
    eager, compiled = agent_of(), agent_of()
    spec = specs.meta_batch_spec(DOMAIN)
    train = tf.function(lambda batch: compiled.train(batch).loss, input_signature=[spec])
    for num_tasks in (3, 2):
      batch = random_batch(num_tasks=num_tasks)
      self.assertAllClose(eager.train(batch).loss, train(batch), rtol=1e-4)
    for array, other in zip(weights(eager), weights(compiled), strict=True):
      self.assertAllClose(array, other, atol=2e-4)
    self.assertEqual(train.experimental_get_tracing_count(), 1)


class CheckpointTest(AgentTestCase):
  @parameterized.parameters('', LATER_SAC, NO_BOTTLENECK)
  def test_restored_agent_continues_bit_by_bit(self, variant):
    gin.parse_config(variant)
    agent = agent_of()
    train = tf.function(agent.train)
    for step in range(2):
      train(random_batch(step))
    path = tf.train.Checkpoint(agent=agent).write(str(self.temp_dir() / 'checkpoint'))
    restored = agent_of()
    status = tf.train.Checkpoint(agent=restored).read(path)
    status.assert_consumed()
    status.assert_existing_objects_matched()
    self.assertEqual(restored.train_step_counter.numpy(), 2)
    train_restored = tf.function(restored.train)
    for step in range(2, 4):
      train(random_batch(step))
      train_restored(random_batch(step))
    self.assertSameWeights(weights(agent), weights(restored))

  @parameterized.parameters(('', 30, 6, 4), (LATER_SAC, 25, 12, 4))
  def test_every_variable_and_slot_is_saved(self, variant, num_trained, num_slow, num_optimizers):
    gin.parse_config(variant)
    agent = agent_of()
    path = tf.train.Checkpoint(agent=agent).write(str(self.temp_dir() / 'checkpoint'))
    names = [name for name, _ in tf.train.list_variables(path) if 'VARIABLE_VALUE' in name]
    slots = [name for name in names if '.OPTIMIZER_SLOT' in name]
    self.assertLen(slots, 2 * num_trained)
    # Besides: each optimizer's step (iter) and hyperparameters, the train step, the save counter.
    steps = [name for name in names if '/iter/' in name]
    self.assertLen(steps, num_optimizers)
    plain = [name for name in names if name not in slots and 'ptimizer' not in name]
    self.assertLen(plain, num_trained + num_slow + 1)


class ComputeTypeTest(AgentTestCase):
  def test_bfloat16_is_for_training_steps_only(self):
    exact, rounded = agent_of(), agent_of(compute_type='bfloat16')
    batch = random_batch()
    self.assertSameTensors(
      exact.infer_posterior(batch.context), rounded.infer_posterior(batch.context)
    )
    losses = [agent.train(batch).extra for agent in (exact, rounded)]
    self.assertEqual([float(scalars['compute/bits']) for scalars in losses], [32.0, 16.0])
    exact_loss, rounded_loss = (float(scalars['loss/critic']) for scalars in losses)
    self.assertNotEqual(exact_loss, rounded_loss)
    self.assertAllClose(exact_loss, rounded_loss, rtol=0.02)
    self.assertEqual({variable.dtype for variable in rounded.actor.variables}, {tf.float32})

  def assertSameTensors(self, first, second):
    for ours, theirs in zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True):
      self.assertAllEqual(ours, theirs)


if __name__ == '__main__':
  absltest.main()
