"""Measures what a return means: what standing still scores in each domain, and acting at random.

  python -m trainers.returns                          # all shipped domains, into docs/results
  python -m trainers.returns --domain=ant_dir         # one of them

Writes data/returns.json, which trainers.results makes a table of, and a picture a domain: frames of
an episode that stands still, of one that acts at random, and of the trained agent where one is
shipped (in the last episode of its meta-test), on the same task.
"""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from absl import app, flags

from pearl_tf.programs import program

if TYPE_CHECKING:
  import numpy as np

  from pearl_tf.environments import gymnasium_adapter
  from pearl_tf.experiment import experiment as experiment_lib

DOMAINS = {
  'cheetah_dir': 'cheetah_dir_plus',
  'cheetah_vel': 'cheetah_vel_plus',
  'ant_dir': None,
  'ant_rand_dir': None,
  'ant_goal': None,
  'humanoid_dir': None,
  'walker_rand_params': None,
  'hopper_rand_params': None,
  'point_robot': 'demo',
  'sparse_point_robot': None,
}
NUM_FRAMES = 6
_WIDTH, _HEIGHT = 240, 180
_CONFIGS = pathlib.Path(__file__).parent / 'configs'

Act = Callable[['np.ndarray'], 'np.ndarray']


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string('root', 'docs/results', 'Folder of the page.')
  flags.DEFINE_multi_enum('domain', sorted(DOMAINS), sorted(DOMAINS), 'Domain. Repeatable.')
  flags.DEFINE_integer('num_episodes', 30, 'Episodes of each kind and domain.', lower_bound=2)


def _episode(
  environment: 'gymnasium_adapter.GymnasiumAdapter', act: Act, frames: list | None = None
) -> float:
  """Plays an episode and returns its return; collects a frame of every moment."""
  step, total = environment.begin_episode(), 0.0
  while not step.is_last:
    if frames is not None:
      frames.append(environment.gymnasium_env.render())
    step = environment.take_step(act(step.observation))
    total += float(step.context_reward)
  return total


def _untrained(action_size: int) -> dict[str, Act]:
  """Returns what acts without having learned; equal calls act alike."""
  import numpy as np

  random = np.random.default_rng(0)
  return {
    'standing still': lambda observation: np.zeros(action_size, np.float32),
    'at random': lambda observation: random.uniform(-1, 1, action_size).astype(np.float32),
  }


def measure(experiment: 'experiment_lib.Experiment', num_episodes: int) -> dict[str, dict]:
  """Returns mean and standard error of the returns on test tasks, of standing still and at random.

  Args:
    experiment: of the domain.
    num_episodes: of each kind, task after task.
  """
  import numpy as np

  from pearl_tf.experiment import builder as builder_lib

  builder = builder_lib.Builder(experiment)
  environment = builder.environments(1)[0]
  measured = {}
  for name, act in _untrained(builder.domain.action_size).items():
    environment.seed(0)
    returns = []
    for index in range(num_episodes):
      environment.set_task(builder.tasks.test[index % len(builder.tasks.test)])
      returns.append(_episode(environment, act))
    error = float(np.std(returns, ddof=1) / np.sqrt(num_episodes))
    measured[name] = {'mean': round(float(np.mean(returns)), 1), 'error': round(error, 1)}
  return measured


def strips(
  experiment: 'experiment_lib.Experiment', pretrained: str | None
) -> dict[str, list['np.ndarray']]:
  """Returns frames of one episode by what acts.

  Args:
    experiment: of the domain.
    pretrained: name of the trained agent, if one is shipped.
  """
  import numpy as np

  from pearl_tf.environments import gymnasium_adapter, meta_env
  from pearl_tf.evaluation.video import display
  from pearl_tf.experiment import builder as builder_lib
  from pearl_tf.experiment import trained

  task = builder_lib.Builder(experiment).tasks.test[0]
  size = {}
  if meta_env.attribute(experiment.make_environment(), 'has_picture_size', False):
    display.choose_backend()
    size = {'width': _WIDTH, 'height': _HEIGHT}
  environment = gymnasium_adapter.GymnasiumAdapter(
    experiment.make_environment(render_mode='rgb_array', **size),
    max_episode_steps=experiment.training.max_episode_steps,
  )
  environment.set_task(task)
  (action_size,) = environment.action_spec().shape
  acts = _untrained(action_size)
  if pretrained is not None:
    agent = trained.load(pretrained=pretrained)
    training, protocol = agent.builder.training, agent.builder.meta_test
    seen: list = []
    for seed in range(protocol.steps_per_repeat // training.max_episode_steps - 1):
      seen.append(agent.play(task, agent.infer(seen), seed=seed))
    acts[f'trained, after {len(seen)} episodes'] = agent.policy(agent.infer(seen), seed=len(seen))
  found = {}
  for name, act in acts.items():
    environment.seed(0)
    frames: list[np.ndarray] = []
    total = _episode(environment, act, frames)
    chosen = np.linspace(0, len(frames) - 1, NUM_FRAMES).round().astype(int)
    title = f'{name}: return {total:.1f} in {len(frames)} steps'
    found[title] = [frames[index] for index in chosen]
  return found


def _draw(rows: dict[str, list['np.ndarray']], path: pathlib.Path) -> None:
  from matplotlib import figure

  sheet = figure.Figure(figsize=(1.5 * NUM_FRAMES, 1.35 * len(rows)), layout='constrained')
  parts = sheet.subfigures(len(rows), 1, squeeze=False)[:, 0]
  for part, (name, frames) in zip(parts, rows.items(), strict=True):
    part.suptitle(name, fontsize=8, x=0.01, ha='left')
    for axes, frame in zip(part.subplots(1, NUM_FRAMES), frames, strict=True):
      axes.imshow(frame)
      axes.set_axis_off()
  sheet.savefig(path, dpi=130)


def main(argv: Sequence[str]) -> None:
  """Measures, draws and writes; domains that are not asked for keep their numbers."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  from pearl_tf.data import files
  from pearl_tf.experiment import experiment as experiment_lib

  options = flags.FLAGS
  root = pathlib.Path(options.root)
  path = root / 'data' / 'returns.json'
  measured = json.loads(path.read_text()) if path.is_file() else {}
  for domain in options.domain:
    experiment = experiment_lib.load([_CONFIGS / f'{domain}.gin'])
    measured[domain] = measure(experiment, options.num_episodes)
    _draw(strips(experiment, DOMAINS[domain]), root / f'frames_{domain}.jpg')
    print(domain, measured[domain], flush=True)
  ordered = {domain: measured[domain] for domain in DOMAINS if domain in measured}
  files.write_text(path, json.dumps(ordered, indent=1) + '\n')


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
