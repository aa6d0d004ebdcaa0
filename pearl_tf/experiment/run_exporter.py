"""Exports of a run: which agent, and what the manifest says of the run it comes from."""

import os

import gymnasium

from pearl_tf.environments import meta_env
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import config
from pearl_tf.export import exporter, manifest, state_exporter


class RunExporter:
  """Exports the agent of an experiment, as often as asked."""

  def __init__(
    self,
    builder: builder_lib.Builder,
    directory: str | os.PathLike,
    *,
    keep: int,
    with_policy_saver: bool = False,
  ):
    """Names the directory; nothing is written yet.

    Args:
      builder: the experiment, whose agent is exported.
      directory: the export directory.
      keep: versions to keep.
      with_policy_saver: write TF-Agents' own export of the policy, too.

    Raises:
      ConfigError: if agents of this method cannot be exported.
    """
    if builder.method.not_served:
      raise config.ConfigError(
        f'an agent of {builder.method.name} cannot be exported: {builder.method.not_served}'
      )
    agent = builder.agent
    self._builder = builder
    if not hasattr(agent, 'encoder'):
      if with_policy_saver:
        raise config.ConfigError(f'an agent of {builder.method.name} has no policy for TF-Agents')
      self._exporter = state_exporter.StateExporter(
        builder.domain, directory, network=agent.network, keep=keep
      )
      return
    self._exporter = exporter.Exporter(
      builder.domain,
      directory,
      context_encoder=agent.encoder,
      actor_network=agent.actor,
      keep=keep,
      policy=agent.policy if with_policy_saver else None,
      train_step=agent.train_step_counter,
    )

  def export(self, env_steps: int) -> int:
    """Exports the agent as it is now; returns the version number.

    Args:
      env_steps: training transitions collected.
    """
    return self._exporter.export(
      manifest.Origin(
        environment=self._builder.experiment.environment_name,
        gin_config=self._builder.experiment.text,
        seed=self._builder.seed,
        train_step=int(self._builder.agent.train_step_counter.numpy()),
        env_steps=env_steps,
        units=_units(self._builder.environments(1)[0].gymnasium_env),
      )
    )


def _units(env: gymnasium.Env) -> manifest.Units:
  def names(kind: str) -> list[str] | None:
    found = meta_env.attribute(env, f'{kind}_names', None)
    return None if found is None else [str(name) for name in found]

  bounds = (env.action_space.low.tolist(), env.action_space.high.tolist())
  return manifest.Units(*bounds, names('action'), names('observation'))
