"""Meta-trains with several processes on this host: replay server, learner, evaluator and N actors.

  python -m trainers.train_distributed --root_dir=runs/cheetah-vel \
    --gin_file=trainers/configs/cheetah_vel.gin --num_actors=2

One line says how it goes; what each process says is in logs/ of the run folder. A process that dies
is started again. Ctrl-C or SIGTERM stops all of them in order, and the same command continues.

The replay server listens at a port of EVERY network interface, without authentication, and cannot
be told otherwise: see "Network" in the README. More hosts: docs/scaling.md.
"""

import pathlib
import sys

from absl import flags

from pearl_tf.programs import program, run_flags


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string('root_dir', None, 'Run folder; made if it does not exist.', required=True)
  flags.DEFINE_integer('num_actors', 2, 'Processes that collect.', lower_bound=1)
  flags.DEFINE_integer(
    'port', None, 'TCP port of the replay server; by default a free one.', 1, 65535
  )
  run_flags.define_experiment()
  run_flags.define_deadline()
  run_flags.define_devices()


def main(argv: list[str]) -> None:
  """Trains; exits with 0 when everything is done, or saved after a signal."""
  options = flags.FLAGS
  run_flags.check(argv, options)
  from pearl_tf.experiment import interruption
  from pearl_tf.launch import group, group_line, start

  # Before anything is started or written.
  start.build(run_flags.load(options))
  root = pathlib.Path(options.root_dir)
  port = options.port or group.free_port()
  with group_line.GroupLine(root) as line, interruption.Interruption() as stop:
    members = group.Group(roles(options, port), root / 'logs', say=line.say)
    finished = members.run(
      is_stopping=lambda: stop.requested is not None, tick=lambda: line.show(members.state())
    )
    line.show(members.state())
  root_dir = options.root_dir
  if finished:
    print(f'finished; next: python -m trainers.evaluate --root_dir={root_dir} --checkpoint=best')
  else:
    print('stopped; everything is saved, the same command continues')


def roles(options: flags.FlagValues, port: int) -> list:
  """Returns the processes, in the order in which they are stopped."""
  from pearl_tf.launch import group

  experiment = [f'--gin_file={path}' for path in options.gin_file]
  experiment += [f'--gin_bindings={binding}' for binding in options.gin_bindings]
  experiment.append(f'--seed={options.seed}')
  client = [f'--server=localhost:{port}', f'--deadline={options.deadline}']
  folder = f'--root_dir={options.root_dir}'
  devices = [] if options.num_gpus is None else [f'--num_gpus={options.num_gpus}']

  def role(name: str, program_name: str, *arguments: str, **end: bool) -> group.Role:
    command = [sys.executable, '-m', f'trainers.{program_name}', *arguments]
    return group.Role(name, command, **end)

  return [
    *(
      role(f'actor-{number}', 'actor', f'--actor={number}', *client)
      for number in range(options.num_actors)
    ),
    role('evaluator', 'evaluator', folder, *experiment, *client, is_awaited=True),
    role('learner', 'learner', folder, *experiment, *client, *devices, is_awaited=True),
    role('replay-server', 'replay_server', f'--port={port}', *experiment),
  ]


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
