"""The proof that a stock server can serve one version of a model, check by check.

First the file is judged as it lies; then every signature runs in a process without TensorFlow's
Python, and the answers are compared with those of the model in this process, with themselves in
another batch and at another time, and with those that the exporter recorded of the trained agent.
"""

import dataclasses
import itertools
import pathlib

import numpy as np
import tensorflow as tf

from serving.verification import (
  c_api,
  comparison,
  golden,
  golden_run,
  graph_index,
  static_check,
)


@dataclasses.dataclass
class Check:
  """One check.

  Attributes:
    name: what is claimed.
    problems: why it is not so; empty if it is.
    detail: what was looked at.
    made: whether the check was made at all; an earlier failure may forbid it.
  """

  name: str
  problems: list[str] = dataclasses.field(default_factory=list)
  detail: str = ''
  made: bool = True


@dataclasses.dataclass
class Proof:
  """All checks of one version.

  Attributes:
    version_dir: its folder.
    checks: in the order they were made; those after a failure of loading are missing.
  """

  version_dir: pathlib.Path
  checks: list[Check] = dataclasses.field(default_factory=list)

  @property
  def holds(self) -> bool:
    """Whether no check found a problem."""
    return not any(check.problems for check in self.checks)


def prove(version_dir: str | pathlib.Path) -> Proof:
  """Makes all checks of one version; a model that fails the static check is not run."""
  proof = Proof(pathlib.Path(version_dir))
  static = Check('static: tag, signatures and ops', static_check.problems(version_dir))
  proof.checks.append(static)
  if static.problems:
    proof.checks.append(_not_run())
    return proof
  index = graph_index.GraphIndex(graph_index.read(version_dir))
  kinds = {placed.node.op for placed in index.nodes()} - set(index.functions)
  static.detail = f'{len(index.signatures)} signatures, {len(kinds)} kinds of ops'
  calls, refused, check = _plan(version_dir, index)
  proof.checks.append(check)
  if check.problems:
    proof.checks.append(_not_run())
    return proof
  proof.checks += _run_and_compare(version_dir, index, calls, refused)
  return proof


def _not_run() -> Check:
  return Check('runs', detail='not tried, because of the above', made=False)


def _plan(
  version_dir: str | pathlib.Path, index: graph_index.GraphIndex
) -> tuple[list[golden.Call], list[golden.Call], Check]:
  """Returns the calls that must succeed, those that must be refused, and a check of them."""
  check = Check('warm-up records cover every signature')
  try:
    calls = golden.recorded_calls(version_dir)
  except golden.GoldenError as error:
    check.problems.append(str(error))
    return [], [], check
  for number, call in enumerate(calls):
    if text := golden.fault(call, index):
      check.problems.append(f'record {number}, {call.name}: {text}')
  check.detail = f'{len(calls)} records'
  if not check.problems:
    calls += golden.default_calls(calls, index)
  refused = golden.refused_signatures(version_dir) & index.signatures.keys()
  covered = {call.signature_name for call in calls} | refused
  for key in sorted(index.signatures.keys() - covered):
    check.problems.append(f'signature {key!r} has no record; write one')
  refusals = [golden.smallest_call(key, index.signatures[key]) for key in sorted(refused)]
  return calls, refusals, check


def _run_and_compare(
  version_dir: str | pathlib.Path,
  index: graph_index.GraphIndex,
  calls: list[golden.Call],
  refusals: list[golden.Call],
) -> list[Check]:
  runs = Check('loads and runs without Python, XLA off')
  twice = [golden.doubled(call) for call in calls]
  smallest = {call.signature_name: call for call in sorted(calls, key=_size, reverse=True)}
  faulty = [golden.with_faulty_rows(call) for call in smallest.values()]
  good = [*calls, *twice, *faulty, *calls]
  try:
    answers = golden_run.run(version_dir, index, [*good, *refusals])
  except golden_run.GoldenRunError as error:
    runs.problems.append(str(error))
    return [runs]
  for call, answer in zip(good, answers, strict=False):
    if answer.code is not None:
      runs.problems.append(f'{call.name}: code {answer.code}: {answer.message}')
  if runs.problems:
    return [runs]
  runs.detail = f'{len(good)} calls'
  rest = iter(answers)
  once, batched, with_faults, again = (
    list(itertools.islice(rest, len(part))) for part in (calls, twice, faulty, calls)
  )
  alone = dict(zip((call.name for call in calls), once, strict=True))
  checks = [
    runs,
    _in_process_check(version_dir, [*calls, *faulty], [*once, *with_faults]),
    _batch_check(calls, once, batched),
    _neighbour_check(list(smallest.values()), alone, with_faults),
    _repeat_check(calls, once, again),
  ]
  if any(call.answers for call in calls):
    checks.append(_recorded_check(calls, once))
  if refusals:
    checks.append(_refusal_check(refusals, list(rest)))
  return checks


