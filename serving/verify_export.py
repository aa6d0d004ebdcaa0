"""Verifies that an export can be served, and answers as the agent it came from.

  python -m serving.verify_export EXPORT_DIR

EXPORT_DIR is what serving.export wrote, or <model>/ or <model>/<version>/ in it. Signatures and ops
are judged first (`serving.judge`), for TensorFlow Serving as well. Then the files are loaded as the
server does, and every signature runs on its warm-up records: each must answer as the SavedModel
does by itself, as the agent did when it was exported, the same when repeated, and without regard to
the other rows of its batch. Exits with 1 if one does not.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags

from pearl_tf.programs import program

_FAILED = 1
_MANIFEST = 'assets.extra/pearl_manifest.json'
_UPDATE = 'update'
# A batch of another size takes other matrix kernels, and sums of evidence are as large as 1e7 per
# transition: the last bits move, in proportion to the largest number that was added.
_SAME_NUMBERS = 1e-5
# Layer by layer in Python, and as one graph.
_SAME_AGENT = 1e-3
_ABSOLUTE = 0.1  # Of the above, for numbers near zero.

Arrays = dict[str, np.ndarray]


class Record(NamedTuple):
  """A warm-up record.

  Attributes:
    name: what the report calls it.
    signature: its signature.
    inputs: array by name.
    answer: what the agent said when it was exported, as far as it was recorded.
  """

  name: str
  signature: str
  inputs: Arrays
  answer: Arrays


@dataclasses.dataclass
class Check:
  """One check.

  Attributes:
    name: what is claimed.
    problems: why it is not so; empty if it is.
  """

  name: str
  problems: list[str] = dataclasses.field(default_factory=list)

  def compare(
    self, what: str, expected: Mapping[str, Any], found: Mapping[str, Any], tolerance: float
  ) -> None:
    """Adds a problem for each output that differs; NaN equals NaN."""
    for name in sorted(expected):
      if text := _difference(np.asarray(expected[name]), np.asarray(found[name]), tolerance):
        self.problems.append(f'{what}, output {name!r}: {text}')


def version_dirs(folder: pathlib.Path, *, all_versions: bool = False) -> list[pathlib.Path]:
  """Returns the versions below an export, a model or a version folder.

  Args:
    folder: `EXPORT`, `EXPORT/pearl` or `EXPORT/pearl/3`.
    all_versions: not only the newest one of each model.

  Raises:
    ValueError: if there is none.
  """
  if (folder / 'saved_model.pb').is_file() or folder.name.isdecimal() and not _versions(folder):
    return [folder]
  models = [folder] if _versions(folder) else sorted(folder.glob('[!.]*'))
  found = [_versions(model)[0 if all_versions else -1 :] for model in models]
  # TF-Agents' own export is no servable.
  found = [path for part in found for path in part if path.parent.name != 'policy_saver']
  if not found:
    raise ValueError(
      f'{folder} holds no model; name an export folder of serving.export, or <model>/ or'
      ' <model>/<version>/ in it'
    )
  return found


def verify(version_dir: pathlib.Path) -> list[Check]:
  """Makes all checks of one version; what fails one that later ones need ends them."""
  # Here, so that --help and wrong arguments are answered without the wait for TensorFlow.
  from serving import judge
  from serving.server import errors, servable

  static = Check('signatures and ops', judge.problems(version_dir))
  if static.problems:
    return [static]
  loads = Check('loads and runs as in the server')
  try:
    model = servable.Servable.load(version_dir, name=version_dir.parent.name, version=0)
  except errors.ServingError as error:
    loads.problems.append(str(error))
    return [static, loads]
  try:
    return [static, loads, *_run(version_dir, model, loads)]
  finally:
    model.close()


def _run(version_dir: pathlib.Path, model, loads: Check) -> list[Check]:
  import tensorflow as tf

  from serving.server import errors

  records = _records(version_dir)
  refused = _refused(version_dir)
  covered = Check('every signature has a warm-up record')
  for key in sorted(model.signatures.keys() - {record.signature for record in records} - refused):
    covered.problems.append(f'signature {key!r} has none; a server could not warm it up')
  saved = tf.saved_model.load(str(version_dir))
  alike = Check('answers as the SavedModel by itself')
  agent = Check('answers as the agent did when it was exported')
  repeated = Check('leaves nothing behind')
  batched = Check('rows do not depend on their batch')
  neighbours = Check('faulty rows leave their neighbours alone')

  def run(record: Record, change=lambda value: value) -> Arrays:
    inputs = {name: change(value) for name, value in record.inputs.items()}
    return model.run(record.signature, inputs, tuple(model.find(record.signature).outputs))

  for record in records:
    try:
      answer = run(record)
      twice = run(record, _twice)
      with_faults = run(record, _with_faults)
      again = run(record)
    except errors.ServingError as error:
      loads.problems.append(f'{record.name}, alone or in a batch: {error}')
      continue
    inputs = {name: tf.constant(value) for name, value in record.inputs.items()}
    alike.compare(record.name, saved.signatures[record.signature](**inputs), answer, _SAME_NUMBERS)
    agent.compare(record.name, record.answer, answer, _SAME_AGENT)
    repeated.compare(record.name, answer, again, 0.0)
    doubled = {name: _twice(value) for name, value in answer.items()}
    batched.compare(record.name, doubled, twice, _SAME_NUMBERS)
    first = {name: with_faults[name][: len(value)] for name, value in answer.items()}
    neighbours.compare(record.name, answer, first, _SAME_NUMBERS)
  checks = [covered, alike, repeated, batched, neighbours]
  if any(record.answer for record in records):
    checks.append(agent)
  if refused:
    checks.append(_refusal(model, refused))
  return checks


def _refusal(model, refused: frozenset[str]) -> Check:
  from serving.server import errors

  check = Check('refuses what the manifest says it cannot do')
  for key in refused & model.signatures.keys():
    fields = model.find(key).inputs
    zeros = {
      name: np.zeros([1 if size is None else size for size in field.dims], field.dtype)
      for name, field in fields.items()
    }
    try:
      model.run(key, zeros, tuple(model.find(key).outputs))
      check.problems.append(f'{key} was answered; the manifest says supports_update: false')
    except errors.ServingError as error:
      if error.code.name != 'INVALID_ARGUMENT':
        check.problems.append(f'{key}: {error}')
  return check


def _records(version_dir: pathlib.Path) -> list[Record]:
  """Reads the records that the server has just replayed."""
  import tensorflow as tf

  from serving.server import servable

  records = []
  for number, log in enumerate(servable.records(version_dir)):
    signature = log.request.model_spec.signature_name or 'serving_default'
    inputs = {name: tf.make_ndarray(value) for name, value in log.request.inputs.items()}
    answer = {name: tf.make_ndarray(value) for name, value in log.response.outputs.items()}
    records.append(Record(f'record {number} ({signature})', signature, inputs, answer))
  return records


def _refused(version_dir: pathlib.Path) -> frozenset[str]:
  """Returns the signatures that answer INVALID_ARGUMENT by design: a recurrent model's `update`."""
  path = version_dir / _MANIFEST
  if path.is_file() and not json.loads(path.read_text()).get('supports_update', True):
    return frozenset({_UPDATE})
  return frozenset()


