"""An export of an agent that has learnt nothing, of the published experiments' sizes.

What a call costs depends on sizes alone. This is the only module of the benchmark that knows the
library: it stands for the run folder of a trained agent, and nothing that is measured imports it.
"""

import pathlib

import tensorflow as tf

from pearl_tf.data import specs
from pearl_tf.export import exporter, manifest
from pearl_tf.networks import actor, encoder

# HalfCheetah, and the widths of the paper's networks.
OBSERVATION_SIZE = 20
ACTION_SIZE = 6
LATENT_SIZE = 5
ENCODER_UNITS = (200, 200, 200)
POLICY_UNITS = (300, 300, 300)


def export(directory: pathlib.Path) -> pathlib.Path:
  """Writes the export; returns its folder."""
  domain = specs.DomainSpec(observation_size=OBSERVATION_SIZE, action_size=ACTION_SIZE)
  context_encoder = encoder.GaussianEncoder(
    specs.context_spec(domain), latent_size=LATENT_SIZE, hidden_units=ENCODER_UNITS
  )
  policy = actor.LatentActor(
    (domain.observation, tf.TensorSpec([LATENT_SIZE], tf.float32, 'latent')),
    action_size=ACTION_SIZE,
    hidden_units=POLICY_UNITS,
  )
  for network in (context_encoder, policy):
    network.create_variables()
  target = exporter.Exporter(
    domain, directory, context_encoder=context_encoder, actor_network=policy
  )
  target.export(manifest.Origin('untrained', '', seed=0, train_step=0, env_steps=0))
  return target.directory
