"""Compiled acting and inference over a batch of trials.

This module owns the border between the numpy world of environments and the tensors of policy and
encoder: one call acts for all trials, one call infers all beliefs that are due.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.trajectories import time_step as ts

from pearl_tf.collect import actor, compiled
from pearl_tf.data import specs, types


class PearlActor(actor.BelievingActor):
  """A policy and an inference function, traced once for any number of trials."""

  def __init__(
    self,
    domain: specs.DomainSpec,
    policy: tf_policy.TFPolicy,
    infer_posterior: Callable[[types.ContextBatch], types.Posterior],
  ):
    """Compiles both functions lazily, at their first call.

    Args:
      domain: sizes of the domain.
      policy: acts on `types.PolicyState`.
      infer_posterior: context `[K, N]` to belief `[K]`.
    """
    self._policy = policy
    state_spec = specs.with_leading(policy.policy_state_spec, None)
    self._act = compiled.Compiled(
      self._act_on,
      [
        tf.TensorSpec([None, domain.observation_size], tf.float32),
        tf.TensorSpec([None], tf.int32),
        state_spec,
        tf.TensorSpec([2], tf.int32),
      ],
    )
    self._infer = compiled.Compiled(
      infer_posterior, [specs.with_leading(specs.context_spec(domain), None, None)]
    )

  def _act_on(self, observation, step_type, policy_state, seed):
    unused = tf.zeros_like(step_type, tf.float32)
    step = self._policy.action(
      ts.TimeStep(step_type, unused, unused, observation), policy_state, seed
    )
    return step.action, step.state.latent

  def prior(self) -> types.Posterior:
    """Returns the belief before any evidence as numpy arrays `[Z]`."""
    state = self._policy.get_initial_state(batch_size=1)
    return types.Posterior(*(part.numpy()[0] for part in state.posterior))

  def act(
    self,
    observation: np.ndarray,
    step_type: np.ndarray,
    reward: np.ndarray,
    state: types.PolicyState,
    seed: np.ndarray,
  ) -> tuple[np.ndarray, types.PolicyState]:
    """Chooses one action per trial.

    Args:
      observation: `[B, O] float32`.
      step_type: `[B] int32`, TF-Agents step types; latents are redrawn where FIRST.
      reward: not used.
      state: arrays with leading dimension `[B]`.
      seed: `[2] int32`.

    Returns:
      Actions `[B, A] float32` in [-1, 1] and the state with the latents in force.
    """
    del reward
    action, latent = self._act(observation, step_type, state, seed)
    return action, state._replace(latent=latent)

  def infer(self, contexts: Sequence[types.Episode]) -> types.Posterior:
    """Infers one belief per context.

    Args:
      contexts: `K` lists of transitions `[N_k, ...]`, padded here to the longest.

    Returns:
      Beliefs as numpy arrays `[K, Z]`.
    """
    return self._infer(_pad(contexts))


def _pad(contexts: Sequence[types.Episode]) -> types.ContextBatch:
  """Stacks contexts of different lengths into `[K, N_max]` with a mask."""
  longest = max(len(context.reward) for context in contexts)

  def stacked(columns: Sequence[np.ndarray]) -> np.ndarray:
    result = np.zeros([len(columns), longest, *columns[0].shape[1:]], np.float32)
    for row, column in zip(result, columns, strict=True):
      row[: len(column)] = column
    return result

  return types.ContextBatch(
    observation=stacked([context.observation for context in contexts]),
    action=stacked([context.action for context in contexts]),
    reward=stacked([context.context_reward for context in contexts]),
    next_observation=stacked([context.next_observation for context in contexts]),
    mask=stacked([np.ones(len(context.reward)) for context in contexts]),
  )
