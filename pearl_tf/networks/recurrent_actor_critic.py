"""An actor-critic whose hidden state is what it knows of the task.

This module owns the network that RL2 trains and acts with: one step, or a whole trial at once, from
the same weights. When its state is reset is the caller's business.

References: Duan et al. 2016, arXiv:1611.02779 (the inputs); Zintgraf et al. 2020, arXiv:1910.08348,
whose code gives the sizes.
"""

from typing import NamedTuple

import gin
import numpy as np
import tensorflow as tf

from pearl_tf.networks import flat_gaussian


class Inputs(NamedTuple):
  """What the network is shown at each step.

  Attributes:
    observation: `[B, S, O]`.
    action: `[B, S, A]`, the one before; zero at the start of a trial.
    reward: `[B, S]`, what that brought.
    done: `[B, S]`, 1 at the first step of every episode but the trial's first.
  """

  observation: tf.Tensor
  action: tf.Tensor
  reward: tf.Tensor
  done: tf.Tensor


class Outputs(NamedTuple):
  """What the network says of each step.

  Attributes:
    policy: `[B, S, A]`.
    value: `[B, S]`, of the rest of the trial, in units of normalised rewards.
    state: `[B, H]`, after the last step.
  """

  policy: flat_gaussian.Gaussian
  value: tf.Tensor
  state: tf.Tensor


@gin.configurable(denylist=['observation_size', 'action_size', 'seed'])
class RecurrentActorCritic(tf.Module):
  """Embeddings, a GRU, and a head each for policy and value.

  Attributes:
    observation_size: `O`.
    action_size: `A`.
    state_size: `H`.
  """

  def __init__(
    self,
    observation_size: int,
    action_size: int,
    *,
    seed: int,
    observation_units: int = 32,
    action_units: int = 16,
    reward_units: int = 16,
    state_size: int = 128,
    feature_units: int = 256,
    hidden_units: int = 128,
  ):
    """Makes the variables.

    Args:
      observation_size: `O`.
      action_size: `A`.
      seed: of the initial weights.
      observation_units: width of the embedding of observations.
      action_units: of the last action.
      reward_units: of the last reward and whether it was an episode's last.
      state_size: of the hidden state.
      feature_units: of what both heads are shown.
      hidden_units: of the one hidden layer of each head.
    """
    super().__init__()
    self.observation_size, self.action_size = observation_size, action_size
    self.state_size = state_size
    seeds = iter(range(seed, seed + 100))

    def layer(inputs: int, units: int, activation=None, scale: float | None = None):
      kind = tf.keras.initializers.Orthogonal(seed=next(seeds))
      if scale is not None:
        kind = _Normed(next(seeds), scale)
      dense = tf.keras.layers.Dense(units, activation=activation, kernel_initializer=kind)
      dense.build([None, inputs])
      return dense

    self._embed_observation = layer(observation_size, observation_units, 'relu')
    self._embed_action = layer(action_size, action_units, 'relu')
    self._embed_reward = layer(2, reward_units, 'relu')
    self._gru = tf.keras.layers.GRU(
      state_size,
      return_sequences=True,
      return_state=True,
      kernel_initializer=tf.keras.initializers.Orthogonal(seed=next(seeds)),
      recurrent_initializer=tf.keras.initializers.Orthogonal(seed=next(seeds)),
    )
    self._gru.build(tf.TensorShape([None, None, observation_units + action_units + reward_units]))
    self._features = layer(state_size, feature_units, 'relu')
    self._actor_hidden = layer(feature_units, hidden_units, 'tanh', 1.0)
    self._mean = layer(hidden_units, action_size, None, 1.0)
    self._critic_hidden = layer(feature_units, hidden_units, 'tanh', 1.0)
    self._value = layer(hidden_units, 1, None, 1.0)
    self._log_std = tf.Variable(tf.zeros([action_size]), name='log_std')

  def __call__(self, inputs: Inputs, state: tf.Tensor) -> Outputs:
    """Goes through `S` steps.

    Args:
      inputs: of `B` trials.
      state: `[B, H]`, before the first step.
    """
    reward = tf.stack([inputs.reward, inputs.done], axis=-1)
    embedded = tf.concat(
      [
        self._embed_observation(inputs.observation),
        self._embed_action(inputs.action),
        self._embed_reward(reward),
      ],
      axis=-1,
    )
    hidden, state = self._gru(embedded, initial_state=tf.convert_to_tensor(state))
    features = self._features(tf.nn.relu(hidden))
    mean = self._mean(self._actor_hidden(features))
    policy = flat_gaussian.Gaussian(mean, tf.broadcast_to(self._log_std, tf.shape(mean)))
    value = self._value(self._critic_hidden(features))[..., 0]
    return Outputs(policy, value, state)


class _Normed(tf.keras.initializers.Initializer):
  """Gaussian weights, those of each unit of one length."""

  def __init__(self, seed: int, scale: float):
    self._seed, self._scale = seed, scale

  def __call__(self, shape, dtype=tf.float32, **unused):
    weights = np.random.default_rng(self._seed).normal(size=shape)
    weights *= self._scale / np.linalg.norm(weights, axis=0, keepdims=True)
    return tf.constant(weights, dtype)
