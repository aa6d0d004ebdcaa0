"""The manifest: what somebody who has only the exported files wants to know of them, as JSON."""

import hashlib
import json
import pathlib
from typing import Any, NamedTuple

import tensorflow as tf

from pearl_tf import version as version_lib
from pearl_tf.data import specs
from pearl_tf.export import endpoint as endpoint_lib
from pearl_tf.export import serving_module

FILE = pathlib.PurePath('assets.extra', 'pearl_manifest.json')


class Units(NamedTuple):
  """What the numbers of an environment are, for whoever drives another body by the same agent.

  Attributes:
    action_low: lowest action of the environment, `[A]`; the agent's -1.
    action_high: highest action, `[A]`; the agent's 1.
    action_names: name of each entry; None where the environment has none.
    observation_names: the same of an observation.
  """

  action_low: list[float]
  action_high: list[float]
  action_names: list[str] | None = None
  observation_names: list[str] | None = None


class Origin(NamedTuple):
  """Where the exported weights come from.

  Attributes:
    environment: name of the task family.
    gin_config: the resolved configuration of the run.
    seed: the run's seed.
    train_step: training steps taken.
    env_steps: training transitions collected.
    units: of the environment; None if nobody knows.
  """

  environment: str
  gin_config: str
  seed: int
  train_step: int
  env_steps: int
  units: Units | None = None


def latent_tag(origin: Origin, variables: list[tf.Variable]) -> int:
  """Returns a positive int64 that names a latent space.

  Args:
    origin: identifies the run and its step.
    variables: weights of the encoder.
  """
  digest = hashlib.sha256(f'{origin.gin_config}\n{origin.seed}\n{origin.train_step}'.encode())
  for variable in variables:
    digest.update(variable.numpy().tobytes())
  return (int.from_bytes(digest.digest()[:8], 'little') >> 1) or 1


def contents(
  endpoint: endpoint_lib.Endpoint, servable: serving_module.Servable, origin: Origin
) -> dict[str, Any]:
  """Returns the manifest of one of PEARL's servables as plain data."""
  return common(endpoint.domain, servable, origin) | {
    'latent_size': endpoint.latent_size,
    'context_size_per_transition': endpoint.context_features,
    'uses_next_observation': endpoint.uses_next_observation,
    'encoder': endpoint.kind,
    'supports_update': endpoint.supports_update,
    'latent_tag': int(endpoint.latent_tag.numpy()),
  }


def common(
  domain: specs.DomainSpec, servable: serving_module.Servable, origin: Origin
) -> dict[str, Any]:
  """Returns what the manifest of every method's servable says, as plain data."""
  units = origin.units
  bounds = units and {'low': units.action_low, 'high': units.action_high}
  return {
    'pearl_tf': version_lib.__version__,
    'model': servable.name,
    'env_name': origin.environment,
    'observation_size': domain.observation_size,
    'action_size': domain.action_size,
    # Of the squashed action, which maps linearly to the bounds of the environment.
    'action_bounds': [-1.0, 1.0],
    'env_action_bounds': bounds,
    'env_action_names': units and units.action_names,
    'env_observation_names': units and units.observation_names,
    'gin_config_sha256': hashlib.sha256(origin.gin_config.encode()).hexdigest(),
    'seed': origin.seed,
    'train_step': origin.train_step,
    'env_steps': origin.env_steps,
    'signatures': {
      name: {
        'inputs': _describe(servable.inputs(name)),
        'outputs': _describe(function.structured_outputs),
      }
      for name, function in sorted(servable.signatures.items())
    },
  }


def write(directory: pathlib.Path, values: dict[str, Any]) -> None:
  """Writes a manifest into a version directory."""
  path = directory / FILE
  path.parent.mkdir(exist_ok=True)
  path.write_text(json.dumps(values, indent=1) + '\n')


def _describe(tensors: dict[str, tf.TensorSpec]) -> dict[str, dict[str, Any]]:
  return {
    name: {'dtype': spec.dtype.name, 'shape': spec.shape.as_list()}
    for name, spec in sorted(tensors.items())
  }
