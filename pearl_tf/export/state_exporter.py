"""Exports of a recurrent policy: what it knows of a task goes in and out of each call.

  EXPORT_DIR/
    models.config, batching.config      TensorFlow Serving's configuration
    rl2/<version>/                      one signature, `act`

A server keeps nothing between calls, so whoever calls keeps the state of a trial: zeros at its
start, then what the last call answered, over the ends of episodes, too.
"""

import functools
import os
import pathlib

import tensorflow as tf

from pearl_tf.data import specs
from pearl_tf.export import manifest, row_status, server_config, serving_module, versions, warmup
from pearl_tf.networks import recurrent_actor_critic

RL2 = 'rl2'
SIGNATURE = 'act'


class StateExporter:
  """Writes the current weights of one recurrent policy as often as asked; traced once."""

  def __init__(
    self,
    domain: specs.DomainSpec,
    directory: str | os.PathLike,
    *,
    network: recurrent_actor_critic.RecurrentActorCritic,
    keep: int = 2,
  ):
    """Names the directory; nothing is traced or written yet.

    Args:
      domain: sizes of the domain.
      directory: the export directory, created if need be.
      network: the agent's.
      keep: versions to keep, the newest ones.

    Raises:
      ValueError: if `keep` is not positive.
    """
    self._domain = domain
    self._network = network
    self._versions = versions.Versions(directory, (RL2,), keep=keep)

  @property
  def directory(self) -> pathlib.Path:
    """The export directory."""
    return self._versions.directory

  @property
  def state_size(self) -> int:
    """Size of a trial's state: hidden state, last action before clipping, and whether it began."""
    return self._network.state_size + self._domain.action_size + 1

  @functools.cached_property
  def _servable(self) -> serving_module.Servable:
    inputs = [
      tf.TensorSpec([None, self._domain.observation_size], tf.float32, 'observation'),
      tf.TensorSpec([None, 1], tf.float32, 'last_reward'),
      tf.TensorSpec([None, 1], tf.float32, 'begins_episode'),
      tf.TensorSpec([None, self.state_size], tf.float32, 'state'),
    ]
    traced = serving_module.trace(self.act, inputs)
    signatures = {SIGNATURE: traced, serving_module.DEFAULT: traced}
    return serving_module.Servable(signatures, list(self._network.variables), name=RL2)

  def act(
    self,
    observation: tf.Tensor,
    last_reward: tf.Tensor,
    begins_episode: tf.Tensor,
    state: tf.Tensor,
  ) -> dict[str, tf.Tensor]:
    """Acts by the mean, as in a meta-test.

    Args:
      observation: `[B, O] float32`.
      last_reward: `[B, 1] float32`, what the last action brought; at a trial's start anything.
      begins_episode: `[B, 1] float32`, 1 at the first step of every episode, else 0.
      state: `[B, S] float32`, what the last call of the trial answered; 0 at its start.

    Returns:
      action `[B, A] float32` in [-1, 1], state `[B, S] float32` and status `[B] int32`; where an
      input is not finite, action is NaN and state as it came.
    """
    given = (observation, last_reward, begins_episode, state)
    is_ok = tf.reduce_all(tf.stack([row_status.finite_rows(part) for part in given]), axis=0)
    observation, reward, begins, usable = (row_status.keep_rows(is_ok, x, 0.0) for x in given)
    sizes = [self._network.state_size, self._domain.action_size, 1]
    hidden, last_action, has_begun = tf.split(usable, sizes, axis=-1)
    inputs = recurrent_actor_critic.Inputs(
      observation[:, tf.newaxis], last_action[:, tf.newaxis], reward * has_begun, begins * has_begun
    )
    outputs = self._network(inputs, hidden)
    action = outputs.policy.mean[:, 0]
    after = tf.concat([outputs.state, action, tf.ones_like(has_begun)], axis=-1)
    return {
      'action': row_status.keep_rows(is_ok, tf.clip_by_value(action, -1.0, 1.0), float('nan')),
      'state': tf.where(is_ok[:, tf.newaxis], after, state),
      'status': row_status.fault(~is_ok, row_status.BAD_NUMBERS),
    }

  def export(self, origin: manifest.Origin) -> int:
    """Writes a new version.

    Args:
      origin: where the weights come from.

    Returns:
      The version number.
    """
    servable = self._servable

    def write(version: int, staged: dict[str, pathlib.Path]) -> None:
      del version
      servable.save(str(staged[RL2]))
      values = manifest.common(self._domain, servable, origin)
      manifest.write(staged[RL2], values | {'state_size': self.state_size})
      warmup.write(staged[RL2], servable, answer=self._answer)

    version = self._versions.publish(write)
    server_config.write(self.directory, (RL2,))
    return version

  def _answer(self, signature: str, inputs: warmup.Arrays) -> warmup.Arrays:
    """Returns what the network says here, not through a trace."""
    del signature
    answer = self.act(**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in answer.items()}
