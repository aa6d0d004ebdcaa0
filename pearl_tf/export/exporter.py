"""Exports of an agent: a new version of every servable, from the agent's own variables.

  EXPORT_DIR/
    models.config, batching.config      TensorFlow Serving's configuration
    pearl/<version>/                    encoder and policy in one, what should be served
    pearl_encoder/<version>/, pearl_policy/<version>/   the two parts
    policy_saver/<version>/             TF-Agents' own export of the policy, if asked for

The program `serving.export` and the training loop call it.
"""

import functools
import os
import pathlib

import numpy as np
import tensorflow as tf
from tf_agents.policies import tf_policy

from pearl_tf.data import specs
from pearl_tf.export import endpoint as endpoint_lib
from pearl_tf.export import (
  manifest,
  policy_saver,
  server_config,
  serving_module,
  versions,
  warmup,
)
from pearl_tf.networks import actor, encoder


class ExportError(ValueError):
  """An encoder that is served as something else than it is; the message says what to do."""


class Exporter:
  """Writes the current weights of one agent as often as asked; signatures are traced once."""

  def __init__(
    self,
    domain: specs.DomainSpec,
    directory: str | os.PathLike,
    *,
    context_encoder: encoder.ContextEncoder,
    actor_network: actor.LatentActor,
    keep: int = 2,
    policy: tf_policy.TFPolicy | None = None,
    train_step: tf.Variable | None = None,
  ):
    """Names the directory; nothing is traced or written yet.

    Args:
      domain: sizes of the domain.
      directory: the export directory, created if need be.
      context_encoder: the agent's q(z | c).
      actor_network: the agent's pi(a | s, z).
      keep: versions to keep, the newest ones; clients pin a version for an episode, so that fewer
        than two make them fail now and then.
      policy: over the same networks, saved by TF-Agents' `PolicySaver` beside the servables; None
        for the servables alone.
      train_step: goes with `policy`.

    Raises:
      ValueError: if `keep` is not positive.
    """
    self._encoder = context_encoder
    self._actor = actor_network
    self._endpoint = endpoint_lib.Endpoint(
      domain, context_encoder=context_encoder, actor_network=actor_network
    )
    self._servables: dict[str, serving_module.Servable] = {}
    self._policy = policy
    self._train_step = train_step
    folders = tuple(serving_module.SERVABLES)
    if policy is not None:
      folders += (policy_saver.FOLDER,)
    self._versions = versions.Versions(directory, folders, keep=keep)

  @property
  def directory(self) -> pathlib.Path:
    """The export directory."""
    return self._versions.directory

  def export(self, origin: manifest.Origin) -> int:
    """Writes a new version of every servable.

    Args:
      origin: where the weights come from.

    Returns:
      The version number, the same for all servables.

    Raises:
      ExportError: if what would be served is not what the encoder infers.
    """
    endpoint = self._endpoint
    if not self._servables:
      self._servables = serving_module.servables(endpoint)
    tag = manifest.latent_tag(origin, endpoint.encoder_variables[1:])
    endpoint.latent_tag.assign(tag)
    self._check_beliefs()

    def write(version: int, staged: dict[str, pathlib.Path]) -> None:
      del version
      for name, servable in self._servables.items():
        servable.save(str(staged[name]))
        manifest.write(staged[name], manifest.contents(endpoint, servable, origin))
        warmup.write(
          staged[name],
          servable,
          latent_tag=tag,
          supports_update=endpoint.supports_update,
          answer=functools.partial(self._answer, name),
        )

      if self._policy is not None:
        policy_saver.save(self._policy, staged[policy_saver.FOLDER], train_step=self._train_step)

    version = self._versions.publish(write)
    server_config.write(self.directory, serving_module.SERVABLES)
    return version

  def _answer(self, servable: str, signature: str, inputs: warmup.Arrays) -> warmup.Arrays:
    """Returns what the agent's networks say here to a call, not through a trace; `{}` if unknown.

    Args:
      servable: name of the servable.
      signature: name of the signature.
      inputs: arrays by name.
    """
    if signature == serving_module.DEFAULT:
      signature = serving_module.SERVABLES[servable][1]
    if signature == 'encode':
      mask = tf.sequence_mask(inputs['num_transitions'], inputs['context'].shape[1])
      context = self._endpoint.split(tf.constant(inputs['context']), mask)
      answer = self._encoder.infer_posterior(context)._asdict()
    elif signature == 'act':
      parameters, _ = self._actor((inputs['observation'], inputs['z']))
      answer = {'action': actor.mean_action(parameters)}
    else:
      return {}
    return {name: value.numpy() for name, value in answer.items()}

  def _check_beliefs(self) -> None:
    """Compares what would be served with what the encoder infers here, on noise of two lengths."""
    endpoint, size = self._endpoint, self._endpoint.context_features
    context = tf.random.stateless_normal([2, 4, size], [0, 0])
    numbers = tf.constant([4, 2])
    signature = self._servables[serving_module.ENCODER].signatures['encode']
    served = signature(context=context, num_transitions=numbers)
    inferred = self._encoder.infer_posterior(endpoint.split(context, tf.sequence_mask(numbers, 4)))
    name = type(self._encoder).__name__
    if np.any(served['status'].numpy()):
      raise ExportError(
        f'a server would refuse what {name}.statistics says of ordinary transitions: its numbers '
        'must be finite, and its precision positive where there are transitions'
      )
    for part, here in inferred._asdict().items():
      if not np.allclose(served[part].numpy(), here.numpy(), rtol=1e-3, atol=1e-5):
        raise ExportError(
          f'{name} infers another {part} when it is called than in a graph: {here.numpy()[0]} and '
          f'{served[part].numpy()[0]}; statistics and belief must depend on their argument and on '
          'variables alone'
        )
