"""RL2: a recurrent policy trained by PPO on whole trials; adapting is what its state does.

References: Duan et al. 2016, arXiv:1611.02779; Schulman et al. 2017, arXiv:1707.06347.
"""

from collections.abc import Callable, Mapping, Sequence

import gin
import numpy as np
import tensorflow as tf

from pearl_tf.agents import optimizers
from pearl_tf.agents.rl2 import losses, trials
from pearl_tf.data import specs, types
from pearl_tf.networks import flat_gaussian, recurrent_actor_critic

TRIAL = 'trial'
_MAX_REWARD = 10.0


@gin.configurable(denylist=['domain', 'train_step_counter', 'seed'])
class RL2Agent(tf.Module):
  """Actor-critic over trials.

  Attributes:
    train_step_counter: gradient steps taken.
    network: the actor-critic.
    steps_per_iteration: gradient steps on the data of an iteration.
  """

  def __init__(
    self,
    domain: specs.DomainSpec,
    *,
    train_step_counter: tf.Variable,
    seed: int,
    network_class: Callable[..., recurrent_actor_critic.RecurrentActorCritic] = (
      recurrent_actor_critic.RecurrentActorCritic
    ),
    epochs: int = 2,
    minibatches: int = 4,
    learning_rate: float = 7e-4,
    clip: float = 0.1,
    value_weight: float = 0.5,
    entropy_weight: float = 0.01,
    max_gradient_norm: float = 0.5,
    gamma: float = 0.97,
    gae_lambda: float = 0.9,
    across_episodes: bool = True,
  ):
    """Makes network and optimizer.

    Args:
      domain: sizes of the domain.
      train_step_counter: `int64` variable, incremented once per gradient step.
      seed: of the initial weights and of the minibatches.
      network_class: makes the network.
      epochs: passes over the trials of an iteration.
      minibatches: of whole trials in each.
      learning_rate: of Adam.
      clip: how far ratio and value may move to be paid for.
      value_weight: of the value loss.
      entropy_weight: of the entropy.
      max_gradient_norm: to which a longer gradient is shortened.
      gamma: discount factor.
      gae_lambda: of the advantages.
      across_episodes: whether returns go on over the end of an episode within its trial.

    Raises:
      ValueError: if a number is out of its range.
    """
    super().__init__()
    for name, value in (('epochs', epochs), ('minibatches', minibatches)):
      if value < 1:
        raise ValueError(f'RL2Agent.{name} must be positive, got {value}')
    for name, value in (('gamma', gamma), ('gae_lambda', gae_lambda)):
      if not 0 <= value <= 1:
        raise ValueError(f'RL2Agent.{name} must be in [0, 1], got {value}')
    if not clip > 0 or not max_gradient_norm > 0:
      raise ValueError(
        f'RL2Agent.clip and .max_gradient_norm must be positive, got {clip} and {max_gradient_norm}'
      )
    self.train_step_counter = train_step_counter
    self.steps_per_iteration = epochs * minibatches
    self.network = network_class(domain.observation_size, domain.action_size, seed=1000 * seed)
    self._minibatches = minibatches
    self._seed = seed
    self._settings = {'clip': clip, 'value_weight': value_weight, 'entropy_weight': entropy_weight}
    self._gamma, self._gae_lambda = gamma, gae_lambda
    self._across_episodes = across_episodes
    self._max_gradient_norm = max_gradient_norm
    self._optimizer = optimizers.adam(
      learning_rate, self.network.trainable_variables, name='RL2Agent.learning_rate'
    )
    # Of the discounted return that has run up to each step: number, mean, sum of squares about it.
    self._return_moments = tf.Variable(tf.zeros([3], tf.float64), name='return_moments')
    self._evaluate = tf.function(self._evaluate_trials, reduce_retracing=True)
    self._step = tf.function(self._take_step, reduce_retracing=True)

  def _evaluate_trials(self, inputs, action):
    outputs = self.network(inputs, tf.zeros([tf.shape(action)[0], self.network.state_size]))
    return flat_gaussian.log_prob(outputs.policy, action), outputs.value

  def take(self, episodes: Mapping[str, Sequence[Sequence[types.Episode]]]) -> None:
    """Takes the trials that the next gradient steps learn from."""
    data = trials.make_trials(episodes[TRIAL], across_episodes=self._across_episodes)
    if len(data.mask) < self._minibatches:
      raise ValueError(
        f'RL2Agent.minibatches = {self._minibatches} cannot be made of {len(data.mask)} trials'
      )
    log_prob, value = self._evaluate(data.inputs, data.action)
    advantage, target = trials.advantages_and_targets(
      self._normalized(data), data, value.numpy(), gamma=self._gamma, gae_lambda=self._gae_lambda
    )
    self._data = {
      'inputs': data.inputs,
      'action': data.action,
      'old_log_prob': log_prob.numpy(),
      'old_value': value.numpy(),
      'advantage': advantage,
      'target': target,
      'mask': data.mask,
    }

  def _normalized(self, data: trials.Trials) -> np.ndarray:
    """Returns rewards `[B, S]` over the deviation of the returns so far, these included."""
    running, seen = np.zeros(len(data.mask)), []
    for step in range(data.mask.shape[1]):
      running = self._gamma * running + data.reward[:, step]
      seen.append(running)
      running = running * data.discount[:, step]
    new = np.stack(seen, axis=1)[data.mask > 0].astype(np.float64)
    number, mean, squares = self._return_moments.numpy()
    total, change = number + len(new), new.mean() - mean
    squares += np.sum((new - new.mean()) ** 2) + change**2 * number * len(new) / total
    # Not before the first step: until then the loop may have the same data collected again.
    self._new_moments = [total, mean + change * len(new) / total, squares]
    deviation = np.sqrt(squares / total + 1e-8)
    return np.clip(data.reward / deviation, -_MAX_REWARD, _MAX_REWARD)

  def train(self) -> dict[str, float]:
    """Takes one gradient step on a minibatch of trials; returns scalars for the log."""
    epoch, part = divmod(int(self.train_step_counter), self._minibatches)
    order = np.random.default_rng([self._seed, epoch]).permutation(len(self._data['mask']))
    rows = np.sort(np.array_split(order, self._minibatches)[part])
    self._return_moments.assign(self._new_moments)
    scalars = self._step(tf.nest.map_structure(lambda column: column[rows], self._data))
    self.train_step_counter.assign_add(1)
    return {name: float(value) for name, value in scalars.items()}

  def _take_step(self, data):
    data = dict(data)
    inputs = data.pop('inputs')
    variables = self.network.trainable_variables
    with tf.GradientTape() as tape:
      start = tf.zeros([tf.shape(data['mask'])[0], self.network.state_size])
      outputs = self.network(inputs, start)
      loss, scalars = losses.ppo_loss(outputs.policy, outputs.value, **data, **self._settings)
    gradients, norm = tf.clip_by_global_norm(
      tape.gradient(loss, variables), self._max_gradient_norm
    )
    self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
    log_std = tf.reduce_mean(outputs.policy.log_std)
    return scalars | {'loss/outer': loss, 'loss/gradient_norm': norm, 'policy/log_std': log_std}
