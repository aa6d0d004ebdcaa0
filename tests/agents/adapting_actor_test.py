import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.agents import adapting_actor, adapting_agent
from pearl_tf.agents.maml import agent as maml_agent
from pearl_tf.agents.promp import agent as promp_agent
from pearl_tf.data import specs, types
from pearl_tf.networks import flat_gaussian
from pearl_tf.testing import test_case

DOMAIN = specs.DomainSpec(observation_size=3, action_size=2)
SEED = np.array([1, 2], np.int32)


def make(agent_class=promp_agent.ProMPAgent, **settings) -> adapting_agent.AdaptingAgent:
  def policy_class(*sizes):
    return flat_gaussian.FlatGaussian(*sizes, hidden_units=(4,), action_scale=1.0)

  counter = tf.Variable(0, dtype=tf.int64)
  return agent_class(
    DOMAIN, train_step_counter=counter, seed=0, policy_class=policy_class, **settings
  )


def episodes(learner, random, parameters, number=4, length=10) -> list[types.Episode]:
  """Samples episodes in which large actions are good."""
  result = []
  for _ in range(number):
    observation = random.normal(size=(length, 3)).astype(np.float32)
    policy = learner.policy(tf.constant(parameters), tf.constant(observation))
    noise = random.normal(size=policy.mean.shape)
    action = (policy.mean + tf.exp(policy.log_std) * noise).numpy().astype(np.float32)
    reward, ones = action.sum(axis=1), np.ones(length, np.float32)
    result.append(types.Episode(observation, action, reward, reward, ones, observation))
  return result


class AdaptingActorTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.random = np.random.default_rng(0)
    self.observation = self.random.normal(size=(2, 3)).astype(np.float32)
    self.none = np.zeros(2, np.float32)

  def act(self, actor, state, seed=SEED):
    return actor.act(self.observation, np.ones(2, np.int32), self.none, state, seed)[0]

  def test_greedy_only_where_adapted(self):
    learner = make()
    actor = adapting_actor.AdaptingActor(learner, deterministic=True)
    state = actor.initial_state(2)._replace(adapted=np.array([0, 1], np.float32))
    first, second = self.act(actor, state), self.act(actor, state, SEED + 1)
    mean = learner.policy(state.parameters, self.observation[:, np.newaxis]).mean[:, 0]
    self.assertGreater(np.abs(first[0] - second[0]).max(), 1e-3)
    self.assertAllClose(first[1], mean[1])
    self.assertAllEqual(first[1], second[1])
    collecting = adapting_actor.AdaptingActor(learner, deterministic=False)
    self.assertGreater(np.abs(self.act(collecting, state)[1] - mean[1]).max(), 1e-3)

  def test_adapts_once_and_each_trial_to_its_own(self):
    learner = make()
    actor = adapting_actor.AdaptingActor(learner, deterministic=True)
    start = actor.initial_state(2)
    data = [episodes(learner, self.random, start.parameters[0]) for _ in range(2)]
    after = actor.adapt(start, data, self.random)
    self.assertAllEqual(after.adapted, [1, 1])
    self.assertAllEqual(start.parameters[0], learner.parameters)
    for row in range(2):
      alone = learner.adapt(start.parameters[row : row + 1], data[row : row + 1])
      self.assertAllClose(after.parameters[row], alone[0], rtol=0, atol=1e-6)
    self.assertAllEqual(actor.adapt(after, data[::-1], self.random).parameters, after.parameters)

  @parameterized.parameters(promp_agent.ProMPAgent, maml_agent.MAMLAgent)
  def test_outer_steps_move_the_meta_parameters(self, agent_class):
    learner = make(agent_class, tasks_per_chunk=2)
    start = learner.parameters.numpy()
    pre = [episodes(learner, self.random, start) for _ in range(3)]
    adapted = learner.adapt(np.tile(start, [3, 1]), pre)
    post = [episodes(learner, self.random, row) for row in adapted]
    learner.take({adapting_agent.PRE: pre, adapting_agent.POST: post})
    scalars = learner.train()
    self.assertEqual(int(learner.train_step_counter), 1)
    self.assertGreater(np.abs(learner.parameters.numpy() - start).max(), 1e-4)
    self.assertBetween(scalars['kl/outer'], -1e-6, 0.0101)

  def test_chunks_of_tasks_change_nothing(self):
    found = []
    for size in (1, 2, 3):
      random, learner = np.random.default_rng(0), make(tasks_per_chunk=size)
      data = [episodes(learner, random, learner.parameters.numpy()) for _ in range(3)]
      learner.take({adapting_agent.PRE: data, adapting_agent.POST: data})
      learner.train()
      learner.train()
      found.append(learner.parameters.numpy())
    self.assertAllClose(found[0], found[1], rtol=0, atol=1e-5)
    self.assertAllClose(found[0], found[2], rtol=0, atol=1e-5)


if __name__ == '__main__':
  absltest.main()
