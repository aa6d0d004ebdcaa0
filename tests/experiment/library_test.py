"""The page of the library, run from its first line to its last."""

import contextlib
import os
import re
import subprocess
import sys
import types
from unittest import mock

from absl.testing import absltest

import pearl_tf
from pearl_tf.experiment import local_loop, metrics
from pearl_tf.testing import small_run, test_case

PAGE = small_run.ROOT / 'docs' / 'library.md'
# Of demo.gin, which the page trains.
SMALL = [binding.replace('GaussianEncoder', 'LinearGaussianEncoder') for binding in small_run.SMALL]


class Trial:
  """Of a sweep that finds every second run bad after its second report."""

  def __init__(self, number):
    self.number = number
    self.reports = []

  def suggest_float(self, name, low, high, log):
    return 0.1

  def report(self, value, step):
    self.reports.append((value, step))

  def should_prune(self):
    return self.number % 2 == 1 and len(self.reports) == 2


class Study:
  def __init__(self):
    self.outcomes = []

  def optimize(self, objective, n_trials):
    for number in range(2):
      trial = Trial(number)
      try:
        self.outcomes.append(objective(trial))
      except InterruptedError:
        self.outcomes.append(len(trial.reports))


class LibraryTest(test_case.TestCase):
  def test_page(self):
    self.enter_context(contextlib.chdir(self.temp_dir()))
    study, logged, tracked = Study(), [], []
    fakes = {
      'wandb': types.SimpleNamespace(init=lambda project: None, log=logged.append),
      'mlflow': types.SimpleNamespace(log_metrics=lambda line, step: tracked.append(step)),
      'optuna': types.SimpleNamespace(
        TrialPruned=InterruptedError, create_study=lambda direction: study
      ),
    }
    for name, fake in fakes.items():
      sys.modules[name] = fake
      self.addCleanup(sys.modules.pop, name)
    train = local_loop.train
    self.enter_context(
      mock.patch.object(
        local_loop,
        'train',
        lambda root, *, gin_bindings, **arguments: train(
          root, gin_bindings=[*SMALL, *gin_bindings], **arguments
        ),
      )
    )
    names = {}
    blocks = re.findall(r'^```python\n(.*?)^```', PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for block in blocks:
      exec(compile(block, str(PAGE), 'exec'), names)
    self.assertContainsSubset(['curve.png', 'returns.png', 'adaptation.png'], os.listdir())
    self.assertLess(names['belief'].variance.max(), 1)
    self.assertEqual(logged, metrics.read('runs/logged'))
    self.assertEqual(tracked, [record['env_steps'] for record in logged])
    records = metrics.read('runs/0')
    returns = [record['train/final_return'] for record in records]
    self.assertAllClose(study.outcomes, [sum(returns) / 3, 2])

  def test_import_is_light(self):
    program = (
      "import sys, pearl_tf; assert 'load' in dir(pearl_tf); "
      "print([name for name in ('tensorflow', 'numpy', 'gin') if name in sys.modules])"
    )
    found = subprocess.check_output([sys.executable, '-c', program], cwd=small_run.ROOT, text=True)
    self.assertEqual(found, '[]\n')

  def test_no_other_names(self):
    with self.assertRaisesRegex(AttributeError, "'pearl_tf' has no attribute 'lod'"):
      pearl_tf.lod  # noqa: B018


if __name__ == '__main__':
  absltest.main()
