"""Films a trained agent on tasks it has never met: one MP4 per task.

  python -m trainers.record_video --root_dir=runs/cheetah-vel --tasks=3
  python -m trainers.record_video --pretrained=cheetah_dir_plus

Shows the trajectories of a meta-test one after the other, the first acted on the prior, later ones
on the posterior given what was seen, with task, return and belief beside them. Point robots are
shown with the posterior in their plane. Needs the extra 'media'; MuJoCo draws without a display,
through EGL or OSMesa.
"""

import dataclasses
import math
import sys
from typing import TYPE_CHECKING

from absl import app, flags

from pearl_tf.programs import agent_flags, program

if TYPE_CHECKING:
  from pearl_tf.collect import rollout
  from pearl_tf.evaluation import meta_testing


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  agent_flags.define()
  flags.DEFINE_integer('tasks', 3, 'How many test tasks, the first ones.', lower_bound=1)
  flags.DEFINE_integer(
    'episodes',
    None,
    'Trajectories per task; by default as many as the meta-test of the run has.',
    lower_bound=1,
  )
  flags.DEFINE_integer(
    'num_exploration_episodes',
    None,
    'Trajectories on the prior before the belief follows the context.',
    lower_bound=0,
  )
  flags.DEFINE_string(
    'output_dir', None, 'Folder of the videos; by default videos/ of the run folder.'
  )
  flags.DEFINE_float(
    'fps',
    None,
    'Frames per second; by default as fast as in reality. Every step is a frame.',
    lower_bound=0.1,
  )
  flags.DEFINE_integer(
    'width', 640, 'Pixels of the picture of a MuJoCo robot, even.', lower_bound=64
  )
  flags.DEFINE_bool('stochastic', False, 'Sample actions instead of the mean action.')
  flags.DEFINE_integer('seed', 0, 'Seeds the meta-test.', lower_bound=0)


def main(argv: list[str]) -> None:
  """Films, tells what happens and names the files."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  if flags.FLAGS.width % 2:
    raise app.UsageError(f'--width must be even, got {flags.FLAGS.width}')
  agent_flags.check(flags.FLAGS)
  # Here, so that --help and wrong flags are answered without the wait for TensorFlow.
  from pearl_tf.evaluation.video import display, mp4, scenes

  try:
    mp4.require()
    _record(flags.FLAGS)
  except (scenes.VideoError, display.DisplayError, mp4.MediaError) as error:
    sys.exit(f'error: {error}')


def _record(options: flags.FlagValues) -> None:
  import rich.console
  import rich.progress

  from pearl_tf.data import files, seeds
  from pearl_tf.evaluation.video import film

  if options.output_dir is not None:
    files.output_folder(options.output_dir, '--output_dir')
  agent = agent_flags.load(options)
  folder = files.output_folder(options.output_dir or agent.outputs / 'videos', '--output_dir')
  builder = agent.builder
  max_steps = builder.training.max_episode_steps
  protocol, num_trajectories = _protocol(options, builder.meta_test, max_steps)
  environment = film.make_environment(
    builder.experiment.make_environment, max_episode_steps=max_steps, width=options.width
  )
  tasks = builder.tasks.test[: options.tasks]
  console = rich.console.Console(soft_wrap=True, highlight=False)
  with rich.progress.Progress(
    *rich.progress.Progress.get_default_columns(),
    rich.progress.MofNCompleteColumn(),
    console=console,
    transient=True,
    disable=not console.is_terminal,
  ) as progress:
    frames = progress.add_task('frames', total=len(tasks) * num_trajectories * (max_steps + 1))
    filmer = film.Filmer(
      environment,
      builder.make_actor(deterministic=not options.stochastic),
      protocol=protocol,
      num_trajectories=num_trajectories,
      fps=options.fps,
      on_frame=lambda: progress.advance(frames),
      on_trajectory=lambda finished: console.print(_line(finished), markup=False),
    )
    for number, task in enumerate(tasks):
      words = environment.describe_task(task)
      console.print(f'task {task.index} ({number + 1} of {len(tasks)}): {words}', markup=False)
      recording = filmer.film(
        task,
        folder / f'{agent.name}-task{task.index:03d}.mp4',
        seed=seeds.sequence(options.seed, seeds.Stream.META_TEST, number),
      )
      seconds = recording.num_frames / recording.fps
      console.print(f'  written to {recording.path} ({seconds:.0f} s)', markup=False)
  environment.close()


def _protocol(
  options: flags.FlagValues, configured: 'meta_testing.MetaTest', max_steps: int
) -> tuple['meta_testing.MetaTest', int]:
  """Returns the run's protocol with what the flags change, and how many trajectories it shows."""
  changes = {}
  if options.num_exploration_episodes is not None:
    changes['num_exploration_episodes'] = options.num_exploration_episodes
  if options.episodes is not None:
    # By whole trajectories, so that there are enough of them however early they end.
    changes['steps_per_repeat'] = options.episodes * max_steps
  protocol = dataclasses.replace(configured, num_repeats=1, **changes)
  return protocol, math.ceil(protocol.steps_per_repeat / max_steps)


def _line(finished: 'rollout.FinishedEpisode') -> str:
  from pearl_tf.evaluation.video import film

  returns = float(finished.episode.context_reward.sum(dtype='float64'))
  return f'  trajectory {finished.index + 1} ({film.source(finished)}): return {returns:.1f}'


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