def _size(call: golden.Call) -> int:
  return sum(value.size for value in call.inputs.values())


def _in_process_check(
  version_dir: str | pathlib.Path, calls: list[golden.Call], answers: list[golden_run.Answer]
) -> Check:
  check = Check('equal to the model in this process')
  model = tf.saved_model.load(str(version_dir))
  largest = 0.0
  for call, answer in zip(calls, answers, strict=True):
    inputs = {name: tf.constant(value) for name, value in call.inputs.items()}
    outputs = model.signatures[call.signature_name](**inputs)
    expected = {name: value.numpy() for name, value in outputs.items()}
    found = comparison.problems(expected, answer.outputs)
    check.problems += [f'{call.name}: {text}' for text in found]
    if not found:
      largest = max(largest, comparison.largest_difference(expected, answer.outputs))
  check.detail = f'largest relative difference {largest:.2g}'
  return check


def _batch_check(
  calls: list[golden.Call], once: list[golden_run.Answer], twice: list[golden_run.Answer]
) -> Check:
  check = Check('rows do not depend on their batch')
  for call, alone, batched in zip(calls, once, twice, strict=True):
    expected = {name: _two(value) for name, value in alone.outputs.items()}
    check.problems += [
      f'{call.name}: {text}' for text in comparison.problems(expected, batched.outputs)
    ]
  check.detail = 'every row twice in one batch'
  return check


def _neighbour_check(
  calls: list[golden.Call],
  alone: dict[str, golden_run.Answer],
  with_faults: list[golden_run.Answer],
) -> Check:
  check = Check('faulty rows leave their neighbours alone', detail='rows of NaN and -1')
  for call, answer in zip(calls, with_faults, strict=True):
    expected = alone[call.name].outputs
    first = {name: value[: len(expected[name])] for name, value in answer.outputs.items()}
    check.problems += [f'{call.name}: {text}' for text in comparison.problems(expected, first)]
  return check


def _two(value: np.ndarray) -> np.ndarray:
  # A scalar result stays one, and the comparison then tells that it did not follow the batch.
  return np.concatenate([value, value]) if value.ndim else np.stack([value, value])


def _repeat_check(
  calls: list[golden.Call], once: list[golden_run.Answer], again: list[golden_run.Answer]
) -> Check:
  check = Check('calls leave nothing behind', detail='the same bits when repeated')
  for call, first, second in zip(calls, once, again, strict=True):
    found = comparison.problems(first.outputs, second.outputs, exact=True)
    check.problems += [f'{call.name}, repeated: {text}' for text in found]
  return check


def _recorded_check(calls: list[golden.Call], answers: list[golden_run.Answer]) -> Check:
  check = Check('equal to what the exporter recorded')
  recorded = [(call, answer) for call, answer in zip(calls, answers, strict=True) if call.answers]
  for call, answer in recorded:
    found = comparison.problems(call.answers, answer.outputs)
    check.problems += [f'{call.name}: {text}' for text in found]
  check.detail = f'{len(recorded)} records with an answer'
  return check


def _refusal_check(calls: list[golden.Call], answers: list[golden_run.Answer]) -> Check:
  check = Check('refuses what the manifest says it cannot do')
  for call, answer in zip(calls, answers, strict=True):
    if answer.code is None:
      check.problems.append(f'{call.name} was answered; the manifest says supports_update: false')
    elif answer.code != c_api.INVALID_ARGUMENT:
      check.problems.append(f'{call.name}: code {answer.code}: {answer.message}')
  check.detail = ', '.join(call.signature_name for call in calls)
  return check
