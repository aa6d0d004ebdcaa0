import functools
import os
import resource
import subprocess
import sys
import time
from unittest import mock

import imageio.v2
import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.collect import actor
from pearl_tf.data import files, types
from pearl_tf.environments import half_cheetah, point_robot
from pearl_tf.evaluation import calibration, meta_testing
from pearl_tf.evaluation.video import display, film, frame, mp4, plane, scenes
from pearl_tf.testing import fakes, test_case

SEED = np.random.SeedSequence([7])
GOAL = np.array([0.6, -0.8], np.float32)
STEPS = 4


class GoalActing(actor.BelievingActor):
  """Walks to its latent; the belief is a Gaussian around `GOAL` that narrows with the context."""

  def prior(self):
    return types.Posterior(np.zeros(2, np.float32), np.ones(2, np.float32))

  def infer(self, contexts):
    sizes = np.array([[len(context.reward)] for context in contexts], np.float32)
    mean = GOAL * sizes / (1 + sizes)
    return types.Posterior(mean, np.broadcast_to(1 / (1 + sizes) ** 2, mean.shape))

  def act(self, observation, step_type, reward, state, seed):
    noise = np.random.default_rng(seed).standard_normal(state.latent.shape)
    belief = state.posterior
    drawn = belief.mean + np.sqrt(belief.variance) * noise
    latent = np.where(step_type[:, None] == 0, drawn, state.latent).astype(np.float32)
    action = (latent - observation) / point_robot.MAX_STEP
    return np.clip(action, -1, 1).astype(np.float32), state._replace(latent=latent)


class RestlessActing(GoalActing):
  """Does something in the six joints of a half-cheetah."""

  def act(self, observation, step_type, reward, state, seed):
    drawn = np.random.default_rng(seed).uniform(-1, 1, (len(observation), 6))
    return drawn.astype(np.float32), state


class Screen(fakes.Line):
  """A line that renders small pictures whose brightness is the number of the step."""

  metadata = {'render_modes': ['rgb_array'], 'render_fps': 5}

  def __init__(self, render_mode=None, broken=False, **kwargs):
    super().__init__(**kwargs)
    self.render_mode = render_mode
    self._broken = broken

  def reset(self, **kwargs):
    self._step = 0
    return super().reset(**kwargs)

  def step(self, action):
    self._step += 1
    return super().step(action)

  def render(self):
    return None if self._broken else np.full((48, 64, 3), 40 * self._step, np.uint8)


def decode(path):
  with imageio.v2.get_reader(path) as reader:
    return np.stack(list(reader.iter_data())), reader.get_meta_data()


def finished_frames(num_trajectories, fps, steps=STEPS):
  return num_trajectories * (steps + 1 + int(np.ceil(0.75 * fps)))


