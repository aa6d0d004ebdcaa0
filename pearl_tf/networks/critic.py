"""State-action and state value networks conditioned on the latent.

This module owns the Q and V networks; losses decide what is differentiated with respect to what.
"""

from collections.abc import Sequence

import gin
import tensorflow as tf
from tf_agents.networks import network

from pearl_tf.networks import layers


@gin.configurable(denylist=['input_tensor_spec', 'seed', 'name'])
class LatentCritic(network.Network):
  """Q(s, a, z): a ReLU network with one output (reference: 300-300-300)."""

  def __init__(
    self,
    input_tensor_spec: tuple[tf.TensorSpec, tf.TensorSpec, tf.TensorSpec],
    *,
    hidden_units: Sequence[int] = (300, 300, 300),
    seed: int = 0,
    name: str = 'LatentCritic',
  ):
    """Builds the network.

    Args:
      input_tensor_spec: specs of (observation `[O]`, action `[A]`, latent `[Z]`).
      hidden_units: widths of the hidden layers.
      seed: seed of the initial weights.
      name: name of the network.
    """
    super().__init__(input_tensor_spec=input_tensor_spec, state_spec=(), name=name)
    layers.check_widths(self, hidden_units=hidden_units)
    self._mlp = layers.Mlp(hidden_units, 1, seed=seed, name='mlp')

  def call(self, inputs, step_type=(), network_state=(), training=False):
    """Returns values `[...]` for (observation `[..., O]`, action `[..., A]`, latent `[..., Z]`)."""
    del step_type, training
    return tf.squeeze(self._mlp(tf.concat(inputs, axis=-1)), axis=-1), network_state


@gin.configurable(denylist=['input_tensor_spec', 'seed', 'name'])
class LatentValue(network.Network):
  """V(s, z): a ReLU network with one output (reference: 300-300-300)."""

  def __init__(
    self,
    input_tensor_spec: tuple[tf.TensorSpec, tf.TensorSpec],
    *,
    hidden_units: Sequence[int] = (300, 300, 300),
    seed: int = 0,
    name: str = 'LatentValue',
  ):
    """Builds the network.

    Args:
      input_tensor_spec: specs of (observation `[O]`, latent `[Z]`).
      hidden_units: widths of the hidden layers.
      seed: seed of the initial weights.
      name: name of the network.
    """
    super().__init__(input_tensor_spec=input_tensor_spec, state_spec=(), name=name)
    layers.check_widths(self, hidden_units=hidden_units)
    self._mlp = layers.Mlp(hidden_units, 1, seed=seed, name='mlp')

  def call(self, inputs, step_type=(), network_state=(), training=False):
    """Returns values `[...]` for (observation `[..., O]`, latent `[..., Z]`)."""
    del step_type, training
    return tf.squeeze(self._mlp(tf.concat(inputs, axis=-1)), axis=-1), network_state