def _versions(model: pathlib.Path) -> list[pathlib.Path]:
  found = [path for path in model.glob('*') if path.name.isdecimal() and path.is_dir()]
  return sorted(found, key=lambda path: int(path.name))


def _twice(value: np.ndarray) -> np.ndarray:
  return np.concatenate([value, value])


def _with_faults(value: np.ndarray) -> np.ndarray:
  """Adds as many rows of NaN or -1, as of a broken client."""
  return np.concatenate([value, np.full_like(value, np.nan if value.dtype.kind == 'f' else -1)])


def _difference(expected: np.ndarray, found: np.ndarray, tolerance: float) -> str | None:
  if (expected.dtype, expected.shape) != (found.dtype, found.shape):
    return f'{found.dtype} {list(found.shape)} instead of {expected.dtype} {list(expected.shape)}'
  scale = max(1.0, float(np.max(np.abs(expected), where=np.isfinite(expected), initial=0.0)))
  near_zero = tolerance * _ABSOLUTE * scale
  if np.allclose(found, expected, rtol=tolerance, atol=near_zero, equal_nan=True):
    return None
  return f'{found.ravel()[:4].tolist()} instead of {expected.ravel()[:4].tolist()}'


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_bool('json', False, 'Print the report as JSON.')
  flags.DEFINE_bool('all_versions', False, 'Verify all versions, not only the newest one of each.')


def report(found: Mapping[pathlib.Path, list[Check]]) -> bool:
  """Prints what was found, by version, and returns whether all is well."""
  import rich.console

  console = rich.console.Console(highlight=False, soft_wrap=True)
  for version_dir, checks in found.items():
    console.print(str(version_dir), markup=False, style='bold')
    for check in checks:
      mark = '[red]FAIL[/red]' if check.problems else '[green]ok[/green]  '
      console.print(f'  {mark} {check.name}')
      for problem in check.problems:
        console.print(f'       - {problem}', markup=False)
  failed = sum(any(check.problems for check in checks) for checks in found.values())
  verdict = f'not fit to be served: {failed} of' if failed else 'fit to be served:'
  console.print(f'{verdict} {len(found)} models')
  return not failed


def main(argv: list[str]) -> None:
  """Verifies and prints the report."""
  if len(argv) != 2:
    raise app.UsageError(f'name one export folder, not {argv[1:]}')
  try:
    versions = version_dirs(pathlib.Path(argv[1]), all_versions=flags.FLAGS.all_versions)
  except ValueError as error:
    raise app.UsageError(str(error)) from error
  found = {version_dir: verify(version_dir) for version_dir in versions}
  if flags.FLAGS.json:
    models = {str(path): list(map(dataclasses.asdict, checks)) for path, checks in found.items()}
    good = not any(check.problems for checks in found.values() for check in checks)
    print(json.dumps({'fit': good, 'models': models}, indent=1))
  else:
    good = report(found)
  if not good:
    sys.exit(_FAILED)


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
