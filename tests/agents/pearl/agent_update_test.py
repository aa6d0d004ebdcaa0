"""The whole training step against its NumPy twin: same weights, same noise, every variable."""

import functools

import gin
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.agents.pearl import agent as pearl_agent
from pearl_tf.agents.pearl import entropy, targets
from pearl_tf.data import specs, types
from pearl_tf.inference import posterior
from pearl_tf.networks import actor, critic, encoder
from pearl_tf.testing import meta_batches, numpy_pearl, test_case

DOMAIN = specs.DomainSpec(observation_size=4, action_size=3)
NUM_TASKS, NUM_CONTEXT, BATCH_SIZE, LATENT_SIZE = 3, 6, 8, 2
SEED = 11
# All different, so that a rate that reaches the wrong variables shows.
SETTINGS = numpy_pearl.Settings(
  kl_weight=0.3,
  reward_scale=2.5,
  gamma=0.9,
  target_update_rate=0.05,
  encoder_learning_rate=1e-3,
  critic_learning_rate=2e-3,
  actor_learning_rate=3e-3,
  value_learning_rate=4e-3,
  entropy_learning_rate=5e-3,
  actor_mean_weight=0.02,
  actor_log_std_weight=0.03,
  target_entropy=-1.5,
  use_next_observation=False,
  has_bottleneck=True,
)


def agent_of(settings: numpy_pearl.Settings, *, later_sac: bool) -> pearl_agent.PearlAgent:
  """Returns a small agent in the variant of the authors or in that of later SAC."""
  encoder_class = (
    encoder.GaussianEncoder if settings.has_bottleneck else encoder.DeterministicEncoder
  )
  with_rate = {'learning_rate': settings.value_learning_rate}
  target_class = functools.partial(targets.ValueTarget, **with_rate)
  entropy_weight_class = entropy.FixedEntropyWeight
  if later_sac:
    target_class = targets.CriticTarget
    entropy_weight_class = functools.partial(
      entropy.AutomaticEntropyWeight,
      initial_weight=0.7,
      target_entropy=settings.target_entropy,
      learning_rate=settings.entropy_learning_rate,
    )
  return pearl_agent.PearlAgent(
    DOMAIN,
    train_step_counter=tf.Variable(0, dtype=tf.int64),
    seed=SEED,
    encoder_class=functools.partial(
      encoder_class,
      latent_size=LATENT_SIZE,
      use_next_observation=settings.use_next_observation,
    ),
    target_class=target_class,
    entropy_weight_class=entropy_weight_class,
    kl_weight=settings.kl_weight,
    reward_scale=settings.reward_scale,
    gamma=settings.gamma,
    target_update_rate=settings.target_update_rate,
    encoder_learning_rate=settings.encoder_learning_rate,
    critic_learning_rate=settings.critic_learning_rate,
    actor_learning_rate=settings.actor_learning_rate,
    actor_mean_weight=settings.actor_mean_weight,
    actor_log_std_weight=settings.actor_log_std_weight,
  )


def networks_of(agent: pearl_agent.PearlAgent) -> dict[str, tf.keras.layers.Layer]:
  """Returns every network by the name the NumPy twin gives it."""
  networks = {'encoder': agent.encoder, 'actor': agent.actor}
  networks |= {f'critic{i + 1}': network for i, network in enumerate(agent.critics)}
  for part in agent.target.submodules:
    if isinstance(part, critic.LatentValue):
      networks['target_value' if part.name == 'TargetValue' else 'value'] = part
    elif part.name.startswith('TargetCritic'):
      networks[f'target_critic{part.name[-1]}'] = part
  return networks


def shake(networks: dict[str, tf.keras.layers.Layer]) -> None:
  """Gives every network weights of its own, targets included, large enough to matter."""
  generator = np.random.default_rng(5)
  for name in sorted(networks):
    weights = networks[name].get_weights()
    scales = [0.3 if array.ndim == 1 else 1.2 / array.shape[0] ** 0.5 for array in weights]
    networks[name].set_weights(
      [s * generator.normal(size=w.shape) for s, w in zip(scales, weights, strict=True)]
    )


def noise_of_step(step: int) -> numpy_pearl.Noise:
  """Returns the very noise of a training step, by the agent's promise on seeds.

  The seed is a function of the agent's seed and the step counter, in three parts: latent, next
  action, action.
  """
  seed = tf.random.experimental.stateless_fold_in(tf.constant([SEED, 0]), step)
  latent_seed, next_action_seed, action_seed = tf.unstack(tf.random.split(seed, 3))
  latent = posterior.sample(
    types.Posterior(tf.zeros([NUM_TASKS, LATENT_SIZE]), tf.ones([NUM_TASKS, LATENT_SIZE])),
    seed=latent_seed,
  ).numpy()
  # So narrow that tanh is the identity up to 1e-11: what is left is the noise.
  width = 1e-5
  shape = [NUM_TASKS, BATCH_SIZE, DOMAIN.action_size]
  narrow = actor.distribution(
    actor.ActionParameters(tf.zeros(shape), tf.fill(shape, tf.math.log(width)))
  )
  return numpy_pearl.Noise(
    latent=latent,
    action=narrow.sample(seed=action_seed).numpy() / width,
    next_action=narrow.sample(seed=next_action_seed).numpy() / width,
  )


