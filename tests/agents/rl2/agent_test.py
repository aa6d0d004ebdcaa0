import numpy as np
import tensorflow as tf
from absl.testing import absltest

from pearl_tf.agents.rl2 import actor, agent, losses, trials
from pearl_tf.data import specs, types
from pearl_tf.networks import flat_gaussian, recurrent_actor_critic
from pearl_tf.testing import test_case

DOMAIN = specs.DomainSpec(observation_size=3, action_size=2)
FIRST, MID = 0, 1


def make(**settings) -> agent.RL2Agent:
  def network_class(*sizes, seed):
    return recurrent_actor_critic.RecurrentActorCritic(
      *sizes, seed=seed, state_size=6, feature_units=5, hidden_units=4
    )

  counter = tf.Variable(0, dtype=tf.int64)
  return agent.RL2Agent(
    DOMAIN, train_step_counter=counter, seed=0, network_class=network_class, **settings
  )


def act_trial(acting, random, lengths) -> list[types.Episode]:
  """Acts a trial of episodes step by step, as a roll-out does."""
  state, reward, episodes = acting.initial_state(1), np.zeros(1, np.float32), []
  for length in lengths:
    rows = []
    for step in range(length):
      observation = random.normal(size=(1, 3)).astype(np.float32)
      step_type = np.array([MID if step else FIRST], np.int32)
      seed = random.integers(100, size=2, dtype=np.int32)
      action, state = acting.act(observation, step_type, reward, state, seed)
      reward = random.normal(size=1).astype(np.float32)
      rows.append((observation[0], action[0], reward[0], reward[0], 1.0, observation[0]))
    episodes.append(types.Episode(*(np.stack(column) for column in zip(*rows, strict=True))))
  return episodes