class FilmTest(test_case.TestCase):
  def film(self, make, acting, task, *, num_trajectories=2, protocol=None, **options):
    environment = film.make_environment(make, max_episode_steps=STEPS, width=160)
    self.addCleanup(environment.close)
    filmer = film.Filmer(
      environment,
      acting,
      protocol=meta_testing.MetaTest(
        num_repeats=1, steps_per_repeat=STEPS * num_trajectories, **(protocol or {})
      ),
      num_trajectories=num_trajectories,
      **options,
    )
    return filmer.film(task, self.temp_dir() / 'film.mp4', seed=SEED)

  def test_mujoco(self):
    task = types.Task(5, np.array([1.0], np.float32))
    frames_rendered, ended = [], []
    recording = self.film(
      half_cheetah.HalfCheetahVel,
      RestlessActing(),
      task,
      on_frame=lambda: frames_rendered.append(1),
      on_trajectory=lambda finished: ended.append(film.source(finished)),
    )
    frames, metadata = decode(recording.path)
    self.assertEqual(
      frames.shape,
      (finished_frames(2, 20), frame.HEIGHT, 160 + frame.PANEL_WIDTH, 3),
    )
    self.assertEqual((recording.num_frames, recording.fps), (len(frames), 20.0))
    self.assertEqual(metadata['fps'], 20)
    self.assertLen(recording.returns, 2)
    self.assertLen(frames_rendered, 2 * (STEPS + 1))
    self.assertEqual(ended, ['prior', 'posterior after 1 trajectory'])
    for step in range(STEPS):
      robot = frames[step : step + 2, :, :160].astype(float)
      self.assertGreater(np.abs(robot[1] - robot[0]).mean(), 0.3)
    # The last one stands still.
    self.assertLess(np.abs(frames[-1].astype(float) - frames[-5]).mean(), 1.0)

  def test_point_robot_is_drawn_with_the_posterior_in_the_plane(self):
    clouds = []
    draw = plane.draw

    def watch(goal, paths, cloud, **kwargs):
      clouds.append((len(paths), len(paths[-1].positions), cloud))
      return draw(goal, paths, cloud, **kwargs)

    with mock.patch.object(plane, 'draw', watch):
      recording = self.film(point_robot.PointRobot, GoalActing(), types.Task(0, GOAL), fps=2)
    frames, _ = decode(recording.path)
    self.assertEqual(frames.shape, (finished_frames(2, 2), 480, plane.SIZE + frame.PANEL_WIDTH, 3))
    shown = [(paths, positions) for paths, positions, _ in clouds]
    self.assertEqual(shown, [(t, s) for t in (1, 2) for s in range(1, STEPS + 2)])
    first, last = clouds[0][2], clouds[-1][2]
    self.assertEqual(first.shape, (calibration.NUM_SAMPLES, 2))
    self.assertLess(last.std(axis=0).max(), 0.6 * first.std(axis=0).max())

  def test_only_the_first_trajectories_are_filmed_where_they_end_early(self):
    recording = self.film(
      Screen,
      fakes.ScriptedActing(),
      fakes.line_tasks(1)[0],
      num_trajectories=3,
    )
    full = recording.num_frames
    recording = self.film(
      functools.partial(Screen, termination_probability=1.0),
      fakes.ScriptedActing(),
      fakes.line_tasks(1)[0],
      num_trajectories=3,
    )
    self.assertLen(recording.returns, 3)
    self.assertEqual((full, recording.num_frames), tuple(finished_frames(3, 5, s) for s in (4, 1)))

  def test_pictures_are_those_of_the_step_they_are_captioned_with(self):
    captions = []
    compose = frame.compose

    def watch(scene, caption):
      captions.append((caption, int(scene[0, 0, 0])))
      return compose(scene, caption)

    with mock.patch.object(frame, 'compose', watch):
      recording = self.film(
        Screen,
        fakes.ScriptedActing(),
        fakes.line_tasks(1)[0],
        num_trajectories=3,
        protocol={'num_exploration_episodes': 2},
      )
    self.assertEqual(
      [(one.trajectory, one.step, shade) for one, shade in captions],
      [(t, s, 40 * s) for t in range(3) for s in range(STEPS + 1)],
    )
    last_of_each = [one for one, _ in captions if one.step == STEPS]
    self.assertEqual([one.episode_return for one in last_of_each], recording.returns)
    self.assertEqual(
      [one.belief_title for one in last_of_each],
      ['prior', 'prior', 'posterior after 2 trajectories'],
    )
    self.assertEqual(last_of_each[2].belief.variance, 2 * STEPS)
    self.assertStartsWith(last_of_each[0].task, 'goal ')
    self.assertEqual(recording.fps, 5)

  def test_a_family_that_cannot_render_is_named(self):
    with self.assertRaisesRegex(scenes.VideoError, 'Line cannot render.*render_modes'):
      film.make_environment(fakes.Line, max_episode_steps=STEPS)

  def test_what_is_no_picture_is_refused(self):
    broken = functools.partial(Screen, broken=True)
    with self.assertRaisesRegex(Exception, r'render of Screen must return .* got NoneType'):
      self.film(broken, fakes.ScriptedActing(), fakes.line_tasks(1)[0])

  @parameterized.parameters(({'num_trajectories': 0}, 'positive, got 0'), ({'fps': 0}, 'got 0'))
  def test_impossible_numbers_are_refused(self, options, message):
    arguments = {'protocol': meta_testing.MetaTest(), 'num_trajectories': 1, **options}
    environment = film.make_environment(Screen, max_episode_steps=STEPS)
    with self.assertRaisesRegex(ValueError, message):
      film.Filmer(environment, fakes.ScriptedActing(), **arguments)


