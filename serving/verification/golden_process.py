"""The process that runs a model by the C API alone, as a stock server would.

  python -m serving.verification.golden_process FOLDER

FOLDER holds `plan.json` and `inputs.npz` as `golden_run` writes them; the results are written
beside them. It never imports TensorFlow's Python: its kernels would hide what a server lacks.
"""

import json
import pathlib
import sys

import numpy as np

from serving.verification import c_api

PLAN = 'plan.json'
INPUTS = 'inputs.npz'
OUTCOME = 'outcome.json'
RESULTS = 'results.npz'


def main(folder: pathlib.Path) -> None:
  """Loads the planned model and makes the planned calls.

  `outcome.json` gets `load`, the error of loading or null; `calls`, the error of each call or null;
  `imported_tensorflow`. An error is `[code, message]`. `results.npz` has `<call>.<output>`.
  """
  plan = json.loads((folder / PLAN).read_text())
  c_api.disable_xla()
  outcome = {'load': None, 'calls': []}
  results = {}
  try:
    with (
      np.load(folder / INPUTS) as inputs,
      c_api.Session(plan['version_dir'], tags=plan['tags']) as session,
    ):
      for number, call in enumerate(plan['calls']):
        outcome['calls'].append(_run(session, number, call, inputs, results))
  except c_api.Error as error:
    outcome['load'] = [error.code, error.message]
  outcome['imported_tensorflow'] = 'tensorflow' in sys.modules
  np.savez(folder / RESULTS, **results)
  (folder / OUTCOME).write_text(json.dumps(outcome))


def _run(
  session: c_api.Session,
  number: int,
  call: dict[str, dict[str, str]],
  inputs: np.lib.npyio.NpzFile,
  results: dict[str, np.ndarray],
) -> list[int | str] | None:
  feeds = {tensor: inputs[f'{number}.{name}'] for name, tensor in call['inputs'].items()}
  try:
    values = session.run(feeds, list(call['outputs'].values()))
  except c_api.Error as error:
    return [error.code, error.message]
  except TypeError as error:
    return [c_api.INVALID_ARGUMENT, str(error)]
  results |= {
    f'{number}.{name}': value for name, value in zip(call['outputs'], values, strict=True)
  }
  return None


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
