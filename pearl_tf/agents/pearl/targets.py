"""Where the critics' targets come from: a value network (reference) or target critics (later SAC).

This module owns the slow networks. `PearlAgent` asks a target for the soft value of next states
before the critics learn, and lets it learn once the soft value of current states is known.
"""

import abc
import functools
from collections.abc import Callable

import gin
import tensorflow as tf
from tf_agents.networks import network
from tf_agents.utils import common

from pearl_tf.agents import optimizers, replicas
from pearl_tf.agents.pearl import losses
from pearl_tf.data import specs
from pearl_tf.networks import actor, critic


def _frozen_copy(source: network.Network, name: str) -> network.Network:
  """Returns a network of the same shape and the same values as `source`, not trainable."""
  target = source.copy(name=name)
  target.create_variables()
  target.trainable = False
  common.soft_variables_update(source.variables, target.variables, tau=1.0)
  return target


def _follow(source: network.Network, target: network.Network, *, rate: float) -> None:
  """Moves a slow copy the part `rate` of the way to its source."""
  replicas.together(
    lambda: common.soft_variables_update(source.variables, target.variables, tau=rate)
  )


class Target(tf.Module, abc.ABC):
  """What every target offers; each implementation is built from the same arguments."""

  @abc.abstractmethod
  def next_value(
    self,
    next_observation: tf.Tensor,
    latent: tf.Tensor,
    *,
    entropy_weight: tf.Tensor,
    seed: tf.Tensor,
  ) -> tf.Tensor:
    """Returns the soft value `[T, B]` of `next_observation` `[T, B, O]` given `[T, B, Z]`."""

  @abc.abstractmethod
  def update(
    self, observation: tf.Tensor, latent: tf.Tensor, soft_value: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Learns from the soft value `[T, B]` of current states, moves the targets, returns scalars."""


@gin.configurable(
  denylist=['domain', 'latent_size', 'actor_network', 'critics', 'target_update_rate', 'seed']
)
class ValueTarget(Target):
  """A separate V network and its slow copy, as in the reference implementation."""

  def __init__(
    self,
    domain: specs.DomainSpec,
    *,
    latent_size: int,
    actor_network: network.Network,
    critics: tuple[network.Network, network.Network],
    target_update_rate: float,
    seed: int,
    learning_rate: float = 3e-4,
    value_class: Callable[..., network.Network] = critic.LatentValue,
  ):
    """Builds V, its target (equal at the start) and V's optimizer.

    Args:
      domain: sizes of the domain.
      latent_size: `Z`.
      actor_network: unused; target critics need it.
      critics: unused; target critics need them.
      target_update_rate: Polyak rate in (0, 1], tau.
      seed: seed of the initial weights.
      learning_rate: of Adam on V.
      value_class: V(s, z), built and called as `LatentValue`.
    """
    super().__init__()
    del actor_network, critics
    latent_spec = tf.TensorSpec([latent_size], tf.float32)
    self._value = value_class((domain.observation, latent_spec), seed=seed)
    self._value.create_variables()
    self._target = _frozen_copy(self._value, 'TargetValue')
    self._optimizer = optimizers.adam(
      learning_rate, self._value.trainable_variables, name='ValueTarget.learning_rate'
    )
    self._rate = target_update_rate

  def next_value(self, next_observation, latent, *, entropy_weight, seed):
    del entropy_weight, seed
    value, _ = self._target((next_observation, latent))
    return value

  def update(self, observation, latent, soft_value):
    with tf.GradientTape() as tape:
      value, _ = self._value((observation, latent))
      loss = losses.value_loss(value, soft_value)
      share = replicas.share_of_mean(loss)
    optimizers.apply(self._optimizer, tape, share, self._value.trainable_variables)
    _follow(self._value, self._target, rate=self._rate)
    return {'loss/value': loss, 'value/mean': tf.reduce_mean(value)}


@gin.configurable(
  denylist=['domain', 'latent_size', 'actor_network', 'critics', 'target_update_rate', 'seed']
)
class CriticTarget(Target):
  """Slow copies of both critics, evaluated at fresh actions (Haarnoja et al. 2018b)."""

  def __init__(
    self,
    domain: specs.DomainSpec,
    *,
    latent_size: int,
    actor_network: network.Network,
    critics: tuple[network.Network, network.Network],
    target_update_rate: float,
    seed: int,
  ):
    """Builds the slow copies; the arguments are those of `ValueTarget`."""
    super().__init__()
    del domain, latent_size, seed
    self._actor = actor_network
    self._critics = critics
    self._targets = tuple(_frozen_copy(q, f'TargetCritic{i + 1}') for i, q in enumerate(critics))
    self._rate = target_update_rate

  def next_value(self, next_observation, latent, *, entropy_weight, seed):
    parameters, _ = self._actor((next_observation, latent))
    action, log_prob = replicas.draw(
      functools.partial(actor.sample_and_log_prob, seed=seed), parameters
    )
    q1, q2 = (target((next_observation, action, latent))[0] for target in self._targets)
    return losses.soft_value(tf.minimum(q1, q2), log_prob, entropy_weight)

  def update(self, observation, latent, soft_value):
    del observation, latent
    for source, target in zip(self._critics, self._targets, strict=True):
      _follow(source, target, rate=self._rate)
    return {'value/mean': tf.reduce_mean(soft_value)}