class RL2AgentTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.random = np.random.default_rng(0)

  def test_ratios_are_one_before_the_first_step(self):
    # Only if a whole trial shows what acting step by step has carried: state, action, reward, end.
    learner = make(minibatches=1)
    acting = actor.RL2Actor(learner, deterministic=False)
    lengths = ((4, 3), (2, 4), (3, 3))
    episodes = [act_trial(acting, self.random, each) for each in lengths]
    data = trials.make_trials(episodes, across_episodes=True)
    outputs = learner.network(data.inputs, tf.zeros([3, 6]))
    state, drawn = acting.initial_state(1), []
    for step in range(7):
      given = tf.nest.map_structure(lambda part, s=step: part[:1, s : s + 1], data.inputs)
      one = learner.network(given, state.hidden)
      drawn.append(flat_gaussian.log_prob(one.policy, data.action[:1, step : step + 1])[0, 0])
      state = state._replace(hidden=one.state)
    self.assertAllClose(
      flat_gaussian.log_prob(outputs.policy, data.action)[0], drawn, rtol=0, atol=1e-5
    )
    learner.take({agent.TRIAL: episodes})
    self.assertLess(learner.train()['policy/ratio_max'], 1e-5)
    self.assertGreater(learner.train()['policy/ratio_max'], 1e-5)

  def test_greedy_actions_are_those_of_the_whole_trial(self):
    learner = make()
    episodes = act_trial(actor.RL2Actor(learner, deterministic=True), self.random, (3, 4, 2))
    data = trials.make_trials([episodes], across_episodes=True)
    self.assertAllEqual(data.inputs.done[0], [0, 0, 0, 1, 0, 0, 0, 1, 0])
    self.assertAllEqual(data.inputs.reward[0, 1:], data.reward[0, :-1])
    self.assertAllEqual(data.inputs.action[0, 1:], data.action[0, :-1])
    outputs = learner.network(data.inputs, tf.zeros([1, 6]))
    self.assertAllClose(outputs.policy.mean, data.action, rtol=0, atol=1e-5)

  def test_only_a_new_trial_forgets(self):
    acting = actor.RL2Actor(make(), deterministic=True)
    observation, none = np.ones([1, 3], np.float32), np.zeros(1, np.float32)
    seed = np.zeros(2, np.int32)
    start = acting.initial_state(1)
    first, state = acting.act(observation, np.array([FIRST]), none, start, seed)
    later, _ = acting.act(observation, np.array([FIRST]), none, state, seed)
    again, _ = acting.act(observation, np.array([FIRST]), none + 9, acting.initial_state(1), seed)
    self.assertAllEqual(again, first)
    self.assertGreater(np.abs(later - first).max(), 1e-3)

  def test_advantages_go_over_the_end_of_an_episode_if_told(self):
    lengths, gamma, gae_lambda = (3, 4), 0.9, 0.8
    acting = actor.RL2Actor(make(), deterministic=False)
    episodes = [act_trial(acting, self.random, each) for each in (lengths, (2, 2))]
    for across in (True, False):
      data = trials.make_trials(episodes, across_episodes=across)
      value = self.random.normal(size=data.mask.shape).astype(np.float32)
      found, target = trials.advantages_and_targets(
        data.reward, data, value, gamma=gamma, gae_lambda=gae_lambda
      )
      rows = []
      for row, ends in ((0, (2, 6)), (1, (1, 3))):
        total, column = 0.0, []
        for t in range(ends[-1], -1, -1):
          goes_on = t != ends[-1] and (across or t not in ends)
          after = value[row, t + 1] if goes_on else 0.0
          delta = data.reward[row, t] + gamma * after - value[row, t]
          total = delta + gamma * gae_lambda * total * goes_on
          column.append(total)
        rows.append(np.array(column[::-1]))
      every = np.concatenate(rows)
      for row, expected in enumerate(rows):
        size = len(expected)
        standard = (expected - every.mean()) / (every.std() + 1e-5)
        self.assertAllClose(found[row, :size], standard, atol=1e-5)
        self.assertAllClose(target[row, :size], expected + value[row, :size], atol=1e-5)
        self.assertAllEqual(found[row, size:], np.zeros(7 - size))

  def test_rewards_are_divided_by_the_deviation_of_returns(self):
    learner = make(gamma=0.5)
    acting = actor.RL2Actor(learner, deterministic=False)
    running = []
    for _ in range(2):
      episodes = [act_trial(acting, self.random, (3, 2)) for _ in range(4)]
      data = trials.make_trials(episodes, across_episodes=True)
      for trial in data.reward:
        total = 0.0
        for reward in trial:
          total = 0.5 * total + reward
          running.append(total)
      self.assertAllClose(
        learner._normalized(data), data.reward / np.std(running), rtol=1e-4, atol=1e-4
      )
      # Data that are collected again before they were learnt from count once.
      learner._normalized(data)
      learner._return_moments.assign(learner._new_moments)

  def test_loss_by_hand(self):
    policy = flat_gaussian.Gaussian(tf.zeros([1, 2, 1]), tf.zeros([1, 2, 1]))
    density = -0.5 * np.log(2 * np.pi)
    loss, scalars = losses.ppo_loss(
      policy,
      tf.constant([[1.0, 5.0]]),
      action=tf.zeros([1, 2, 1]),
      old_log_prob=tf.constant([[density - np.log(1.5), 0.0]], tf.float32),
      old_value=tf.constant([[0.5, 0.0]]),
      advantage=tf.constant([[2.0, 7.0]]),
      target=tf.constant([[0.7, 0.0]]),
      mask=tf.constant([[1.0, 0.0]]),
      clip=0.1,
      value_weight=0.5,
      entropy_weight=0.01,
    )
    entropy = 0.5 * np.log(2 * np.pi * np.e)
    # The ratio 1.5 is paid for as 1.1; the value's own error 0.3 exceeds that of the near one, 0.1.
    self.assertAllClose(scalars['loss/surrogate'], -2.2)
    self.assertAllClose(scalars['loss/value'], 0.5 * 0.5 * 0.3**2)
    self.assertAllClose(loss, -2.2 + 0.5 * 0.25 * 0.09 - 0.01 * entropy)


if __name__ == '__main__':
  absltest.main()
