"""Meta-tests a trained agent: how well it does on a task after a few trajectories of it.

  python -m trainers.evaluate --root_dir=runs/cheetah-vel --checkpoint=best
  python -m trainers.evaluate --pretrained=cheetah_dir_plus

Prints a table with a confidence interval over tasks and writes it as JSON into evaluations/ of the
run folder, or of a folder that is named as the published agent. The protocol is the agent's own
unless a flag changes it (docs/algorithm.md, meta-test).
"""

import json
import pathlib

import rich.console
from absl import app, flags

from pearl_tf.programs import agent_flags, program

_PROTOCOL = ('num_repeats', 'steps_per_repeat', 'num_exploration_episodes', 'context_size')


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  agent_flags.define()
  flags.DEFINE_enum('tasks', 'test', ['test', 'train'], 'Which tasks of the run.')
  flags.DEFINE_integer(
    'num_repeats', None, 'Independent repeats per task, each from the prior.', lower_bound=1
  )
  flags.DEFINE_integer(
    'steps_per_repeat', None, 'Transitions per repeat, by whole trajectories.', lower_bound=1
  )
  flags.DEFINE_integer(
    'num_exploration_episodes',
    None,
    'Trajectories on the prior before the belief follows the context.',
    lower_bound=0,
  )
  flags.DEFINE_integer(
    'context_size',
    None,
    'Context transitions drawn with replacement per inference; all of them by default.',
    lower_bound=1,
  )
  flags.DEFINE_bool('stochastic', False, 'Sample actions instead of the mean action.')
  flags.DEFINE_float(
    'confidence', 0.95, 'Probability of the interval over tasks.', lower_bound=0, upper_bound=1
  )
  flags.DEFINE_integer('seed', 0, 'Seeds the meta-test.', lower_bound=0)
  flags.DEFINE_string(
    'output',
    None,
    'JSON file; by default a name in evaluations/ of the run folder that tells the protocol.',
  )
  flags.DEFINE_integer('show_tasks', 10, 'Rows of the table.', lower_bound=1)


def main(argv: list[str]) -> None:
  """Meta-tests, prints the table and writes the JSON."""
  # Here, so that --help and wrong flags are answered without the wait for TensorFlow.
  from pearl_tf.data import files
  from pearl_tf.evaluation import report

  options = flags.FLAGS
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  agent_flags.check(options)
  if options.output is not None:
    files.output_file(options.output, '--output')
  agent = agent_flags.load(options)
  protocol = {name: options[name].value for name in _PROTOCOL if options[name].value is not None}
  result = agent.meta_test(
    agent.tasks.test if options.tasks == 'test' else agent.tasks.train,
    seed=options.seed,
    stochastic=options.stochastic,
    **protocol,
  )
  summary = report.summarize(result, confidence=options.confidence)
  summary |= {
    'checkpoint': agent.name,
    'tasks_of': options.tasks,
    'gradient_steps': int(agent.builder.agent.train_step_counter.numpy()),
    'stochastic': options.stochastic,
    'seed': options.seed,
    'protocol_flags': protocol,
  }
  console = rich.console.Console()
  title = f'{options.root_dir or "published"}, {agent.name}, {options.tasks} tasks'
  console.print(report.format_table(summary, title=title, max_tasks=options.show_tasks))
  if agent.claim is not None:
    console.print(f'published with: {report.in_words(agent.claim)}', highlight=False)
  output = options.output or _default_output(options, agent, protocol)
  files.write_text(pathlib.Path(output), json.dumps(summary, indent=1))
  console.print(f'written to {output}', soft_wrap=True, highlight=False)


def _default_output(options: flags.FlagValues, agent, protocol: dict) -> pathlib.Path:
  """Returns a name that tells the protocol, so that only an identical evaluation replaces it."""
  changes = dict(protocol)
  if options.stochastic:
    changes['stochastic'] = True
  if options.seed:
    changes['seed'] = options.seed
  if options.confidence != 0.95:
    changes['confidence'] = options.confidence
  parts = [agent.name, options.tasks, *(f'{name}={value}' for name, value in changes.items())]
  return agent.outputs / 'evaluations' / f'{"-".join(parts)}.json'


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
