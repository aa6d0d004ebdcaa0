"""One task, blocking: begin an episode, act, observe, adapt.

    with client.connect('localhost:8500') as connection:
      session = client.Session(connection)
      for _ in range(num_episodes):
        session.begin_episode()
        while not done:
          action = session.act(observation)
          ...
          session.observe(observation, action, reward, next_observation)
        session.adapt()

`serving.client.aio` has the same for asyncio.
"""

import numpy as np
from numpy import typing

from serving.client import belief as belief_lib
from serving.client import connection as connection_lib
from serving.client import errors, logic, signatures, transitions, validation


class SessionState:
  """What blocking and asyncio sessions share: everything but the making of calls.

  Not for several threads or coroutines at once: a session is one agent with one task.
  """

  def __init__(
    self,
    rules: logic.Logic,
    *,
    seed: int,
    capacity: int,
    deterministic: bool,
    reencode_within_episode: bool,
    belief: belief_lib.Belief | None,
  ):
    self._logic = rules
    self._random = np.random.default_rng(seed)
    self._task = logic.TaskState(transitions.Transitions(capacity), belief)
    self._deterministic = deterministic
    self._reencode = reencode_within_episode

  @property
  def belief(self) -> belief_lib.Belief | None:
    """The belief, with natural parameters, mean and variance; None before the first call."""
    return self._task.belief

  @property
  def latent(self) -> np.ndarray | None:
    """The hypothesis acted on in this episode, `[L] float32`; None before the first one."""
    return None if self._task.latent is None else self._task.latent.value

  @property
  def version(self) -> int | None:
    """The version of the model that this episode is pinned to; None before the first one."""
    return None if self._task.latent is None else self._task.latent.version

  @property
  def num_version_changes(self) -> int:
    """How often an episode had to go on with another version of the model, and a new latent."""
    return self._task.num_version_changes

  @property
  def num_pending(self) -> int:
    """Transitions observed since the last `adapt`."""
    return self._task.transitions.num_pending

  def observe(
    self,
    observation: typing.ArrayLike,
    action: typing.ArrayLike,
    reward: float,
    next_observation: typing.ArrayLike | None = None,
  ) -> None:
    """Keeps one transition for the next `adapt`; sends nothing.

    Args:
      observation: `[O]`.
      action: `[A]`, as `act` returned it.
      reward: what the encoder is shown; sparse where the task has a sparse reward.
      next_observation: `[O]`; may be left out where the model does not look at it.

    Raises:
      InvalidInputError: if something has the wrong shape or is not finite, if no episode has begun,
        or if the buffer is full of transitions that `adapt` has not seen.
    """
    self._require_episode('observe')
    sizes = self._logic.of_version(self._task.latent.version).sizes
    self._task.transitions.append(sizes, observation, action, reward, next_observation)

  def forget(self) -> None:
    """Starts over with a new task: the prior, no transitions, no episode."""
    self._task.transitions.clear()
    self._task.belief = None
    self._task.latent = None

  def _require_episode(self, method: str) -> None:
    if self._task.latent is None:
      raise errors.InvalidInputError(f'call begin_episode before {method}')

  def _begin_steps(self) -> signatures.Steps[None]:
    return self._logic.begin([self._task], self._random)

  def _act_steps(self, observation: typing.ArrayLike) -> signatures.Steps[np.ndarray]:
    self._require_episode('act')
    sizes = self._logic.of_version(self._task.latent.version).sizes
    return self._logic.act(
      [self._task],
      validation.floats('observation', observation, [sizes.observation_size])[np.newaxis],
      self._random,
      deterministic=self._deterministic,
      reencode=self._reencode,
    )

  def _adapt_steps(self) -> signatures.Steps[None]:
    return self._logic.adapt([self._task])


class Session(SessionState):
  """An agent's stay with one task, blocking."""

  def __init__(
    self,
    connection: connection_lib.Connection,
    *,
    seed: int = 0,
    capacity: int = transitions.DEFAULT_CAPACITY,
    deterministic: bool = True,
    reencode_within_episode: bool = True,
    belief: belief_lib.Belief | None = None,
  ):
    """Starts on the prior; nothing is sent yet.

    Args:
      connection: may be shared with other sessions.
      seed: seeds latents, and actions where they are sampled.
      capacity: raw transitions kept, to compute the belief anew after a change of the model; what
        is older is then lost to the belief.
      deterministic: act by the mean action instead of sampling.
      reencode_within_episode: where the version of an episode is not served any more, go on with
        the newest one and a new latent (`num_version_changes` tells); otherwise `act` raises
        `VersionChangedError` and the episode should end.
      belief: goes on from the belief of an earlier session instead of the prior.

    Raises:
      ValueError: if the capacity is not positive.
    """
    super().__init__(
      connection.logic,
      seed=seed,
      capacity=capacity,
      deterministic=deterministic,
      reencode_within_episode=reencode_within_episode,
      belief=belief,
    )
    self._connection = connection

  def begin_episode(self) -> np.ndarray:
    """Moves to the newest version of the model and draws the latent of a new episode.

    Returns:
      The latent, `[L] float32`.

    Raises:
      CallError: if the server cannot be reached or refuses.
      ContextLostError: if the model is another one and the belief's transitions are not kept.
    """
    self._connection.run(self._begin_steps())
    return self._task.latent.value

  def act(self, observation: typing.ArrayLike) -> np.ndarray:
    """Chooses an action on the latent of the episode.

    Args:
      observation: `[O]`.

    Returns:
      `[A] float32` in [-1, 1].

    Raises:
      InvalidInputError: if the observation is wrong, or no episode has begun.
      CallError: if the server cannot be reached in time or refuses.
      VersionChangedError: see the constructor.
    """
    return self._connection.run(self._act_steps(observation))[0]

  def adapt(self) -> belief_lib.Belief:
    """Takes the transitions observed since the last time into the belief.

    The latent stays until the next episode begins. Only the new transitions are sent, unless the
    model cannot add evidence (a recurrent encoder), which gets the whole context.

    Returns:
      The belief.

    Raises:
      CallError: if the server cannot be reached in time or refuses; nothing is lost then.
      ContextLostError: if the model is another one and the belief's transitions are not kept.
    """
    self._connection.run(self._adapt_steps())
    return self._task.belief