def batch_of_step(step: int) -> types.MetaBatch:
  """Returns another batch for each step, with NaN in the padding of every second context."""
  return meta_batches.random_meta_batch(
    DOMAIN,
    num_tasks=NUM_TASKS,
    num_context=NUM_CONTEXT,
    batch_size=BATCH_SIZE,
    num_padding=2,
    padding=np.nan,
    seed=step,
  )


class UpdateTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    # Small, and of unequal layers, so that a transposed product shows.
    gin.parse_config("""
      GaussianEncoder.hidden_units = (7, 6)
      DeterministicEncoder.hidden_units = (7, 6)
      LatentCritic.hidden_units = (8, 6, 5)
      LatentValue.hidden_units = (9, 5)
      LatentActor.hidden_units = (6, 7)
    """)

  def assertStepsAgree(self, settings: numpy_pearl.Settings, *, later_sac: bool):
    """Compares losses and every weight after each of three steps."""
    agent = agent_of(settings, later_sac=later_sac)
    networks = networks_of(agent)
    self.assertLen(networks, 6)
    shake(networks)
    twin = numpy_pearl.NumpyPearl(
      settings,
      {name: network.get_weights() for name, network in networks.items()},
      log_entropy_weight=float(np.log(np.float32(0.7))) if later_sac else None,
    )
    train = tf.function(agent.train)
    for step in range(3):
      before = {name: network.get_weights() for name, network in networks.items()}
      batch = batch_of_step(step)
      losses = twin.step(batch, noise_of_step(step))
      info = train(tf.nest.map_structure(tf.constant, batch))
      for name, loss in losses.items():
        self.assertAllClose(info.extra[f'loss/{name}'], loss, rtol=1e-4, atol=1e-5, msg=name)
      total = losses['critic'] + losses['kl'] + losses['actor']
      self.assertAllClose(info.loss, total, rtol=1e-4)
      for name, network in networks.items():
        self.assertSameArrays(network.get_weights(), twin.weights[name], f'{name}, step {step}')
        for array, old in zip(network.get_weights(), before[name], strict=True):
          # What a step changes is a hundred times larger than the tolerance, or more.
          self.assertGreater(np.abs(array - old).max(), 2e-4)
      self.assertEqual(agent.train_step_counter.numpy(), step + 1)
    if later_sac:
      log_weight = np.log(agent.entropy_weight.value())
      self.assertAllClose(log_weight, twin.log_entropy_weight, rtol=1e-4, atol=1e-6)
      self.assertGreater(abs(log_weight - np.log(0.7)), 4e-3)

  def assertSameArrays(self, ours, expected, message):
    for i, (array, other) in enumerate(zip(ours, expected, strict=True)):
      self.assertAllClose(array, other, rtol=2e-6, atol=2e-6, msg=f'{message}, array {i}')

  @parameterized.parameters(False, True)
  def test_with_the_bottleneck(self, later_sac):
    self.assertStepsAgree(SETTINGS, later_sac=later_sac)

  @parameterized.parameters(False, True)
  def test_without_the_bottleneck(self, later_sac):
    settings = SETTINGS._replace(has_bottleneck=False, use_next_observation=True)
    self.assertStepsAgree(settings, later_sac=later_sac)


class TwinTest(test_case.TestCase):
  """The twin's derivatives by hand against differences of its own losses."""

  def test_backward(self):
    generator = np.random.default_rng(0)
    weights = [generator.normal(size=shape) for shape in [(3, 5), (5,), (5, 4), (4,), (4, 2), (2,)]]
    inputs, slope = generator.normal(size=[2, 6, 3]), generator.normal(size=[2, 6, 2])
    _, tape = numpy_pearl.forward(weights, inputs)
    gradients, by_inputs = numpy_pearl.backward(weights, tape, slope)

    def difference(array, index):
      values = []
      for step in (1e-6, -1e-6):
        array[index] += step
        values.append(np.sum(slope * numpy_pearl.forward(weights, inputs)[0]))
        array[index] -= step
      return (values[0] - values[1]) / 2e-6

    pairs = zip([*weights, inputs], [*gradients, by_inputs], strict=True)
    for array, gradient in pairs:
      for index in [(0,) * array.ndim, (-1,) * array.ndim]:
        self.assertAllClose(gradient[index], difference(array, index), rtol=1e-5, atol=1e-7)


if __name__ == '__main__':
  absltest.main()
