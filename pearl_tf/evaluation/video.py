"""Videos of a meta-test: how an agent finds out what a task wants.

This module owns what is filmed: the trajectories of `meta_test.MetaTest`, one file per task, with
the belief they were acted on. Environments that render are filmed as they are; point robots are
drawn with the posterior in their plane. How frames look is the matter of `video_frame` and
`video_plane`, the encoding that of `video_file`.
"""

import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import gymnasium
import numpy as np
from gymnasium.envs import mujoco as gymnasium_mujoco

from pearl_tf.collect import acting, rollout, session
from pearl_tf.data import types
from pearl_tf.environments import (
  gymnasium_adapter,
  mujoco_meta_env,
  point_robot,
  rand_params,
  registry,
)
from pearl_tf.evaluation import (
  meta_test,
  video_display,
  video_file,
  video_frame,
  video_scenes,
)

DEFAULT_WIDTH = 640
_DEFAULT_FPS = 20.0
_POINT_ROBOT_FPS = 6.0
# The end of a trajectory stays on the screen, so that its return can be read.
_HOLD_SECONDS = 0.75
# The cameras of walker and hopper, of 45 degrees, cut off their feet.
_MIN_CAMERA_DEGREES = {rand_params.RandParams: 60.0}
# Shadows in full quality take half of the time where a processor draws.
_SHADOW_PIXELS = 1024


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
  family: gymnasium.Env, *, max_episode_steps: int, width: int = DEFAULT_WIDTH
) -> gymnasium_adapter.GymnasiumAdapter:
  """Makes an environment of the configured family that can be filmed.

  Args:
    family: an environment of that family, as `registry.make` returns it without arguments.
    max_episode_steps: time limit of every trajectory.
    width: pixels of the picture of a MuJoCo robot, which is `video_frame.HEIGHT` high.

  Raises:
    VideoError: if the family cannot render.
    DisplayError: if MuJoCo cannot draw here.
    ValueError: if `width` is not a positive even number.
  """
  if width < 2 or width % 2:
    raise ValueError(f'width must be a positive even number, got {width}')
  base = family.unwrapped
  if isinstance(base, point_robot.PointRobot):
    env = registry.make()
    return gymnasium_adapter.GymnasiumAdapter(env, max_episode_steps=max_episode_steps)
  if 'rgb_array' not in (base.metadata or {}).get('render_modes', ()):
    raise video_scenes.VideoError(
      f"{type(base).__name__} cannot render: it needs 'rgb_array' in metadata['render_modes'], a "
      'constructor argument render_mode, and a method render that returns [H, W, 3] uint8'
    )
  size = {}
  if isinstance(base, gymnasium_mujoco.MujocoEnv):
    video_display.choose_backend()
    if isinstance(base, mujoco_meta_env.MujocoMetaEnv):
      size = {'width': width, 'height': video_frame.HEIGHT}
  env = registry.make(render_mode='rgb_array', **size)
  if size:
    model = env.unwrapped.model
    model.vis.quality.shadowsize = min(model.vis.quality.shadowsize, _SHADOW_PIXELS)
    for kind, degrees in _MIN_CAMERA_DEGREES.items():
      if isinstance(base, kind):
        model.cam_fovy[:] = np.maximum(model.cam_fovy, degrees)
  return gymnasium_adapter.GymnasiumAdapter(
    video_scenes.Camera(env), max_episode_steps=max_episode_steps
  )


def default_fps(environment: gymnasium_adapter.GymnasiumAdapter) -> float:
  """Returns the speed at which a second of the simulation lasts a second, where there is one."""
  base = environment.gymnasium_env.unwrapped
  if isinstance(base, point_robot.PointRobot):
    return _POINT_ROBOT_FPS
  if isinstance(base, gymnasium_mujoco.MujocoEnv):
    return 1.0 / base.dt
  return float(base.metadata.get('render_fps') or _DEFAULT_FPS)


