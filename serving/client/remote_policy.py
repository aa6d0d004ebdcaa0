"""A served agent as a TF-Agents policy, so that a driver runs against a server unchanged.

adaptation = adaptation_lib.AdaptationObserver(connection)
policy = remote_policy.RemotePearlPolicy(
  connection, env.time_step_spec(), env.action_spec(), adaptation=adaptation)
driver = py_driver.PyDriver(
  env, policy, observers=[], transition_observers=[adaptation], max_episodes=3,
  end_episode_on_boundary=False)
driver.run(env.reset(), policy.get_initial_state(batch_size=1))
"""

import numpy as np
from tf_agents.policies import py_policy
from tf_agents.specs import array_spec
from tf_agents.trajectories import policy_step as ps
from tf_agents.trajectories import time_step as ts

from serving.client import adaptation as adaptation_lib
from serving.client import belief as belief_lib
from serving.client import connection as connection_lib
from serving.client import errors, interface, logic, transitions

_NO_VERSION = 0
State = dict[str, np.ndarray]


class RemotePearlPolicy(py_policy.PyPolicy):
  """Posterior sampling against a server: one latent per episode, drawn from the belief.

  The policy state is the natural parameters of the belief (`eta`, `precision`, `count`,
  `latent_tag`), the latent `z` and the `version` of the model that the episode is pinned to.
  Beliefs change between steps, not in this policy: they come from `adaptation`, which the driver
  feeds, or, where there is none, from the policy state as its caller changes it between episodes.

  Batched time steps are answered by one call for all rows of the same version. The info tells in
  `version_changed` where an episode had to go on with another version of the model.
  """

  def __init__(
    self,
    connection: connection_lib.Connection,
    time_step_spec: ts.TimeStep,
    action_spec: array_spec.BoundedArraySpec,
    *,
    adaptation: adaptation_lib.AdaptationObserver | None = None,
    seed: int = 0,
    deterministic: bool = True,
    reencode_within_episode: bool = True,
  ):
    """Checks the model against the environment.

    Args:
      connection: to the server.
      time_step_spec: of the environment, without batch dimension.
      action_spec: of the environment, in [-1, 1].
      adaptation: holds the beliefs; also to be given to the driver, as transition observer.
      seed: seeds latents, and actions where they are sampled.
      deterministic: act by the mean action instead of sampling.
      reencode_within_episode: see `session.Session`.

    Raises:
      ModelMismatchError: if model and environment differ in observations or actions.
    """
    sizes = connection.connect()
    _check_specs(sizes, time_step_spec, action_spec)
    self._connection = connection
    self._adaptation = adaptation
    self._random = np.random.default_rng(seed)
    self._deterministic = deterministic
    self._reencode = reencode_within_episode
    latent_shape = [sizes.latent_size]
    super().__init__(
      time_step_spec,
      action_spec,
      policy_state_spec={
        'eta': array_spec.ArraySpec(latent_shape, np.float32, 'eta'),
        'precision': array_spec.ArraySpec(latent_shape, np.float32, 'precision'),
        'count': array_spec.ArraySpec([], np.int32, 'count'),
        'latent_tag': array_spec.ArraySpec([], np.int64, 'latent_tag'),
        'z': array_spec.ArraySpec(latent_shape, np.float32, 'z'),
        'version': array_spec.ArraySpec([], np.int64, 'version'),
      },
      info_spec={'version_changed': array_spec.ArraySpec([], np.bool_, 'version_changed')},
    )

  def _action(
    self, time_step: ts.TimeStep, policy_state: State, seed: int | None = None
  ) -> ps.PolicyStep:
    """Returns actions, and the state with the latents in force.

    Args:
      time_step: with or without batch dimension.
      policy_state: of the same batch, or of a batch of one; `()` for a fresh one.
      seed: replaces the policy's own stream of seeds for this step.
    """
    observation = np.asarray(time_step.observation)
    is_batched = observation.ndim > 1
    batch_size = len(observation) if is_batched else 1
    policy_state = policy_state or self.get_initial_state(batch_size if is_batched else None)
    tasks = self._tasks(policy_state, batch_size)
    random = self._random if seed is None else np.random.default_rng(seed)
    run, rules = self._connection.run, self._connection.logic
    is_first = np.reshape(time_step.is_first(), [batch_size])
    starting = [
      task for task, first in zip(tasks, is_first, strict=True) if first or task.latent is None
    ]
    if starting:
      run(rules.begin(starting, random))
    changes = [task.num_version_changes for task in tasks]
    action = run(
      rules.act(
        tasks,
        observation.reshape([batch_size, -1]),
        random,
        deterministic=self._deterministic,
        reencode=self._reencode,
      )
    )
    changed = [
      task.num_version_changes > before for task, before in zip(tasks, changes, strict=True)
    ]
    return ps.PolicyStep(
      action=action if is_batched else action[0],
      state=self._state(tasks, policy_state),
      info={'version_changed': np.array(changed if is_batched else changed[0])},
    )

  def _tasks(self, policy_state: State, batch_size: int) -> list[logic.TaskState]:
    """Returns what is known of every row: the observer's or the state's belief, and its latent."""
    state = {
      name: np.reshape(policy_state[name], (batch_size, *spec.shape))
      for name, spec in self.policy_state_spec.items()
    }
    if self._adaptation is not None:
      tasks = self._adaptation.tasks(batch_size)
    else:
      tasks = [logic.TaskState(transitions.Transitions(1)) for _ in range(batch_size)]
    for row, task in enumerate(tasks):
      version, tag = int(state['version'][row]), int(state['latent_tag'][row])
      task.latent = None
      if version == _NO_VERSION:
        continue
      task.latent = logic.Latent(state['z'][row], tag, version)
      if self._adaptation is None:
        count = int(state['count'][row])
        task.belief = belief_lib.Belief(
          state['eta'][row], state['precision'][row], count, tag, version
        )
    return tasks

  def _state(self, tasks: list[logic.TaskState], like: State) -> State:
    """Returns the policy state of all rows, in the shapes of the one that came in."""
    latents = np.stack([task.latent.value for task in tasks])
    if latents.shape[-1] != self.policy_state_spec['z'].shape[0]:
      raise errors.ModelMismatchError(
        f'the new version of the model has a latent of {latents.shape[-1]} numbers, the policy '
        f'state {self.policy_state_spec["z"].shape[0]}: make a new policy'
      )
    # An observer that was reset within an episode has no belief before the next one.
    nothing = belief_lib.Belief(np.zeros_like(latents[0]), np.zeros_like(latents[0]), 0, 0, 0)
    columns = belief_lib.stack([task.belief or nothing for task in tasks])
    # The belief may have moved on to a version that the latent of the episode is not of.
    columns['latent_tag'] = np.array([task.latent.latent_tag for task in tasks], np.int64)
    columns['z'] = latents
    columns['version'] = np.array([task.latent.version for task in tasks], np.int64)
    return {
      name: np.reshape(columns[name], np.shape(like[name])) for name in self.policy_state_spec
    }


def _check_specs(
  sizes: interface.Interface, time_step_spec: ts.TimeStep, action_spec: array_spec.BoundedArraySpec
) -> None:
  found = {
    'observations': (time_step_spec.observation.shape, sizes.observation_size),
    'actions': (action_spec.shape, sizes.action_size),
  }
  for what, (shape, size) in found.items():
    if tuple(shape) != (size,):
      raise errors.ModelMismatchError(
        f'the model has {what} of shape [{size}], the environment of {list(shape)}'
      )
  bounds = np.unique([action_spec.minimum, action_spec.maximum]).tolist()
  if bounds != [-1.0, 1.0]:
    raise errors.ModelMismatchError(
      f'the model acts in [-1, 1], the environment takes actions between {action_spec.minimum} and '
      f'{action_spec.maximum}: wrap it, as pearl_tf.environments.gymnasium_adapter does'
    )
