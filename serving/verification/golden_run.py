"""Runs calls of a SavedModel in a process without TensorFlow's Python.

It only starts that process and hands calls and answers over; what the answers should be, its caller
knows.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import serving
from serving.verification import golden, golden_process, graph_index

_LAST_LINES = 5


class Answer(NamedTuple):
  """What a call came to.

  Attributes:
    outputs: array by output name; empty after an error.
    code: TF_Code of the error, or None.
    message: text of the error.
  """

  outputs: dict[str, np.ndarray]
  code: int | None = None
  message: str = ''


class GoldenRunError(Exception):
  """The process could not load the model, or died."""


def run(
  version_dir: str | pathlib.Path,
  index: graph_index.GraphIndex,
  calls: Sequence[golden.Call],
  *,
  timeout_seconds: float = 300,
) -> list[Answer]:
  """Makes calls, in order, of one session.

  Args:
    version_dir: folder with `saved_model.pb`.
    index: what is in it.
    calls: calls of its signatures.
    timeout_seconds: for all of it.

  Returns:
    One answer for each call.

  Raises:
    GoldenRunError: if the model does not load, or the process crashes or takes too long.
  """
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    _write(folder, version_dir, index, calls)
    _start(folder, timeout_seconds)
    outcome = json.loads((folder / golden_process.OUTCOME).read_text())
    if outcome['imported_tensorflow']:
      raise GoldenRunError('the process imported TensorFlow, so it proves nothing; a .pth file?')
    if outcome['load']:
      code, message = outcome['load']
      raise GoldenRunError(f'the model does not load: code {code}: {message}')
    with np.load(folder / golden_process.RESULTS) as results:
      return [
        Answer({}, *error) if error else Answer(_of_call(number, results))
        for number, error in enumerate(outcome['calls'])
      ]


def _write(
  folder: pathlib.Path,
  version_dir: str | pathlib.Path,
  index: graph_index.GraphIndex,
  calls: Sequence[golden.Call],
) -> None:
  plan = {
    'version_dir': str(pathlib.Path(version_dir).resolve()),
    'tags': [graph_index.TAG],
    'calls': [_tensor_names(index, call) for call in calls],
  }
  arrays = {
    f'{number}.{name}': value
    for number, call in enumerate(calls)
    for name, value in call.inputs.items()
  }
  (folder / golden_process.PLAN).write_text(json.dumps(plan))
  np.savez(folder / golden_process.INPUTS, **arrays)


def _tensor_names(index: graph_index.GraphIndex, call: golden.Call) -> dict[str, dict[str, str]]:
  signature = index.signatures[call.signature_name]
  return {
    'inputs': {name: signature.inputs[name].name for name in call.inputs},
    'outputs': {name: info.name for name, info in signature.outputs.items()},
  }


def _start(folder: pathlib.Path, timeout_seconds: float) -> None:
  root = pathlib.Path(serving.__file__).resolve().parents[1]
  path = os.pathsep.join(filter(None, [str(root), os.environ.get('PYTHONPATH', '')]))
  command = [sys.executable, '-m', golden_process.__name__, str(folder)]
  try:
    done = subprocess.run(
      command,
      env={**os.environ, 'PYTHONPATH': path},
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      timeout=timeout_seconds,
      check=False,
      text=True,
      errors='replace',
    )
  except subprocess.TimeoutExpired as error:
    raise GoldenRunError(f'the calls took longer than {timeout_seconds:g} seconds') from error
  if done.returncode:
    last = '\n'.join(done.stderr.splitlines()[-_LAST_LINES:])
    raise GoldenRunError(f'the process ended with {done.returncode}: {last}')


def _of_call(number: int, results: np.lib.npyio.NpzFile) -> dict[str, np.ndarray]:
  prefix = f'{number}.'
  return {
    name.removeprefix(prefix): results[name] for name in results.files if name.startswith(prefix)
  }
