"""Publishes a trained agent: policy and encoder, small, for --pretrained=NAME of other programs.

  python -m trainers.publish --root_dir=runs/cheetah-dir --checkpoint=best --name=cheetah_dir_plus

Meta-tests the agent on its test tasks with a fresh seed, keeps the result with the weights, and
writes the folder NAME: by default among those shipped with the library (pearl_tf/pretrained/).
"""

from absl import app, flags

from pearl_tf.programs import program


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string('root_dir', None, 'Run folder of the trained agent.', required=True)
  flags.DEFINE_string('name', None, 'What the agent is called.', required=True)
  flags.DEFINE_string(
    'checkpoint', 'best', "'latest', 'best', or name or number of a folder in checkpoints/."
  )
  flags.DEFINE_string(
    'output_dir', None, 'Where the folder is made; by default pearl_tf/pretrained of the library.'
  )
  flags.DEFINE_integer('seed', 1, 'Seeds the meta-test.', lower_bound=0)


def main(argv: list[str]) -> None:
  """Meta-tests, publishes and prints where and how good."""
  options = flags.FLAGS
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  # Here, so that --help and wrong flags are answered without the wait for TensorFlow.
  from pearl_tf.data import files
  from pearl_tf.evaluation import report
  from pearl_tf.experiment import published, trained

  directory = files.output_folder(options.output_dir or published.SHIPPED, '--output_dir')
  agent = trained.load(options.root_dir, options.checkpoint)
  summary = report.summarize(agent.meta_test(seed=options.seed))
  claim = {key: value for key, value in summary.items() if key != 'tasks'}
  about = {
    'checkpoint': agent.name,
    'env_steps': agent.env_steps,
    'meta_test': claim | {'seed': options.seed},
  }
  folder = published.publish(agent.builder, options.root_dir, directory / options.name, about)
  size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
  print(f'published {agent.name} to {folder} ({size:.1f} MB): {report.in_words(claim)}')


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
