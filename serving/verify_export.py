"""Proves that stock TensorFlow Serving can load and run an export, without having it at hand.

  python -m serving.verify_export EXPORT_DIR

EXPORT_DIR is what serving.export wrote, or <model>/ or <model>/<version>/ in it. The signatures and
ops are judged first; then every signature runs in a process without TensorFlow's Python, with XLA
off as in the stock server, and must answer as the model does here. Exits with 1 if it does not.
"""

import dataclasses
import json
import pathlib
import sys

from absl import app, flags

from pearl_tf.programs import program

_FAILED = 1


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_bool('json', False, 'Print the report as JSON.')
  flags.DEFINE_bool('all_versions', False, 'Verify all versions, not only the newest one of each.')


def main(argv: list[str]) -> None:
  """Verifies and prints the report."""
  from serving.verification import export_folder, proof

  if len(argv) != 2:
    raise app.UsageError(f'name one export folder, not {argv[1:]}')
  try:
    version_dirs = export_folder.version_dirs(argv[1], all_versions=flags.FLAGS.all_versions)
  except ValueError as error:
    raise app.UsageError(str(error)) from error
  config = export_folder.config_problems(argv[1])
  report = Report(pathlib.Path(argv[1]), config, flags.FLAGS.json)
  for version_dir in version_dirs:
    report.add(proof.prove(version_dir))
  if not report.finish():
    sys.exit(_FAILED)


class Report:
  """What is printed: a block of lines for each version as it is done, or JSON at the end.

  Args:
    folder: what the user named.
    config_problems: faults of the configuration beside the models.
    as_json: prints nothing but JSON.
  """

  def __init__(self, folder: pathlib.Path, config_problems: list[str], as_json: bool):
    import rich.console

    self._folder = folder
    self._config_problems = config_problems
    self._as_json = as_json
    self._proofs = []
    self._console = rich.console.Console(highlight=False, soft_wrap=True)
    if not as_json:
      self._show('[red]FAIL[/red]', 'configuration', '', config_problems, only_problems=True)

  def add(self, proof) -> None:
    """Takes a `proof.Proof`, and shows it."""
    self._proofs.append(proof)
    if self._as_json:
      return
    self._console.print(str(proof.version_dir), markup=False, style='bold')
    for check in proof.checks:
      mark = '[red]FAIL[/red]' if check.problems else '[green]ok[/green]  '
      mark = mark if check.made else '--  '
      self._show(mark, check.name, check.detail, check.problems)

  def finish(self) -> bool:
    """Prints the verdict, and returns it."""
    failed = [proof for proof in self._proofs if not proof.holds]
    good = not failed and not self._config_problems
    if self._as_json:
      print(json.dumps(self._contents(good), indent=1))
    elif good:
      self._console.print(f'fit to be served: {len(self._proofs)} models', markup=False)
    else:
      self._console.print(
        f'not fit to be served: {len(failed)} of {len(self._proofs)} models failed'
        + (', and so did the configuration' if self._config_problems else ''),
        markup=False,
      )
    return good

  def _show(
    self, mark: str, name: str, detail: str, problems: list[str], only_problems: bool = False
  ) -> None:
    from rich import markup

    if problems or not only_problems:
      text = f'{name}: {detail}' if detail else name
      self._console.print(f'  {mark} {markup.escape(text)}')
    for problem in problems:
      self._console.print(f'       - {problem}', markup=False)

  def _contents(self, good: bool) -> dict:
    return {
      'folder': str(self._folder),
      'fit': good,
      'configuration': self._config_problems,
      'models': [
        {
          'version_dir': str(proof.version_dir),
          'fit': proof.holds,
          'checks': [dataclasses.asdict(check) for check in proof.checks],
        }
        for proof in self._proofs
      ],
    }


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
