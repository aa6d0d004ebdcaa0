"""It learns: a bandit whose goal shows in the context only, so a broken encoder cannot pass."""

import functools

import gin
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.agents.pearl import agent as pearl_agent
from pearl_tf.agents.pearl import entropy, targets
from pearl_tf.data import specs, types
from pearl_tf.networks import actor, encoder
from pearl_tf.testing import test_case

DOMAIN = specs.DomainSpec(observation_size=2, action_size=1)
NUM_CONTEXT, BATCH_SIZE = 16, 32
NUM_STEPS = 400


def bandit_batch(generator: np.random.Generator, goals: np.ndarray) -> types.MetaBatch:
  """Returns transitions that end at once, of random actions paid by their distance to the goal.

  Args:
    generator: draws observations, which mean nothing, and actions.
    goals: `[T]` hidden parameters in [-1, 1].
  """
  num_tasks = len(goals)

  def transitions(number: int) -> types.Transition:
    action = generator.uniform(-1, 1, size=[num_tasks, number, 1]).astype(np.float32)
    observation = generator.uniform(-1, 1, size=[num_tasks, number, 2]).astype(np.float32)
    return types.Transition(
      observation=observation,
      action=action,
      reward=-4 * (action[..., 0] - goals[:, np.newaxis].astype(np.float32)) ** 2,
      discount=np.zeros([num_tasks, number], np.float32),
      next_observation=observation,
    )

  shown = transitions(NUM_CONTEXT)
  context = types.ContextBatch(
    shown.observation,
    shown.action,
    shown.reward,
    shown.next_observation,
    np.ones([num_tasks, NUM_CONTEXT], np.float32),
  )
  return types.MetaBatch(np.arange(num_tasks), context, transitions(BATCH_SIZE))


def trained_agent(later_sac: bool) -> pearl_agent.PearlAgent:
  """Returns an agent after a few hundred steps on ever new goals."""
  narrow = {'hidden_units': (32, 32)}
  agent = pearl_agent.PearlAgent(
    DOMAIN,
    train_step_counter=tf.Variable(0, dtype=tf.int64),
    seed=0,
    encoder_class=functools.partial(encoder.GaussianEncoder, latent_size=2, **narrow),
    target_class=targets.CriticTarget if later_sac else targets.ValueTarget,
    entropy_weight_class=(
      entropy.AutomaticEntropyWeight if later_sac else entropy.FixedEntropyWeight
    ),
    kl_weight=0.01,
    reward_scale=3.0,
    encoder_learning_rate=3e-3,
    critic_learning_rate=3e-3,
    actor_learning_rate=3e-3,
  )
  generator = np.random.default_rng(0)
  train = tf.function(agent.train)
  for _ in range(NUM_STEPS):
    batch = bandit_batch(generator, generator.uniform(-0.8, 0.8, size=12))
    train(tf.nest.map_structure(tf.constant, batch))
  return agent


class LearningTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    gin.parse_config("""
      LatentCritic.hidden_units = (32, 32)
      LatentValue.hidden_units = (32, 32)
      LatentActor.hidden_units = (32, 32)
    """)

  @parameterized.parameters(False, True)
  def test_actions_follow_the_goal_inferred_from_the_context(self, later_sac):
    agent = trained_agent(later_sac)
    goals = np.linspace(-0.8, 0.8, 24)
    batch = bandit_batch(np.random.default_rng(99), goals)

    def error_of(belief: types.Posterior) -> float:
      latent = tf.repeat(belief.mean[:, tf.newaxis], BATCH_SIZE, axis=1)
      parameters, _ = agent.actor((batch.transitions.observation, latent))
      actions = actor.mean_action(parameters)[..., 0].numpy().mean(axis=1)
      return np.abs(actions - goals).mean()

    inferred = agent.infer_posterior(batch.context)
    order = np.random.default_rng(1).permutation(len(goals))
    of_others = types.Posterior(*(tf.gather(part, order) for part in inferred))
    blind = agent.encoder.prior([len(goals)])
    self.assertLess(error_of(inferred), 0.2)
    self.assertGreater(error_of(of_others), 0.3)
    self.assertGreater(error_of(blind), 0.3)
    # Sixteen transitions say much more than the prior, whose variance is 1.
    self.assertAllLess(tf.reduce_min(inferred.variance, axis=-1), 0.2)


if __name__ == '__main__':
  absltest.main()
