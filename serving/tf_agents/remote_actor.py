"""An `Actor` of roll-outs whose acting and inference a server does: a meta-test of what is served.

    rollout.Rollout(environments, remote_actor.RemoteActor(connection))

The returns are those of a local meta-test with the same seeds, but for the last bits of float32.
For that, latents are drawn here and not by the server: a roll-out has one seed per step for all its
sessions, while `sample_z` has one per row. Sampled actions (`deterministic=False`) are drawn by the
server, so they follow the same distribution but not the same random numbers.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pearl_tf.collect import actor
from pearl_tf.data import types
from pearl_tf.inference import posterior
from serving import client
from serving.client import beliefs, channel


class RemoteActor(actor.BelievingActor):
  """A served policy and encoder in the place of local ones.

  Everything is asked of the version that was in force at the start: a score is that of one model.
  Should it disappear, the call raises `errors.VersionGoneError`.

  Attributes:
    version: that version.
  """

  def __init__(self, connection: client.Connection, *, deterministic: bool = True):
    """Asks for the model's version and its prior.

    Args:
      connection: its deadlines must suffice for a batch of all trials.
      deterministic: act by the mean action (meta-test) instead of sampling.
    """
    self._connection = connection
    self.version, self._sizes = connection.describe()
    empty = np.zeros([0, self._sizes.context_size], np.float32)
    self._prior = self._encode([empty])[0]
    self._signature = 'act' if deterministic else 'act_sample'
    self._draw = tf.function(_draw_latents, reduce_retracing=True)

  def prior(self) -> types.Posterior:
    """Returns the belief before any evidence, `[Z]`."""
    return types.Posterior(self._prior.mean, self._prior.variance)

  def act(
    self,
    observation: np.ndarray,
    step_type: np.ndarray,
    reward: np.ndarray,
    state: types.PolicyState,
    seed: np.ndarray,
  ) -> tuple[np.ndarray, types.PolicyState]:
    """Chooses one action per trial, on a latent that is drawn anew at its first step."""
    del reward
    latent, is_first = state.latent, np.asarray(step_type) == 0
    if is_first.any():
      # All rows are drawn, as the local policy does: the numbers depend on how many there are.
      drawn = self._draw(state.posterior, seed).numpy()
      latent = np.where(is_first[:, np.newaxis], drawn, latent)
    tags = np.full([len(latent)], self._prior.latent_tag, np.int64)
    inputs = {'observation': observation, 'z': latent, 'latent_tag': tags}
    if self._signature == 'act_sample':
      random = np.random.default_rng([int(part) for part in seed])
      inputs['seed'] = random.integers(2**31 - 1, size=[len(latent), 2], dtype=np.int32)
    budget = channel.budget(self._connection.deadlines, 'act')
    _, outputs = beliefs.run(self._connection, self._signature, inputs, budget, self.version)
    return outputs['action'], state._replace(latent=latent)

  def infer(self, contexts: Sequence[types.Episode]) -> types.Posterior:
    """Infers one belief per context, `[K, Z]`."""
    found = self._encode([self._rows(context) for context in contexts])
    return types.Posterior(
      np.stack([belief.mean for belief in found]), np.stack([belief.variance for belief in found])
    )

  def _encode(self, contexts: Sequence[np.ndarray]) -> list[client.Belief]:
    budget = channel.budget(self._connection.deadlines, 'adapt')
    return beliefs.encode(self._connection, self.version, contexts, budget)

  def _rows(self, context: types.Episode) -> np.ndarray:
    columns = [context.observation, context.action, context.context_reward[:, np.newaxis]]
    if self._sizes.uses_next_observation:
      columns.append(context.next_observation)
    return np.concatenate(columns, axis=-1, dtype=np.float32)


def _draw_latents(belief: types.Posterior, seed: tf.Tensor) -> tf.Tensor:
  """Draws `[B, Z]` as the library's policy does: with the first half of the step's seed."""
  return posterior.sample(belief, seed=tf.random.split(seed, 2)[0])
