"""Where the pictures of a video come from: a camera in the environment, or the plane of a robot.

This module owns the pictures of finished trajectories, in order; `video` writes beside them what
was believed and earned.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import gymnasium
import numpy as np

from pearl_tf.collect import actor, rollout
from pearl_tf.data import types
from pearl_tf.evaluation import calibration
from pearl_tf.evaluation.video import plane


class VideoError(RuntimeError):
  """This experiment cannot be filmed; the message says why."""


class Scene(NamedTuple):
  """A moment: the picture after `step` steps, and the belief to show beside it where it is not the
  one acted on."""

  step: int
  picture: np.ndarray
  belief: types.Posterior | None = None
  belief_title: str | None = None


class Scenes(Protocol):
  """Where the pictures of a finished trajectory come from."""

  def of(self, finished: rollout.FinishedEpisode) -> Iterator[Scene]: ...


class Camera(gymnasium.Wrapper):
  """Renders an environment after every reset and step, while it is filming.

  The roll-out resets for the next trajectory before it tells of the finished one, hence the list of
  trajectories.
  """

  def __init__(self, env: gymnasium.Env):
    super().__init__(env)
    self._reels: list[list[np.ndarray]] = []
    self._num_left = 0
    self._is_filming = False
    self._on_frame: Callable[[], None] = lambda: None

  def start(self, num_trajectories: int, on_frame: Callable[[], None]) -> None:
    """Films this many trajectories from the next reset on."""
    self._reels, self._num_left, self._on_frame = [], num_trajectories, on_frame

  def reset(self, **kwargs):
    result = self.env.reset(**kwargs)
    self._is_filming = self._num_left > 0
    if self._is_filming:
      self._num_left -= 1
      self._reels.append([])
      self._shoot()
    return result

  def step(self, action):
    result = self.env.step(action)
    if self._is_filming:
      self._shoot()
    return result

  def take(self) -> list[np.ndarray]:
    """Returns the pictures of the oldest trajectory that was not taken yet."""
    return self._reels.pop(0)

  def _shoot(self) -> None:
    picture = self.env.render()
    if not (isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.dtype == np.uint8):
      raise VideoError(
        f'render of {type(self.unwrapped).__name__} must return [H, W, 3] uint8, got '
        f'{getattr(picture, "dtype", type(picture).__name__)} {np.shape(picture)}'
      )
    # A copy: the renderer may draw the next one into the same memory.
    self._reels[-1].append(picture.copy())
    self._on_frame()


class RenderedScenes:
  """What a camera has seen."""

  def __init__(self, camera: Camera):
    self._camera = camera

  def of(self, finished: rollout.FinishedEpisode) -> Iterator[Scene]:
    del finished  # The camera has them in the order they finish.
    for step, picture in enumerate(self._camera.take()):
      yield Scene(step, picture)


class PlaneScenes:
  """The plane of a point robot, with what the agent would believe after every step."""

  def __init__(
    self,
    acting: actor.BelievingActor,
    task: types.Task,
    *,
    num_steps: int,
    num_trajectories: int,
    goal_radius: float,
    seed: np.random.SeedSequence,
    on_frame: Callable[[], None],
  ):
    self._acting = acting
    self._goal = task.parameters[:2]
    self._num_steps = num_steps
    self._num_trajectories = num_trajectories
    self._goal_radius = goal_radius
    self._seed = seed
    self._on_frame = on_frame
    self._episodes: list[types.Episode] = []

  def of(self, finished: rollout.FinishedEpisode) -> Iterator[Scene]:
    episode = finished.episode
    num_seen = sum(len(earlier.reward) for earlier in self._episodes)
    beliefs = plane.beliefs_so_far(self._acting, self._episodes, episode)
    clouds = calibration.destinations(
      self._acting,
      beliefs,
      episode.observation[0],
      num_steps=self._num_steps,
      random=np.random.default_rng(self._seed),
    )
    self._episodes.append(episode)
    positions = [
      np.concatenate([one.observation, one.next_observation[-1:]]) for one in self._episodes
    ]
    half_width = plane.extent(self._goal, np.concatenate(positions))
    for step, (belief, cloud) in enumerate(zip(beliefs, clouds, strict=True)):
      shown = [*positions[:-1], positions[-1][: step + 1]]
      picture = plane.draw(
        self._goal,
        [plane.Path(path, index) for index, path in enumerate(shown)],
        cloud,
        half_width=half_width,
        num_trajectories=self._num_trajectories,
        goal_radius=self._goal_radius,
      )
      self._on_frame()
      seen = num_seen + step
      title = f'posterior after {seen} step{"s" * (seen > 1)}' if seen else 'prior'
      yield Scene(step, np.asarray(picture), belief, title)
