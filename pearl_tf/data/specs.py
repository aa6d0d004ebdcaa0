"""Tensor specs of every type that flows through PEARL, derived from two sizes.

This module owns how a domain's observation and action sizes become the specs that TF-Agents, the
networks and the exported model are built from.
"""

from typing import NamedTuple

import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from pearl_tf.data import types


class DomainSpec(NamedTuple):
  """What the agent must know of a domain.

  Attributes:
    observation_size: `O`.
    action_size: `A`; the agent acts in [-1, 1], environments scale to their own bounds.
  """

  observation_size: int
  action_size: int

  @property
  def observation(self) -> tf.TensorSpec:
    return tf.TensorSpec([self.observation_size], tf.float32, 'observation')

  @property
  def action(self) -> tensor_spec.BoundedTensorSpec:
    return tensor_spec.BoundedTensorSpec([self.action_size], tf.float32, -1.0, 1.0, 'action')

  @property
  def time_step(self) -> ts.TimeStep:
    return ts.time_step_spec(self.observation)


def context_spec(domain: DomainSpec) -> types.ContextBatch:
  """Returns the specs of one context transition, without leading dimensions."""
  return types.ContextBatch(
    observation=domain.observation,
    action=tf.TensorSpec([domain.action_size], tf.float32, 'action'),
    reward=tf.TensorSpec([], tf.float32, 'reward'),
    next_observation=domain.observation,
    mask=tf.TensorSpec([], tf.float32, 'mask'),
  )


def transition_spec(domain: DomainSpec) -> types.Transition:
  """Returns the specs of one RL transition, without leading dimensions."""
  return types.Transition(
    observation=domain.observation,
    action=tf.TensorSpec([domain.action_size], tf.float32, 'action'),
    reward=tf.TensorSpec([], tf.float32, 'reward'),
    discount=tf.TensorSpec([], tf.float32, 'discount'),
    next_observation=domain.observation,
  )


def with_leading(nest: NamedTuple, *dimensions: int | None) -> NamedTuple:
  """Returns `nest` with every spec prefixed by `dimensions`; None stands for any size."""
  return tf.nest.map_structure(
    lambda spec: tf.TensorSpec(list(dimensions) + spec.shape.as_list(), spec.dtype, spec.name), nest
  )


def meta_batch_spec(domain: DomainSpec) -> types.MetaBatch:
  """Returns the specs of `types.MetaBatch` with free `T`, `N` and `B`."""
  return types.MetaBatch(
    task=tf.TensorSpec([None], tf.int64, 'task'),
    context=with_leading(context_spec(domain), None, None),
    transitions=with_leading(transition_spec(domain), None, None),
  )


def policy_state_spec(latent_size: int) -> types.PolicyState:
  """Returns the specs of one trial's `types.PolicyState`."""
  latent = tf.TensorSpec([latent_size], tf.float32, 'latent')
  return types.PolicyState(
    latent=latent,
    posterior=types.Posterior(
      mean=tf.TensorSpec([latent_size], tf.float32, 'mean'),
      variance=tf.TensorSpec([latent_size], tf.float32, 'variance'),
    ),
  )
