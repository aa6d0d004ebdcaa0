"""Adapts to tasks nobody has met, over gRPC, and shows what that brings.

  python -m serving.adapt_demo --server=localhost:8500 --env=pearl/PointRobot-v0

Any server with the exported agent will do, ours or TensorFlow Serving. Each task is a
session of a few trajectories from the same start: the first is acted on the prior, every later one
on the belief from all trajectories before it. Prints the returns side by side.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from absl import app, flags

from pearl_tf.programs import program

if TYPE_CHECKING:
  import rich.table

  from pearl_tf.data import types
  from pearl_tf.environments import gymnasium_adapter
  from serving import client

# Keeps the tasks and starts of this program apart from those of a training run with its seed.
_TASK_STREAM = 7001
_START_STREAM = 7002
# Time limits of the published experiments.
_POINT_ROBOT_STEPS = 20
_STEPS = 200
# A demonstration would rather wait for a busy machine than give up.
_ACT_SECONDS = 5.0
_ADAPT_SECONDS = 20.0
_WIDTH = 120


class Adaptation(NamedTuple):
  """What happened on one task.

  Attributes:
    task: the task.
    description: the task in words.
    returns: of every trajectory, context rewards summed: the first on the prior, the others on the
      belief from all before.
    num_version_changes: how often the model was replaced within a trajectory.
  """

  task: 'types.Task'
  description: str
  returns: tuple[float, ...]
  num_version_changes: int


def unseen_tasks(
  environment: 'gymnasium_adapter.GymnasiumAdapter', number: int, seed: int
) -> list['types.Task']:
  """Draws tasks from the family's distribution, by a seed that no training uses.

  Where the family is a fixed list of tasks, these are the first of the list.
  """
  import numpy as np

  task_seed = np.random.SeedSequence([seed, _TASK_STREAM]).generate_state(1)[0]
  return environment.sample_tasks(number, int(task_seed))


def adapt_to_tasks(
  connection: 'client.Connection',
  environment: 'gymnasium_adapter.GymnasiumAdapter',
  tasks: Sequence['types.Task'],
  *,
  num_episodes: int,
  seed: int,
) -> list[Adaptation]:
  """Adapts to every task in a session of its own.

  Args:
    connection: to a server with an agent of this environment.
    environment: with a time limit.
    tasks: the tasks.
    num_episodes: trajectories per task.
    seed: of starts and latents. All trajectories of a task start alike, so that their returns can
      be compared.

  Returns:
    One record per task.

  Raises:
    ClientError: if the server fails, or its model is not for this environment.
  """
  import numpy as np

  from serving import client

  _check_sizes(connection, environment)
  result = []
  for number, task in enumerate(tasks):
    start_seed = np.random.SeedSequence([seed, _START_STREAM, number]).generate_state(1)[0]
    environment.set_task(task)
    returns = []
    with client.Session(connection, seed=int(start_seed)) as session:
      for _ in range(num_episodes):
        environment.seed(int(start_seed))
        returns.append(_run_episode(session, environment))
        session.adapt()
    description = environment.describe_task(task)
    result.append(Adaptation(task, description, tuple(returns), session.num_version_changes))
  return result


def format_table(results: Sequence[Adaptation], *, title: str) -> 'rich.table.Table':
  """Returns the returns before and after as a table, with their mean over tasks."""
  import rich.table

  table = rich.table.Table(title=title)
  table.add_column('task', no_wrap=True)
  for index in range(len(results[0].returns)):
    heading = 'before (prior)' if index == 0 else f'after {index}'
    table.add_column(heading, justify='right')
  table.add_column('gain', justify='right')

  def add(name: str, returns: Sequence[float], **style: str) -> None:
    gain = returns[-1] - returns[0]
    table.add_row(name, *(f'{value:.2f}' for value in returns), f'{gain:+.2f}', **style)

  for adaptation in results:
    add(adaptation.description, adaptation.returns)
  table.add_section()
  columns = zip(*(adaptation.returns for adaptation in results), strict=True)
  add('mean', [sum(column) / len(column) for column in columns], style='bold')
  return table


def _run_episode(session, environment) -> float:
  """Acts to the end of an episode; returns the sum of the context rewards."""
  total, reward = 0.0, None
  session.begin_episode()
  step = environment.begin_episode()
  while not step.is_last:
    action = session.step(step.observation, reward)
    step = environment.take_step(action.value)
    reward = step.context_reward
    total += reward
  session.end_episode(step.observation, reward)
  return total


def _check_sizes(connection, environment) -> None:
  from serving import client

  _, sizes = connection.describe()
  served = (sizes.observation_size, sizes.action_size)
  wanted = (environment.observation_spec().shape[0], environment.action_spec().shape[0])
  if served != wanted:
    raise client.errors.ModelMismatchError(
      f'the served model takes observations of {served[0]} and gives actions of {served[1]} '
      f'numbers, {environment.name} has {wanted[0]} and {wanted[1]}: is it an agent of another '
      'environment?'
    )


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string('server', None, "The server's gRPC address, host:port.", required=True)
  flags.DEFINE_string('env', 'pearl/PointRobot-v0', 'Task family the agent was trained on.')
  flags.DEFINE_string('model_name', 'pearl', 'Name of the servable.')
  flags.DEFINE_integer('tasks', 3, 'How many unseen tasks.', lower_bound=1)
  flags.DEFINE_integer('episodes', 4, 'Trajectories per task, the first on the prior.', 2)
  flags.DEFINE_integer('seed', 0, 'Seeds tasks, starts and latents.', lower_bound=0)
  flags.DEFINE_integer(
    'episode_steps',
    None,
    f'Time limit of a trajectory; by default {_POINT_ROBOT_STEPS} for the point robots, else '
    f'{_STEPS}.',
    lower_bound=1,
  )
  flags.DEFINE_string('ca_file', None, 'Use TLS; PEM file of the authority of the server.')
  flags.DEFINE_string('key_file', None, "PEM file of the client's key, for mutual TLS.")
  flags.DEFINE_string('cert_file', None, "PEM file of the client's certificate, for mutual TLS.")
  flags.DEFINE_string('token_file', None, 'File with the bearer token.')
  flags.DEFINE_float('connect_seconds', 30.0, 'How long to wait for the server.', 0.001)


def main(argv: list[str]) -> None:
  """Adapts and prints the table."""
  options = flags.FLAGS
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  if (options.key_file is None) != (options.cert_file is None):
    raise app.UsageError('--key_file and --cert_file go together')
  # Here, so that --help and wrong flags are answered without the wait for TensorFlow.
  import rich.console

  from pearl_tf.environments import gymnasium_adapter, registry
  from serving import client

  steps = options.episode_steps
  if steps is None:
    steps = _POINT_ROBOT_STEPS if 'PointRobot' in options.env else _STEPS
  try:
    environment = gymnasium_adapter.GymnasiumAdapter(
      registry.make(options.env), max_episode_steps=steps
    )
    tasks = unseen_tasks(environment, options.tasks, options.seed)
    with client.connect(
      options.server, _client_options(options), wait_seconds=options.connect_seconds
    ) as connection:
      results = adapt_to_tasks(
        connection, environment, tasks, num_episodes=options.episodes, seed=options.seed
      )
  except (ValueError, TypeError, OSError, client.errors.ClientError) as error:
    sys.exit(f'error: {error}')
  title = f'{options.env} at {options.server}: return of each trajectory'
  # A file or a pipe has no width of its own; rich would take 80 columns.
  console = rich.console.Console(width=None if sys.stdout.isatty() else _WIDTH)
  console.print(format_table(results, title=title))


def _client_options(options: flags.FlagValues):
  from serving import client

  tls = None
  if options.ca_file is not None or options.key_file is not None:
    tls = client.Tls(
      ca_file=options.ca_file, key_file=options.key_file, cert_file=options.cert_file
    )
  deadlines = client.Deadlines(act=_ACT_SECONDS, adapt=_ADAPT_SECONDS, begin=_ADAPT_SECONDS)
  return client.Options(
    model_name=options.model_name, tls=tls, token_file=options.token_file, deadlines=deadlines
  )


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
