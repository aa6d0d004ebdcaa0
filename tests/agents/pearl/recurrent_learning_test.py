"""The recurrent encoder learns from the critics what a permutation-invariant one cannot see."""

import functools

import gin
import numpy as np
import tensorflow as tf
from absl.testing import absltest

from pearl_tf.agents.pearl import agent as pearl_agent
from pearl_tf.data import specs, types
from pearl_tf.networks import encoder, recurrent_encoder
from pearl_tf.testing import test_case

DOMAIN = specs.DomainSpec(observation_size=2, action_size=1)
NUM_TASKS, NUM_CONTEXT, BATCH_SIZE, NUM_STEPS = 8, 6, 32, 250


def batch_of(generator: np.random.Generator) -> types.MetaBatch:
  """Returns bandits of two kinds, whose contexts differ in the order of the rewards only.

  The paid action is +0.7 where the rewards of the context rise and -0.7 where they fall.
  """
  sign = np.where(np.arange(NUM_TASKS) % 2, 1, -1).astype(np.float32)

  def normal(*shape: int) -> np.ndarray:
    return generator.uniform(-1, 1, size=shape).astype(np.float32)

  shown = normal(NUM_TASKS, NUM_CONTEXT, 2)
  ramp = np.linspace(-1, 1, NUM_CONTEXT, dtype=np.float32)
  context = types.ContextBatch(
    observation=0 * shown,
    action=0 * shown[..., :1],
    reward=sign[:, np.newaxis] * ramp,
    next_observation=0 * shown,
    mask=np.ones([NUM_TASKS, NUM_CONTEXT], np.float32),
  )
  action, observation = normal(NUM_TASKS, BATCH_SIZE, 1), normal(NUM_TASKS, BATCH_SIZE, 2)
  transitions = types.Transition(
    observation=observation,
    action=action,
    reward=-((action[..., 0] - 0.7 * sign[:, np.newaxis]) ** 2),
    discount=np.zeros([NUM_TASKS, BATCH_SIZE], np.float32),
    next_observation=observation,
  )
  return types.MetaBatch(np.arange(NUM_TASKS), context, transitions)


def train(encoder_class) -> tuple[pearl_agent.PearlAgent, list[float]]:
  """Returns an agent after training and the critics' loss of every step."""
  agent = pearl_agent.PearlAgent(
    DOMAIN,
    train_step_counter=tf.Variable(0, dtype=tf.int64),
    seed=0,
    encoder_class=functools.partial(encoder_class, latent_size=2, hidden_units=(16,)),
    kl_weight=0.01,
    reward_scale=3.0,
    encoder_learning_rate=3e-3,
    critic_learning_rate=3e-3,
  )
  generator = np.random.default_rng(0)
  step, losses = tf.function(agent.train), []
  for _ in range(NUM_STEPS):
    extra = step(tf.nest.map_structure(tf.constant, batch_of(generator))).extra
    losses.append(float(extra['loss/critic']))
  return agent, losses


class RecurrentLearningTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    gin.parse_config("""
      LatentCritic.hidden_units = (32, 32)
      LatentValue.hidden_units = (8,)
      LatentActor.hidden_units = (8,)
      RecurrentEncoder.recurrent_units = 16
    """)

  def test_order_separates_tasks(self):
    agent, losses = train(recurrent_encoder.RecurrentEncoder)
    _, blind_losses = train(encoder.GaussianEncoder)
    final, blind = np.mean(losses[-20:]), np.mean(blind_losses[-20:])
    self.assertLess(final, 0.25 * losses[0])
    self.assertLess(final, 0.25 * blind)
    belief = agent.infer_posterior(batch_of(np.random.default_rng(1)).context)
    apart = np.abs(belief.mean[0] - belief.mean[1]) / np.sqrt(belief.variance[0])
    self.assertGreater(apart.max(), 3)


if __name__ == '__main__':
  absltest.main()
