"""Acting and inference of our roll-outs, done by a server: `RemoteActing` for the meta-test.

It has the methods of the library's `Acting` (`prior`, `infer`; `initial_state`, `act`, `adapt`), so
that

    rollout.Rollout(environments, remote_acting.RemoteActing(connection))

meta-tests what is served. Nothing of the library is imported: its named tuples are read by their
attributes.

The returns are those of a local meta-test with the same seeds, but for the last bits of float32.
For that, latents are drawn here and not by the server: a roll-out has one seed per step for all its
sessions, while `sample_z` has one per row. Sampled actions (`deterministic=False`) are drawn by the
server, so they follow the same distribution but not the same random numbers.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from serving import client
from serving.client import beliefs, channel


class Posterior(NamedTuple):
  """A diagonal Gaussian belief: mean and variance `[..., L] float32`."""

  mean: np.ndarray
  variance: np.ndarray


class PolicyState(NamedTuple):
  """What a session carries: a latent `[..., L] float32` and the belief it was drawn from."""

  latent: np.ndarray
  posterior: Posterior


class RemoteActing:
  """A served policy and encoder in the place of local ones.

  Everything is asked of the version that was in force at the start: a score is that of one model.
  Should it disappear, the call raises `errors.VersionGoneError`.

  Attributes:
    version: that version.
  """

  def __init__(self, connection: client.Connection, *, deterministic: bool = True):
    """Asks for the model's version and its prior.

    Args:
      connection: its deadlines must suffice for a batch of all sessions.
      deterministic: act by the mean action (meta-test) instead of sampling.
    """
    self._connection = connection
    self.version, self._sizes = connection.describe()
    empty = np.zeros([0, self._sizes.context_size], np.float32)
    self._prior = self._encode([empty])[0]
    self._deterministic = deterministic
    self._draw = tf.function(
      _draw_latents,
      input_signature=[
        tf.TensorSpec([None, self._sizes.latent_size], tf.float32),
        tf.TensorSpec([None, self._sizes.latent_size], tf.float32),
        tf.TensorSpec([2], tf.int32),
      ],
    )

  def prior(self) -> Posterior:
    """Returns the belief before any evidence, `[L]`."""
    return Posterior(self._prior.mean, self._prior.variance)

  def initial_state(self, batch_size: int) -> PolicyState:
    """Returns the prior for a number of sessions."""
    prior = Posterior(*(np.tile(part, [batch_size, 1]) for part in self.prior()))
    return PolicyState(np.zeros_like(prior.mean), prior)

  def adapt(self, state: PolicyState, episodes_by_session, random) -> PolicyState:
    """Replaces the beliefs by those that the server infers from all episodes of each session."""
    del random
    contexts = [
      type(own[0])(*(np.concatenate(columns) for columns in zip(*own, strict=True)))
      for own in episodes_by_session
    ]
    return state._replace(posterior=self.infer(contexts))

  def act(
    self,
    observation: np.ndarray,
    step_type: np.ndarray,
    reward: np.ndarray,
    state: Any,
    seed: np.ndarray,
  ) -> tuple[np.ndarray, Any]:
    """Chooses one action per session.

    Args:
      observation: `[B, O] float32`.
      step_type: `[B] int32`, 0 at the first step of an episode, where the latent is redrawn.
      reward: not used.
      state: has `latent` `[B, L]` and `posterior` with `mean` and `variance` `[B, L]`.
      seed: `[2] int32`.

    Returns:
      Actions `[B, A] float32` in [-1, 1] and the state with the latents in force.
    """
    del reward
    latent = state.latent
    is_first = np.asarray(step_type) == 0
    if is_first.any():
      # All rows are drawn, as the local policy does: the numbers depend on how many there are.
      drawn = self._draw(state.posterior.mean, state.posterior.variance, seed).numpy()
      latent = np.where(is_first[:, np.newaxis], drawn, latent)
    tags = np.full([len(latent)], self._prior.latent_tag, np.int64)
    inputs = {'observation': observation, 'z': latent, 'latent_tag': tags}
    if not self._deterministic:
      inputs['seed'] = _seeds_of_rows(seed, len(latent))
    signature = 'act' if self._deterministic else 'act_sample'
    budget = channel.budget(self._connection.deadlines, 'act')
    _, outputs = beliefs.run(self._connection, signature, inputs, budget, self.version)
    return outputs['action'], state._replace(latent=latent)

  def infer(self, contexts: Sequence[Any]) -> Posterior:
    """Infers one belief per context.

    Args:
      contexts: `K` lists of transitions with `observation`, `action`, `context_reward` and
        `next_observation`, `[N_k, ...]`.

    Returns:
      Beliefs `[K, L]`.
    """
    rows = [self._context_rows(context) for context in contexts]
    found = self._encode(rows)
    return Posterior(
      np.stack([belief.mean for belief in found]), np.stack([belief.variance for belief in found])
    )

  def _encode(self, contexts: Sequence[np.ndarray]) -> list[client.Belief]:
    budget = channel.budget(self._connection.deadlines, 'adapt')
    return beliefs.encode(self._connection, self.version, contexts, budget)

  def _context_rows(self, context: Any) -> np.ndarray:
    columns = [context.observation, context.action, context.context_reward[:, np.newaxis]]
    if self._sizes.uses_next_observation:
      columns.append(context.next_observation)
    return np.concatenate(columns, axis=-1, dtype=np.float32)


def _draw_latents(mean: tf.Tensor, variance: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """Draws `[B, L]` as the library's policy does: with the first half of the step's seed."""
  latent_seed = tf.random.split(seed, 2)[0]
  belief = tfp.distributions.MultivariateNormalDiag(mean, tf.sqrt(variance))
  return belief.sample(seed=latent_seed)


def _seeds_of_rows(seed: np.ndarray, number: int) -> np.ndarray:
  random = np.random.default_rng([int(part) for part in seed])
  return random.integers(np.iinfo(np.int32).max, size=[number, 2], dtype=np.int32)