class FrameTest(test_case.TestCase):
  def caption(self, **changes):
    belief = types.Posterior(np.zeros(5, np.float32), np.full(5, 0.25, np.float32))
    defaults = dict(
      task='go',
      trajectory=1,
      num_trajectories=3,
      source='prior',
      step=7,
      episode_return=-12.34,
      earlier_returns=[-20.0],
      belief=belief,
      belief_title='prior',
      belief_limit=2,
      latent=np.zeros(5, np.float32),
    )
    return frame.Caption(**{**defaults, **changes})

  @parameterized.parameters(
    {'task': 'stop'},
    {'step': 8},
    {'episode_return': 3.0},
    {'earlier_returns': [-20.5]},
    {'source': 'posterior after 1'},
    {'belief_title': 'posterior after 1'},
    {'belief': types.Posterior(np.ones(5), np.full(5, 0.25))},
    {'belief': types.Posterior(np.zeros(5), np.full(5, 0.01))},
    {'latent': np.ones(5)},
    {'trajectory': 2},
  )
  def test_every_part_of_the_caption_is_seen(self, **changes):
    scene = np.zeros((480, 320, 3), np.uint8)
    before = frame.compose(scene, self.caption())
    after = frame.compose(scene, self.caption(**changes))
    self.assertGreater(np.sum(before != after), 30)
    self.assertAllEqual(after[:, :320], scene)

  def test_pictures_are_scaled_to_one_height(self):
    pixels = frame.compose(np.zeros((100, 151, 3), np.uint8), self.caption())
    self.assertEqual(pixels.shape[0], 480)
    self.assertEqual((pixels.shape[1] - frame.PANEL_WIDTH) % 2, 0)

  @parameterized.parameters(1, 5, 20)
  def test_nothing_is_cut_at_the_edges(self, latent_size):
    caption = self.caption(
      task='dynamics, typically mass ×1.21, inertia ×0.93, damping ×1.10, friction ×0.90 and more',
      belief=types.Posterior(np.full(latent_size, 2.0), np.ones(latent_size)),
      belief_limit=3,
      latent=np.full(latent_size, -3.0),
      earlier_returns=[-12345.6] * 9,
    )
    pixels = frame.compose(np.zeros((480, 4, 3), np.uint8), caption)
    edge = np.concatenate([pixels[:4, 8:].ravel(), pixels[-4:, 8:].ravel(), pixels[:, -4:].ravel()])
    self.assertAllEqual(edge, np.full_like(edge, 255))

  def test_the_axis_holds_belief_and_latent(self):
    belief = types.Posterior(np.array([2.5, 0.0]), np.array([1.0, 0.1]))
    self.assertEqual(frame.belief_limit(belief, np.zeros(2)), 4)
    self.assertEqual(frame.belief_limit(belief, np.array([0.0, -5.2])), 6)

  def test_lines_are_broken_where_they_are_too_long(self):
    lines = frame.wrap('one two three four five six', size=17, width=100)
    self.assertEqual(' '.join(lines), 'one two three four five six')
    self.assertGreater(len(lines), 1)
    self.assertLess(max(frame.font(17).getlength(line) for line in lines), 100)


