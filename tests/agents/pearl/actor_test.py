import numpy as np
import tensorflow as tf
from absl.testing import absltest

from pearl_tf.agents.pearl import actor as pearl_actor
from pearl_tf.data import specs, types
from pearl_tf.networks import actor, encoder
from pearl_tf.policies import latent_policy
from pearl_tf.testing import test_case

DOMAIN = specs.DomainSpec(observation_size=3, action_size=2)
FIRST, MID = 0, 1
NO_REWARD = np.zeros(4, np.float32)


def make(deterministic=True) -> tuple[pearl_actor.PearlActor, actor.LatentActor]:
  context_encoder = encoder.GaussianEncoder(
    specs.context_spec(DOMAIN), hidden_units=(8, 8), latent_size=4, seed=1
  )
  actor_network = actor.LatentActor(
    (DOMAIN.observation, tf.TensorSpec([4])), action_size=2, hidden_units=(8, 8), seed=2
  )
  policy = latent_policy.LatentPolicy(
    DOMAIN,
    context_encoder=context_encoder,
    actor_network=actor_network,
    deterministic=deterministic,
  )
  return pearl_actor.PearlActor(DOMAIN, policy, context_encoder.infer_posterior), actor_network


def episode(random: np.random.Generator, length: int) -> types.Episode:
  def column(*shape):
    return random.normal(size=(length, *shape)).astype(np.float32)

  return types.Episode(column(3), column(2), column(), column(), column(), column(3))


def state(random: np.random.Generator, batch: int) -> types.PolicyState:
  latent, mean = random.normal(size=(2, batch, 4)).astype(np.float32)
  variance = random.uniform(0.1, 2.0, size=(batch, 4)).astype(np.float32)
  return types.PolicyState(latent, types.Posterior(mean, variance))


class PearlActorTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.acting, cls.actor = make()
    cls.random = np.random.default_rng(0)

  def test_the_prior_is_standard_normal(self):
    prior = self.acting.prior()
    self.assertAllEqual(prior.mean, np.zeros(4))
    self.assertAllEqual(prior.variance, np.ones(4))

  def test_contexts_of_different_lengths_are_inferred_as_if_alone(self):
    contexts = [episode(self.random, length) for length in (2, 7, 1)]
    together = self.acting.infer(contexts)
    for index, context in enumerate(contexts):
      alone = self.acting.infer([context])
      self.assertAllClose(together.mean[index], alone.mean[0], atol=1e-6)
      self.assertAllClose(together.variance[index], alone.variance[0], atol=1e-6)

  def test_the_belief_comes_from_the_context_reward(self):
    context = episode(self.random, 5)
    same = self.acting.infer(
      [context._replace(reward=context.reward + 100, discount=0 * context.reward)]
    )
    other = self.acting.infer([context._replace(context_reward=context.reward + 100)])
    posterior = self.acting.infer([context])
    self.assertAllEqual(posterior.mean, same.mean)
    self.assertNotAllClose(posterior.mean, other.mean)

  def test_latents_change_at_first_steps_only(self):
    before = state(self.random, 3)
    observation = self.random.normal(size=(3, 3)).astype(np.float32)
    steps = np.array([MID, FIRST, MID], np.int32)
    _, after = self.acting.act(observation, steps, NO_REWARD, before, np.array([1, 2], np.int32))
    latent = after.latent
    self.assertAllEqual(latent[[0, 2]], before.latent[[0, 2]])
    self.assertNotAllClose(latent[1], before.latent[1])

  def test_meta_test_acts_by_the_squashed_mean(self):
    before = state(self.random, 4)
    observation = self.random.normal(size=(4, 3)).astype(np.float32)
    steps = np.full(4, MID, np.int32)
    actions, after = self.acting.act(
      observation, steps, NO_REWARD, before, np.array([1, 2], np.int32)
    )
    again, _ = self.acting.act(observation, steps, NO_REWARD, before, np.array([3, 4], np.int32))
    parameters, _ = self.actor((observation, after.latent))
    self.assertAllClose(actions, np.tanh(parameters.mean.numpy()), atol=1e-6)
    self.assertAllEqual(actions, again)
    self.assertAllClose(actions, actor.mean_action(parameters).numpy(), atol=1e-6)

  def test_collection_samples_by_its_seed(self):
    collecting, _ = make(deterministic=False)
    before = state(self.random, 4)
    observation = self.random.normal(size=(4, 3)).astype(np.float32)
    steps = np.full(4, FIRST, np.int32)

    def act(seed):
      action, after = collecting.act(
        observation, steps, NO_REWARD, before, np.array([seed, 7], np.int32)
      )
      return action, after.latent

    for first, second in zip(act(1), act(1), strict=True):
      self.assertAllEqual(first, second)
    for first, second in zip(act(1), act(2), strict=True):
      self.assertNotAllClose(first, second)


if __name__ == '__main__':
  absltest.main()
