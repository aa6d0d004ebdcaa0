"""Fast stand-ins for tests: tiny families of tasks, faulty ones, and a policy without networks.

The families obey (or, where that is their purpose, break) the contract of `meta_env.MetaEnv`; the
actor has the interface of `agents.pearl.actor.PearlActor` and is a plain function of what it is
given, so that a test can compute what a trial must do by itself.
"""

from collections.abc import Sequence

import gymnasium
import numpy as np

from pearl_tf.collect import actor
from pearl_tf.data import types
from pearl_tf.environments import gymnasium_adapter, meta_env

FAULTS = {
  'nan': 'observation[0] is nan',
  'shape': 'the observation has shape (2,), expected (1,)',
  'dtype': 'the observation has dtype <U3',
  'raise': 'step raised ZeroDivisionError: the simulator broke',
  'nan_reward': 'the reward is nan',
  'reset': 'reset raised ZeroDivisionError: the simulator broke',
}


class Line(meta_env.MetaEnv):
  """A point on a line that is moved towards an unknown goal.

  Observation `[1] float32`: position. Action `[1]` in +-0.5: displacement. Reward: minus the
  distance to the goal; the sparse one is 1 within 0.25 of it. Task parameter: the goal, uniform in
  [-1, 1].
  """

  parameter_names = ('goal',)
  default_parameters = (0.5,)
  has_sparse_reward = True
  observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
  action_space = gymnasium.spaces.Box(-0.5, 0.5, (1,), np.float32)

  def __init__(self, termination_probability: float = 0.0, reward_scale: float = 1.0):
    """Makes the environment; each step ends the episode with `termination_probability`."""
    self._termination_probability = termination_probability
    self._reward_scale = reward_scale
    self._position = 0.0

  def sample_parameters(self, num_tasks, random_state):
    return random_state.uniform(-1.0, 1.0, size=(num_tasks, 1))

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed, options=options)
    self._position = float(self.np_random.uniform(-1.0, 1.0))
    return self._observe(), {}

  def step(self, action):
    self._position += float(action[0])
    distance = abs(self._position - float(self.task.parameters[0]))
    terminated = bool(self.np_random.random() < self._termination_probability)
    sparse_reward = 1.0 if distance < 0.25 else 0.0
    reward = -self._reward_scale * distance
    return self._observe(), reward, terminated, False, {'sparse_reward': sparse_reward}

  def _observe(self):
    return np.array([self._position], np.float32)


class DenseLine(Line):
  """A `Line` whose encoder is shown the distance to the goal."""

  has_sparse_reward = False


class FaultyLine(Line):
  """A `Line` that breaks its contract, from the third step on of the second task."""

  def __init__(self, fault: str = 'nan'):
    """Makes the environment; `fault` is a key of `FAULTS`."""
    super().__init__()
    self._fault = fault
    self._num_steps = 0

  def reset(self, *, seed=None, options=None):
    if self._fault == 'reset' and self.task.index == 1:
      raise ZeroDivisionError('the simulator broke')
    self._num_steps = 0
    return super().reset(seed=seed, options=options)

  def step(self, action):
    self._num_steps += 1
    observation, reward, *others = super().step(action)
    if self.task.index == 1 and self._num_steps >= 3:
      if self._fault == 'raise':
        raise ZeroDivisionError('the simulator broke')
      reward = np.nan if self._fault == 'nan_reward' else reward
      wrong = {'nan': np.array([np.nan]), 'shape': np.zeros(2), 'dtype': np.array(['abc'])}
      observation = wrong.get(self._fault, observation)
    return observation, reward, *others


class UnstableLine(Line):
  """A `Line` whose simulator blows up in one of fifty steps."""

  def __init__(self, kind: str = 'nan'):
    """Makes the environment; `kind` is 'nan', 'huge', 'spike' or 'diverged'."""
    super().__init__()
    self._kind = kind

  def step(self, action):
    observation, reward, *others = super().step(action)
    if self.np_random.random() < 0.02:
      if self._kind == 'diverged':
        raise meta_env.Diverged('too fast')
      observation[:] = {'nan': np.nan, 'huge': 3e38}.get(self._kind, observation[0])
      reward = 1e30 if self._kind == 'spike' else reward
    return observation, reward, *others


def line_adapters(
  number: int, *, max_episode_steps: int = 5, termination_probability: float = 0.0
) -> list[gymnasium_adapter.GymnasiumAdapter]:
  """Returns environments of the `Line` family for a roll-out."""
  return [
    gymnasium_adapter.GymnasiumAdapter(
      Line(termination_probability), max_episode_steps=max_episode_steps
    )
    for _ in range(number)
  ]


def line_tasks(number: int) -> list[types.Task]:
  """Returns tasks of the `Line` family."""
  return Line().sample_tasks(number, seed=0)


class ScriptedActing(actor.BelievingActor):
  """Acts and infers by formulas of one trial's own data, whatever the other trials do.

  The belief's mean is the mean context reward, its variance the number of transitions it came from;
  the latent drawn at the first step of an episode is mean plus variance, and the action half the
  difference between latent and position.

  Attributes:
    contexts: what every inference so far was given.
    batches: the number of trials of every call of `act`.
  """

  PRIOR_MEAN = 0.125

  def __init__(self):
    """Starts without a record."""
    self.contexts: list[types.Episode] = []
    self.batches: list[int] = []

  def prior(self) -> types.Posterior:
    """Returns a mean that no context has and a variance of zero."""
    return types.Posterior(np.array([self.PRIOR_MEAN], np.float32), np.zeros(1, np.float32))

  def act(self, observation, step_type, reward, state, seed):
    """Returns actions `[B, 1]` and the state with latents `[B, 1]`."""
    del reward, seed
    self.batches.append(len(observation))
    drawn = self.draw(state.posterior.mean, state.posterior.variance)
    latent = np.where(step_type[:, np.newaxis] == 0, drawn, state.latent)
    return self.action(observation, latent), state._replace(latent=latent)

  def infer(self, contexts: Sequence[types.Episode]) -> types.Posterior:
    """Returns beliefs `[K, 1]`."""
    self.contexts.extend(contexts)
    beliefs = [self.belief(context) for context in contexts]
    return types.Posterior(*(np.stack(parts) for parts in zip(*beliefs, strict=True)))

  @staticmethod
  def belief(context: types.Episode) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and variance, `[1]` each, from one context."""
    rewards = context.context_reward
    return np.array([rewards.mean()], np.float32), np.array([len(rewards)], np.float32)

  @staticmethod
  def draw(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Returns the latent of an episode on this belief."""
    return (mean + variance).astype(np.float32)

  @staticmethod
  def action(observation: np.ndarray, latent: np.ndarray) -> np.ndarray:
    """Returns actions in [-1, 1]."""
    return np.clip(0.5 * (latent - observation), -1.0, 1.0).astype(np.float32)
