"""A small export of an untrained agent, for tests of whatever serves or calls one."""

import functools
import os
import pathlib

import tensorflow as tf

from pearl_tf.data import specs
from pearl_tf.export import exporter, manifest
from pearl_tf.networks import actor as actor_lib
from pearl_tf.networks import encoder as encoder_lib
from pearl_tf.networks import linear_gaussian_encoder, recurrent_encoder

ENVIRONMENT = 'pearl/PointRobot-v0'
DOMAIN = specs.DomainSpec(observation_size=2, action_size=2)
LATENT_SIZE = 5
_HIDDEN_UNITS = (16, 16)
_ENCODERS = {
  'gaussian': encoder_lib.GaussianEncoder,
  'deterministic': encoder_lib.DeterministicEncoder,
  'linear_gaussian': linear_gaussian_encoder.LinearGaussianEncoder,
  'recurrent': functools.partial(recurrent_encoder.RecurrentEncoder, recurrent_units=16),
}


def small_networks(
  *, seed: int = 0, encoder: str = 'gaussian', use_next_observation: bool = False
) -> tuple[encoder_lib.ContextEncoder, actor_lib.LatentActor]:
  """Returns encoder and actor of the point robot, so unlike zero that inputs make a difference.

  Args:
    seed: of the weights.
    encoder: kind of encoder, 'gaussian', 'deterministic', 'linear_gaussian' or 'recurrent'.
    use_next_observation: show the next observation to the encoder.
  """
  context_encoder = _ENCODERS[encoder](
    specs.context_spec(DOMAIN),
    latent_size=LATENT_SIZE,
    hidden_units=_HIDDEN_UNITS,
    use_next_observation=use_next_observation,
    seed=seed,
  )
  latent = tf.TensorSpec([LATENT_SIZE], tf.float32, 'latent')
  actor = actor_lib.LatentActor(
    (DOMAIN.observation, latent),
    action_size=DOMAIN.action_size,
    hidden_units=_HIDDEN_UNITS,
    seed=seed + 1,
  )
  for network, factor in ((context_encoder, 100.0), (actor, 1000.0)):
    network.create_variables()
    # Output layers start near zero, whatever the inputs.
    for variable in network.variables:
      if '/output/' in variable.name:
        variable.assign(factor * variable)
  return context_encoder, actor


def origin(*, seed: int = 0) -> manifest.Origin:
  """Returns where such an export says that it comes from."""
  return manifest.Origin(
    environment=ENVIRONMENT,
    gin_config=f"registry.make.name = '{ENVIRONMENT}'\n",
    seed=seed,
    train_step=100 * seed,
    env_steps=1000 * seed,
    units=manifest.Units([-0.1, -0.1], [0.1, 0.1], ['dx', 'dy'], ['x', 'y']),
  )


def export_small(
  directory: str | os.PathLike,
  *,
  seed: int = 0,
  encoder: str = 'gaussian',
  use_next_observation: bool = False,
) -> pathlib.Path:
  """Exports an agent of the point robot as a new version.

  Args:
    directory: the export directory; a second call makes version 2 beside version 1.
    seed: of the weights.
    encoder: kind of encoder, 'gaussian', 'deterministic', 'linear_gaussian' or 'recurrent'.
    use_next_observation: show the next observation to the encoder.

  Returns:
    The export directory.
  """
  context_encoder, actor = small_networks(
    seed=seed, encoder=encoder, use_next_observation=use_next_observation
  )
  target = exporter.Exporter(
    DOMAIN, directory, context_encoder=context_encoder, actor_network=actor, keep=3
  )
  target.export(origin(seed=seed))
  return target.directory
