"""The policy network: a tanh-squashed Gaussian conditioned on the latent.

This module owns the parameters of the action distribution and how it is squashed. `LatentPolicy`
acts with it and the actor loss differentiates it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import gin
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network

from pearl_tf.networks import layers

tfd = tfp.distributions

MIN_LOG_STD = -20.0
MAX_LOG_STD = 2.0


class ActionParameters(NamedTuple):
  """Parameters of the Gaussian before squashing, each `[..., A] float32`."""

  mean: tf.Tensor
  log_std: tf.Tensor


@gin.configurable(denylist=['input_tensor_spec', 'action_size', 'seed', 'name'])
class LatentActor(network.Network):
  """pi(a | s, z): ReLU hidden layers and heads for mean and log standard deviation."""

  def __init__(
    self,
    input_tensor_spec: tuple[tf.TensorSpec, tf.TensorSpec],
    *,
    action_size: int,
    hidden_units: Sequence[int] = (300, 300, 300),
    seed: int = 0,
    name: str = 'LatentActor',
  ):
    """Builds the network.

    Args:
      input_tensor_spec: specs of (observation `[O]`, latent `[Z]`).
      action_size: `A`.
      hidden_units: widths of the hidden layers.
      seed: seed of the initial weights.
      name: name of the network.
    """
    super().__init__(input_tensor_spec=input_tensor_spec, state_spec=(), name=name)
    layers.check_widths(self, hidden_units=hidden_units)
    self._mlp = layers.Mlp(hidden_units, 2 * action_size, output_limit=1e-3, seed=seed, name='mlp')

  def call(self, inputs, step_type=(), network_state=(), training=False):
    """Returns `ActionParameters` `[..., A]` for (observation `[..., O]`, latent `[..., Z]`)."""
    del step_type, training
    mean, log_std = tf.split(self._mlp(tf.concat(inputs, axis=-1)), 2, axis=-1)
    log_std = tf.clip_by_value(log_std, MIN_LOG_STD, MAX_LOG_STD)
    return ActionParameters(mean=mean, log_std=log_std), network_state


def distribution(parameters: ActionParameters) -> tfd.Distribution:
  """Returns the distribution of actions in (-1, 1), batch shape `[...]`, event shape `[A]`.

  TFP's `Tanh` bijector computes `log(1 - tanh(u)**2)` as `2 * (log(2) - u - softplus(-2 * u))`,
  which stays finite where the form of the reference implementation needs an epsilon.
  """
  return tfd.TransformedDistribution(
    tfd.MultivariateNormalDiag(loc=parameters.mean, scale_diag=tf.exp(parameters.log_std)),
    tfp.bijectors.Tanh(),
  )


def sample_and_log_prob(
  parameters: ActionParameters, *, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns differentiable actions `[..., A]` and their log densities `[...]`."""
  return distribution(parameters).experimental_sample_and_log_prob(seed=seed)


def mean_action(parameters: ActionParameters) -> tf.Tensor:
  """Returns the deterministic action `[..., A]` of meta-test: the squashed mean."""
  return tf.tanh(parameters.mean)
