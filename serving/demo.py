"""The demonstration to its end: trains as trainers.demo does, then serves what it has learned.

  python -m serving.demo --root_dir=runs/demo
  python -m serving.demo --pretrained=NAME

After the training, and the table of trainers.demo, the exported agent is verified, a server is
started, and three tasks never met in training are adapted to over gRPC: the first trajectory of
each is acted on the prior, later ones on the belief that the server inferred. The server is stopped
in the end. Continues where it stopped if it was interrupted.
"""

import pathlib
import sys

from absl import flags

from pearl_tf.programs import program
from trainers import demo as training_demo

_NUM_TASKS = 3
_NUM_EPISODES = 4
_MODEL = 'pearl'
# A demonstration would rather wait for a busy machine than give up.
_DEADLINE_SECONDS = 20.0


def define_flags() -> None:
  """Defines the options, those of the training and a way around it."""
  training_demo.define_flags()
  flags.DEFINE_string(
    'pretrained', None, 'Serves a published agent of this name or folder instead of training one.'
  )


def main(argv: list[str]) -> None:
  """Trains, then verifies, serves, adapts and prints."""
  options = flags.FLAGS
  if options.pretrained is None:
    training_demo.main(argv)
  # Here, so that --help and wrong flags are answered without the wait for TensorFlow.
  from pearl_tf.experiment import run_exporter, trained

  root_dir = options.root_dir if options.pretrained is None else None
  agent = trained.load(root_dir, pretrained=options.pretrained)
  if agent.claim is not None:
    run_exporter.RunExporter(agent.builder, agent.exports, keep=1).export(agent.env_steps)
  _verify(agent.exports)
  _serve_and_adapt(agent, seed=options.seed)


def _verify(export_dir: pathlib.Path) -> None:
  """Verifies that the newest exports can be served; exits if they cannot."""
  from serving import verify_export

  _say(f'exported to {export_dir}; does it load, and answer as the agent?')
  versions = verify_export.version_dirs(export_dir)
  if not verify_export.report({path: verify_export.verify(path) for path in versions}):
    sys.exit(program.EXIT_ERROR)


def _serve_and_adapt(agent, *, seed: int) -> None:
  """Starts a server, adapts to unseen tasks through it, prints the returns and stops it."""
  import rich.console

  from serving import adapt_demo, client
  from serving.server import options, process

  settings = options.ServerOptions(
    model_name=_MODEL, model_base_path=str((agent.exports / _MODEL).resolve()), port=0
  )
  deadlines = client.Deadlines(
    act=_DEADLINE_SECONDS, adapt=_DEADLINE_SECONDS, begin=_DEADLINE_SECONDS
  )
  _say('starting the server ...')
  with (
    process.running(settings) as server,
    client.connect(
      server.address, client.Options(model_name=_MODEL, deadlines=deadlines)
    ) as connection,
  ):
    results = adapt_demo.adapt_to_tasks(
      connection,
      agent.builder.environments(1)[0],
      agent.tasks.test[:_NUM_TASKS],
      num_episodes=_NUM_EPISODES,
      seed=seed,
    )
    title = f'{_NUM_TASKS} of these tasks, adapted to over gRPC at {server.address}'
    rich.console.Console().print(adapt_demo.format_table(results, title=title))
  _say('the server is stopped; to start it again:')
  _say(
    f'  python -m serving.server --model_name={_MODEL} --model_base_path={settings.model_base_path}'
  )


def _say(text: str) -> None:
  import rich.console

  rich.console.Console(soft_wrap=True, highlight=False).print(text, markup=False)


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
