"""Exports a trained agent as SavedModels that TensorFlow Serving loads.

  python -m serving.export --root_dir=runs/cheetah-vel --export_dir=exports/cheetah-vel
  python -m serving.export --pretrained=cheetah_dir_plus --export_dir=exports/cheetah-dir

Each call adds a version to DIR/pearl (encoder and policy in one), DIR/pearl_encoder and
DIR/pearl_policy, and keeps the newest. DIR/models.config and DIR/batching.config are the
configuration of a stock server.
"""

from absl import app, flags

from pearl_tf.programs import agent_flags, program


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  agent_flags.define(checkpoint='best')
  flags.DEFINE_string(
    'export_dir', None, 'Where versions are added; by default export/ of the run folder.'
  )
  flags.DEFINE_integer('keep', 2, 'Versions to keep, the newest ones.', lower_bound=1)
  flags.DEFINE_bool(
    'policy_saver', False, "Write TF-Agents' own export of the policy to DIR/policy_saver, too."
  )


def main(argv: list[str]) -> None:
  """Exports and prints where."""
  options = flags.FLAGS
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  agent_flags.check(options)
  # Not above: --help and wrong flags are answered at once, without loading TensorFlow.
  from pearl_tf.data import files
  from pearl_tf.experiment import run_exporter

  if options.export_dir is not None:
    files.output_folder(options.export_dir, '--export_dir')
  agent = agent_flags.load(options)
  directory = files.output_folder(options.export_dir or agent.exports, '--export_dir')
  exporter = run_exporter.RunExporter(
    agent.builder,
    directory,
    keep=options.keep,
    with_policy_saver=options.policy_saver,
  )
  version = exporter.export(agent.env_steps)
  print(f'exported {agent.name} as version {version} to {directory}')


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
