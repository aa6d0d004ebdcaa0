"""Videos of a meta-test: how an agent finds out what a task wants.

This module owns what is filmed: the trajectories of `meta_testing.MetaTest`, one file per task,
with the belief they were acted on. Environments that render are filmed as they are; those in the
plane (`MetaEnv.is_plane`) are drawn with the posterior there. How frames look is the matter of
`frame` and `plane`, the encoding that of `mp4`.
"""

import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import gymnasium
import numpy as np

from pearl_tf.collect import actor, rollout
from pearl_tf.data import types
from pearl_tf.environments import gymnasium_adapter, meta_env
from pearl_tf.evaluation import meta_testing
from pearl_tf.evaluation.video import display, frame, mp4, scenes

DEFAULT_WIDTH = 640
_DEFAULT_FPS = 20.0
# The end of a trajectory stays on the screen, so that its return can be read.
_HOLD_SECONDS = 0.75


class Recording(NamedTuple):
  """A video.

  Attributes:
    path: the MP4.
    task: whose trajectories it shows.
    returns: of the trajectories shown, in order.
    num_frames: frames in the file.
    fps: frames per second.
  """

  path: pathlib.Path
  task: types.Task
  returns: list[float]
  num_frames: int
  fps: float


def make_environment(
  make: Callable[..., gymnasium.Env], *, max_episode_steps: int, width: int = DEFAULT_WIDTH
) -> gymnasium_adapter.GymnasiumAdapter:
  """Makes an environment that can be filmed.

  Args:
    make: makes one of the family; takes the arguments of its constructor, as
      `make_environment` of an experiment does.
    max_episode_steps: time limit of every trajectory.
    width: pixels of the picture, which is `frame.HEIGHT` high, where the family lets them be chosen
      (`MetaEnv.has_picture_size`).

  Raises:
    VideoError: if the family cannot render.
    DisplayError: if MuJoCo cannot draw here.
    ValueError: if `width` is not a positive even number.
  """
  if width < 2 or width % 2:
    raise ValueError(f'width must be a positive even number, got {width}')
  env = make()
  if meta_env.attribute(env, 'is_plane', False):
    return gymnasium_adapter.GymnasiumAdapter(env, max_episode_steps=max_episode_steps)
  if 'rgb_array' not in (env.unwrapped.metadata or {}).get('render_modes', ()):
    raise scenes.VideoError(
      f"{type(env.unwrapped).__name__} cannot render: it needs 'rgb_array' in "
      "metadata['render_modes'], a constructor argument render_mode, and a method render that "
      'returns [H, W, 3] uint8'
    )
  if hasattr(env.unwrapped, 'mujoco_renderer'):  # Every MuJoCo environment of gymnasium has one.
    display.choose_backend()
  has_size = meta_env.attribute(env, 'has_picture_size', False)
  size = {'width': width, 'height': frame.HEIGHT} if has_size else {}
  env.close()
  camera = scenes.Camera(make(render_mode='rgb_array', **size))
  return gymnasium_adapter.GymnasiumAdapter(camera, max_episode_steps=max_episode_steps)


def default_fps(environment: gymnasium_adapter.GymnasiumAdapter) -> float:
  """Returns the frames per second that the family declares; a simulator's last as in reality."""
  metadata = environment.gymnasium_env.unwrapped.metadata or {}
  return float(metadata.get('render_fps') or _DEFAULT_FPS)