class Filmer:
  """Films meta-tests in one environment."""

  def __init__(
    self,
    environment: gymnasium_adapter.GymnasiumAdapter,
    acting_fns: acting.Acting,
    *,
    protocol: meta_test.MetaTest,
    num_trajectories: int,
    fps: float | None = None,
    on_frame: Callable[[], None] = lambda: None,
    on_trajectory: Callable[[rollout.FinishedEpisode], None] = lambda finished: None,
  ):
    """Prepares the policy.

    Args:
      environment: from `make_environment`.
      acting_fns: the compiled policy and inference.
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
    self._acting = acting_fns
    self._protocol = protocol
    self._num_trajectories = num_trajectories
    self._on_frame = on_frame
    self._on_trajectory = on_trajectory
    self._rollout = rollout.Rollout([environment], acting_fns)

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
    scenes = self._scenes_of(task, seed)
    hold = math.ceil(_HOLD_SECONDS * self._fps)
    with video_file.Mp4Writer(path, fps=self._fps) as writer:

      def on_episode(finished: rollout.FinishedEpisode) -> None:
        nonlocal num_frames, limit
        if len(returns) == self._num_trajectories:
          return
        rewards = np.cumsum(finished.episode.context_reward, dtype=np.float64)
        running = [0.0, *rewards.tolist()]
        for scene in scenes.of(finished):
          caption = self._caption(finished, scene, running, returns)
          limit = max(limit, caption.belief_limit)  # An axis that shrinks again would confuse.
          frame = video_frame.compose(scene.picture, caption._replace(belief_limit=limit))
          repeats = 1 + hold * (scene.step == len(finished.episode.reward))
          for _ in range(repeats):
            writer.add(frame)
          num_frames += repeats
        returns.append(running[-1])
        self._on_trajectory(finished)

      self._protocol.run([task], _Watched(self._rollout, on_episode), seed=seed)
    return Recording(writer.path, task, returns, num_frames, self._fps)

  def _scenes_of(self, task: types.Task, seed: np.random.SeedSequence) -> video_scenes.Scenes:
    env = self._environment.gymnasium_env
    if isinstance(env, video_scenes.Camera):
      env.start(self._num_trajectories, self._on_frame)
      return video_scenes.RenderedScenes(env)
    return video_scenes.PlaneScenes(
      self._acting,
      task,
      num_steps=self._environment.max_episode_steps,
      num_trajectories=self._num_trajectories,
      goal_radius=env.unwrapped.goal_radius,
      seed=np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, 2)),
      on_frame=self._on_frame,
    )

  def _caption(
    self,
    finished: rollout.FinishedEpisode,
    scene: video_scenes.Scene,
    running_returns: Sequence[float],
    earlier_returns: Sequence[float],
  ) -> video_frame.Caption:
    acted_on = source(finished)
    belief, latent = scene.belief or finished.policy_state.posterior, finished.policy_state.latent
    return video_frame.Caption(
      task=self._environment.describe_task(finished.task),
      trajectory=finished.index,
      num_trajectories=self._num_trajectories,
      source=acted_on,
      step=scene.step,
      episode_return=running_returns[scene.step],
      earlier_returns=earlier_returns,
      belief=belief,
      belief_title=scene.belief_title or acted_on,
      belief_limit=video_frame.belief_limit(belief, latent),
      latent=latent,
    )


def source(finished: rollout.FinishedEpisode) -> str:
  """Says what the latent was drawn from: 'prior' or 'posterior after 2 trajectories'."""
  if not finished.adapted:
    return 'prior'
  return f'posterior after {finished.index} trajector{"y" if finished.index == 1 else "ies"}'


class _Watched:
  """A roll-out whose episodes go to a second listener, too."""

  def __init__(self, inner: rollout.Rollout, listener: Callable[[rollout.FinishedEpisode], None]):
    self._inner = inner
    self._listener = listener

  def run(
    self,
    sessions: Sequence[session.Session],
    *,
    seed: np.random.SeedSequence,
    on_episode: Callable[[rollout.FinishedEpisode], None],
  ) -> int:
    def both(finished: rollout.FinishedEpisode) -> None:
      self._listener(finished)
      on_episode(finished)

    return self._inner.run(sessions, seed=seed, on_episode=both)
