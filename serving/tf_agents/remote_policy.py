"""A served agent as a TF-Agents policy, so that a driver runs against a server unchanged.

policy = remote_policy.RemotePearlPolicy(connection, env.time_step_spec(), env.action_spec())
driver = py_driver.PyDriver(
  env, policy, observers=[], transition_observers=[policy.observe], max_episodes=3,
  end_episode_on_boundary=False)
driver.run(env.reset())
"""

from collections.abc import Callable, Sequence

import numpy as np
from tf_agents.policies import py_policy
from tf_agents.specs import array_spec
from tf_agents.trajectories import policy_step as ps
from tf_agents.trajectories import time_step as ts

from serving import client
from serving.client import beliefs, channel, wire


class RemotePearlPolicy(py_policy.PyPolicy):
  """Posterior sampling against a server: one latent per episode, drawn from the belief.

  Each row of the environment has a session, which holds its belief and latent: the policy state is
  empty, and a policy goes with one environment. A step of all rows of the same version is one call.
  The info tells the version, and in `version_changed` where an episode had to go on with another.
  """

  def __init__(
    self,
    connection: client.Connection,
    time_step_spec: ts.TimeStep,
    action_spec: array_spec.BoundedArraySpec,
    *,
    seed: int = 0,
    deterministic: bool = True,
    every_steps: int | None = None,
    context_reward_fn: Callable[[], np.ndarray] | None = None,
    **session_settings,
  ):
    """Checks the model against the environment.

    Args:
      connection: to the server.
      time_step_spec: of the environment, without batch dimension.
      action_spec: of the environment, in [-1, 1].
      seed: seeds latents, and actions where they are sampled.
      deterministic: act by the mean action instead of sampling.
      every_steps: adapt whenever so many transitions of a row are new, beside the end of its
        episode. The latent follows at the next episode in any case.
      context_reward_fn: returns the rewards `[B]` the encoder is shown, after each step, where they
        differ from those of the time step, as for a task with a sparse reward.
      **session_settings: further ones of `client.Session`.

    Raises:
      ModelMismatchError: if model and environment differ in observations or actions.
      ValueError: if a number is not positive.
    """
    if every_steps is not None and every_steps < 1:
      raise ValueError(f'every_steps must be positive, or None, got {every_steps!r}')
    _, sizes = connection.describe()
    _check_specs(sizes, time_step_spec, action_spec)
    self._connection = connection
    self._settings = {'deterministic': deterministic, **session_settings}
    self._signature = 'act' if deterministic else 'act_sample'
    self._seeds = np.random.SeedSequence(seed)
    self._random = np.random.default_rng(self._seeds)
    self._every_steps = every_steps
    self._context_reward_fn = context_reward_fn
    self._sessions: list[client.Session] = []
    info_spec = {
      'version': array_spec.ArraySpec([], np.int64, 'version'),
      'version_changed': array_spec.ArraySpec([], np.bool_, 'version_changed'),
    }
    super().__init__(time_step_spec, action_spec, info_spec=info_spec)

  def sessions(self, number: int) -> list[client.Session]:
    """Returns the sessions of the first `number` rows, made when first asked for."""
    while len(self._sessions) < number:
      seed = int(self._seeds.spawn(1)[0].generate_state(1)[0])
      self._sessions.append(client.Session(self._connection, seed=seed, **self._settings))
    return self._sessions[:number]

  def reset(self, rows: Sequence[int] | None = None) -> None:
    """Returns to the prior, for new tasks in some rows, by default all."""
    for row in range(len(self._sessions)) if rows is None else rows:
      self._sessions[row].begin_task()

  def observe(self, transition: tuple[ts.TimeStep, ps.PolicyStep, ts.TimeStep]) -> None:
    """Keeps a transition of every row and adapts where it is time.

    Args:
      transition: time step, policy step and next time step, with or without a batch dimension, as
        drivers hand to `transition_observers`.
    """
    before, step, after = transition
    rows = int(np.size(before.step_type))
    reward = after.reward if self._context_reward_fn is None else self._context_reward_fn()
    columns = [
      np.reshape(column, [rows, -1]) for column in (before.observation, step.action, reward)
    ]
    following = np.reshape(after.observation, [rows, -1])
    ended, ends = np.reshape(before.is_last(), [rows]), np.reshape(after.is_last(), [rows])
    adapting = []
    for row, session in enumerate(self.sessions(rows)):
      if ended[row] or session.latent is None:
        continue  # From the last step of an episode to the first of the next: nothing happened.
      observation, action, (row_reward,) = (column[row] for column in columns)
      session.observe(observation, action, row_reward, following[row])
      if ends[row] or session.num_pending == self._every_steps:
        adapting.append(session.adapt_in_background())
    for future in adapting:
      future.result()

  def _action(
    self, time_step: ts.TimeStep, policy_state: tuple = (), seed: int | None = None
  ) -> ps.PolicyStep:
    """Returns actions.

    Args:
      time_step: with or without batch dimension.
      policy_state: empty.
      seed: replaces the policy's own stream of seeds for the actions of this step.
    """
    is_batched = np.ndim(time_step.step_type) > 0
    rows = int(np.size(time_step.step_type))
    observation = np.reshape(time_step.observation, [rows, -1])
    sessions = self.sessions(rows)
    for session, is_first in zip(sessions, np.reshape(time_step.is_first(), [rows]), strict=True):
      if is_first or session.latent is None:
        session.begin_episode()
    changes = [session.num_version_changes for session in sessions]
    action = self._act(sessions, observation, seed)
    info = {
      'version': np.array([session.latent.version for session in sessions], np.int64),
      'version_changed': np.array(
        [
          session.num_version_changes > before
          for session, before in zip(sessions, changes, strict=True)
        ]
      ),
    }
    if not is_batched:
      action, info = action[0], {name: value[0] for name, value in info.items()}
    return ps.PolicyStep(action, policy_state, info)

  def _act(
    self, sessions: Sequence[client.Session], observation: np.ndarray, seed: int | None
  ) -> np.ndarray:
    random = self._random if seed is None else np.random.default_rng(seed)
    seeds = random.integers(2**31 - 1, size=[len(sessions), 2], dtype=np.int32)
    actions: list[np.ndarray | None] = [None] * len(sessions)
    for version in {session.latent.version for session in sessions}:
      rows = [row for row, one in enumerate(sessions) if one.latent.version == version]
      latents = [sessions[row].latent for row in rows]
      inputs = {
        'observation': wire.floats('observation', observation[rows], [len(rows), None]),
        'z': np.stack([latent.value for latent in latents]),
        'latent_tag': np.array([latent.latent_tag for latent in latents], np.int64),
      }
      if self._signature == 'act_sample':
        inputs['seed'] = seeds[rows]
      budget = channel.budget(self._connection.deadlines, 'act')
      try:
        _, outputs = beliefs.run(self._connection, self._signature, inputs, budget, version)
        found = outputs['action']
      except client.errors.MOVED:
        # Each session knows what to do.
        found = [sessions[row].step(observation[row]).value for row in rows]
      for row, action in zip(rows, found, strict=True):
        actions[row] = action
    return np.stack(actions)


def _check_specs(
  sizes: wire.Sizes, time_step_spec: ts.TimeStep, action_spec: array_spec.BoundedArraySpec
) -> None:
  found = {
    'observations': (time_step_spec.observation.shape, sizes.observation_size),
    'actions': (action_spec.shape, sizes.action_size),
  }
  for what, (shape, size) in found.items():
    if tuple(shape) != (size,):
      raise client.errors.ModelMismatchError(
        f'the model has {what} of shape [{size}], the environment of {list(shape)}'
      )
  bounds = np.unique([action_spec.minimum, action_spec.maximum]).tolist()
  if bounds != [-1.0, 1.0]:
    raise client.errors.ModelMismatchError(
      f'the model acts in [-1, 1], the environment takes actions between {action_spec.minimum} and '
      f'{action_spec.maximum}: wrap it, as pearl_tf.environments.gymnasium_adapter does'
    )