class Filmer:
  """Films meta-tests in one environment."""

  def __init__(
    self,
    environment: gymnasium_adapter.GymnasiumAdapter,
    acting: actor.BelievingActor,
    *,
    protocol: meta_testing.MetaTest,
    num_trajectories: int,
    fps: float | None = None,
    on_frame: Callable[[], None] = lambda: None,
    on_trajectory: Callable[[rollout.FinishedEpisode], None] = lambda finished: None,
  ):
    """Prepares the policy.

    Args:
      environment: from `make_environment`.
      acting: the compiled policy and inference.
      protocol: how tasks are met; its first repeat is filmed.
      num_trajectories: films so many, the first ones. A protocol may make more, as trajectories
        that terminate early are shorter.
      fps: frames per second; `default_fps` by default.
      on_frame: called whenever the environment was rendered, or a moment of a point robot drawn.
      on_trajectory: called after each trajectory that is filmed.

    Raises:
      ValueError: if a number is not positive.
    """
    if num_trajectories < 1:
      raise ValueError(f'num_trajectories must be positive, got {num_trajectories}')
    self._fps = default_fps(environment) if fps is None else fps
    if not self._fps > 0:
      raise ValueError(f'fps must be positive, got {fps}')
    self._environment = environment
    self._acting = acting
    self._protocol = protocol
    self._num_trajectories = num_trajectories
    self._on_frame = on_frame
    self._on_trajectory = on_trajectory
    self._rollout = rollout.Rollout([environment], acting)

  def film(
    self, task: types.Task, path: str | os.PathLike, *, seed: np.random.SeedSequence
  ) -> Recording:
    """Meta-tests on a task and writes the video.

    Each trajectory has a frame before its first step and one after each, the last one held.

    Args:
      task: the task.
      path: the MP4.
      seed: source of all randomness.

    Returns:
      What was written.

    Raises:
      MediaError: if videos cannot be encoded here.
      EnvironmentFault: if the environment breaks its contract.
    """
    returns: list[float] = []
    num_frames = limit = 0
    views = self._scenes_of(task, seed)
    hold = math.ceil(_HOLD_SECONDS * self._fps)
    with mp4.Mp4Writer(path, fps=self._fps) as writer:

      def on_episode(finished: rollout.FinishedEpisode) -> None:
        nonlocal num_frames, limit
        if len(returns) == self._num_trajectories:
          return
        rewards = np.cumsum(finished.episode.context_reward, dtype=np.float64)
        running = [0.0, *rewards.tolist()]
        for scene in views.of(finished):
          caption = self._caption(finished, scene, running, returns)
          limit = max(limit, caption.belief_limit)  # An axis that shrinks again would confuse.
          pixels = frame.compose(scene.picture, caption._replace(belief_limit=limit))
          repeats = 1 + hold * (scene.step == len(finished.episode.reward))
          for _ in range(repeats):
            writer.add(pixels)
          num_frames += repeats
        returns.append(running[-1])
        self._on_trajectory(finished)

      self._protocol.run([task], self._rollout, seed=seed, on_episode=on_episode)
    return Recording(writer.path, task, returns, num_frames, self._fps)

  def _scenes_of(self, task: types.Task, seed: np.random.SeedSequence) -> scenes.Scenes:
    env = self._environment.gymnasium_env
    if isinstance(env, scenes.Camera):
      env.start(self._num_trajectories, self._on_frame)
      return scenes.RenderedScenes(env)
    return scenes.PlaneScenes(
      self._acting,
      task,
      num_steps=self._environment.max_episode_steps,
      num_trajectories=self._num_trajectories,
      goal_radius=meta_env.attribute(env, 'goal_radius', 0.0),
      seed=np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, 2)),
      on_frame=self._on_frame,
    )

  def _caption(
    self,
    finished: rollout.FinishedEpisode,
    scene: scenes.Scene,
    running_returns: Sequence[float],
    earlier_returns: Sequence[float],
  ) -> frame.Caption:
    acted_on = source(finished)
    belief = scene.belief or getattr(finished.state, 'posterior', None)
    latent = getattr(finished.state, 'latent', None)
    return frame.Caption(
      task=self._environment.describe_task(finished.task),
      trajectory=finished.index,
      num_trajectories=self._num_trajectories,
      source=acted_on,
      step=scene.step,
      episode_return=running_returns[scene.step],
      earlier_returns=earlier_returns,
      belief=belief,
      belief_title=scene.belief_title or acted_on,
      belief_limit=0 if belief is None else frame.belief_limit(belief, latent),
      latent=latent,
    )


def source(finished: rollout.FinishedEpisode) -> str:
  """Says what the latent was drawn from: 'prior' or 'posterior after 2 trajectories'."""
  if not finished.adapted:
    return 'prior'
  return f'posterior after {finished.index} trajector{"y" if finished.index == 1 else "ies"}'