class FileTest(test_case.TestCase):
  @parameterized.parameters(KeyboardInterrupt, RuntimeError)
  def test_nothing_is_left_of_half_a_video(self, error):
    path = self.temp_dir() / 'folder' / 'film.mp4'
    with self.assertRaises(error), mp4.Mp4Writer(path, fps=5) as writer:
      for _ in range(1000):  # Until the encoder, a process of its own, has begun to write.
        writer.add(np.zeros((64, 64, 3), np.uint8))
        if begun := list(path.parent.iterdir()):
          break
        time.sleep(0.02)
      self.assertLen(begun, 1)
      raise error
    self.assertEmpty(list(path.parent.iterdir()))

  def test_an_older_video_is_replaced_only_by_a_whole_one(self):
    path = self.temp_dir() / 'film.mp4'
    path.write_text('old')
    with self.assertRaises(KeyError), mp4.Mp4Writer(path, fps=5) as writer:
      writer.add(np.zeros((64, 64, 3), np.uint8))
      raise KeyError
    self.assertEqual(path.read_text(), 'old')
    with mp4.Mp4Writer(path, fps=5) as writer:
      writer.add(np.zeros((64, 64, 3), np.uint8))
    self.assertEqual(decode(path)[0].shape, (1, 64, 64, 3))
    self.assertLen(list(path.parent.iterdir()), 1)

  def test_a_disk_that_takes_only_the_beginning_leaves_nothing(self):
    path = self.temp_dir() / 'film.mp4'
    noise = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
    with (
      self.assertRaisesRegex(files.FileError, 'film.mp4 cannot be written: 0 of 30 frames'),
      mp4.Mp4Writer(path, fps=5) as writer,
    ):
      resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
      writer.add(noise[0])  # Starts the encoder, which inherits the limit.
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
      for picture in noise[1:]:
        writer.add(picture)
    self.assertEmpty(list(path.parent.iterdir()))

  @parameterized.parameters('imageio_ffmpeg', 'imageio.v2', 'PIL.ImageDraw')
  def test_a_missing_package_is_named_with_the_command(self, package):
    with (
      mock.patch.dict(sys.modules, {package: None}),
      self.assertRaisesRegex(mp4.MediaError, f'{package}.*pip install -e .*media'),
    ):
      mp4.Mp4Writer(self.temp_dir() / 'film.mp4', fps=5)

  def test_a_missing_encoder_is_named(self):
    with (
      mock.patch('imageio_ffmpeg.get_ffmpeg_exe', side_effect=RuntimeError('none found')),
      self.assertRaisesRegex(mp4.MediaError, 'finds no ffmpeg .none found.; install'),
    ):
      mp4.require()

  @parameterized.parameters(('film.mp4', 0), ('film.gif', 5))
  def test_impossible_files_are_refused(self, name, fps):
    with self.assertRaisesRegex(ValueError, 'got'):
      mp4.Mp4Writer(self.temp_dir() / name, fps=fps)


class DisplayTest(test_case.TestCase):
  def choose(self, working, **environment):
    """Chooses where these backends work; returns the choice and what it set."""

    def run(command, **kwargs):
      works = command[-1] in working
      return subprocess.CompletedProcess(command, 0 if works else 1, '', 'Traceback\nno library')

    with (
      mock.patch.dict(os.environ, environment, clear=True),
      mock.patch.object(subprocess, 'run', run),
    ):
      return display.choose_backend(), dict(os.environ)

  @parameterized.parameters((('egl', 'osmesa'), 'egl'), (('osmesa',), 'osmesa'))
  def test_egl_then_osmesa(self, working, expected):
    chosen, variables = self.choose(working)
    self.assertEqual(chosen, expected)
    self.assertEqual(variables, {'MUJOCO_GL': expected, 'PYOPENGL_PLATFORM': expected})

  def test_the_users_choice_is_tried_alone(self):
    self.assertEqual(self.choose(('egl', 'osmesa'), MUJOCO_GL='osmesa')[0], 'osmesa')
    with self.assertRaisesRegex(display.DisplayError, r'osmesa: no library.*\n.*unset'):
      self.choose(('egl',), MUJOCO_GL='osmesa')

  def test_none_says_what_was_tried_and_what_to_install(self):
    message = r'egl: no library\n  osmesa: no library\nInstall .*libegl1.*libosmesa6'
    with self.assertRaisesRegex(display.DisplayError, message):
      self.choose(())

  def test_a_backend_that_does_not_exist_fails_for_real(self):
    with (
      mock.patch.dict(os.environ, {'MUJOCO_GL': 'nowhere'}),
      self.assertRaisesRegex(display.DisplayError, 'nowhere: .*MUJOCO_GL: nowhere'),
    ):
      display.choose_backend()


if __name__ == '__main__':
  absltest.main()
