"""A run that was killed, or asked to stop, and started again equals the one that was left alone."""

import concurrent.futures
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf
from absl.testing import absltest

from pearl_tf.experiment import checkpoints, metrics
from pearl_tf.testing import small_run, test_case

# Runs the program as `python -m trainers.train` does, but sends itself a signal at one call of one
# function. The second part makes sure of what must not happen after a first checkpoint.
PROGRAM = """
import importlib, os, signal, sys
sys.path.insert(0, '')
from trainers import train

signal_name, owner, function, call, may_fill = sys.argv[1:6]
del sys.argv[1:6]
calls = 0

def patch(owner, function, before):
  module, _, name = owner.rpartition('.')
  owner = getattr(importlib.import_module(module), name)
  original = getattr(owner, function)
  def patched(*args, **kwargs):
    before()
    return original(*args, **kwargs)
  setattr(owner, function, patched)

def count():
  global calls
  calls += 1
  if calls == int(call):
    os.kill(os.getpid(), getattr(signal, signal_name))

def forbid():
  raise AssertionError('the initial pool is collected again')

if signal_name != 'none':
  patch(owner, function, count)
if may_fill == 'no':
  patch('pearl_tf.collect.collector.Collector', 'fill', forbid)
train.run()
"""
IN_POOL = ('pearl_tf.replay.writer.ReplayWriter', 'write', 7)
IN_CHECKPOINT = ('pearl_tf.experiment.checkpoints.Checkpoints', '_place', 2)
IN_TRAINING = ('pearl_tf.agents.learner.Learner', 'run', 3)
IN_EVALUATION = ('pearl_tf.evaluation.meta_testing.MetaTest', 'run', 1)


def start(root, signal_name='none', where=('', '', 0), *, may_fill=True):
  command = [sys.executable, '-c', PROGRAM, signal_name, *map(str, where)]
  command += ['yes' if may_fill else 'no', f'--root_dir={root}', '--seed=1']
  command += [f'--gin_file={small_run.GIN_FILE}']
  bindings = (*small_run.SMALL, 'set_op_determinism.enabled = True')
  command += [f'--gin_bindings={binding}' for binding in bindings]
  # One thread each: several of these run side by side.
  environment = dict(os.environ, TF_NUM_INTRAOP_THREADS='1', OMP_NUM_THREADS='1')
  pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
  return subprocess.Popen(command, cwd=small_run.ROOT, env=environment, **pipes)


def finish(process):
  stdout, stderr = process.communicate()
  return process.returncode, stdout, stderr


def left_alone(root):
  return [finish(start(root))]


def killed(root):
  """Dies in the initial pool, within a checkpoint, while training and at a random moment."""
  ends = [
    finish(start(root, 'SIGKILL', IN_POOL)),
    finish(start(root, 'SIGKILL', IN_CHECKPOINT)),
    finish(start(root, 'SIGKILL', IN_TRAINING, may_fill=False)),
  ]
  process = start(root, may_fill=False)
  # Random on purpose: whichever moment it is, the result has to be the same.
  time.sleep(random.uniform(4.0, 12.0))
  process.kill()
  process.communicate()
  return [*ends, finish(start(root, may_fill=False))]


def asked_to_stop(root):
  """Is asked to stop while it trains and while it evaluates."""
  return [
    finish(start(root, 'SIGTERM', IN_TRAINING)),
    finish(start(root, 'SIGINT', IN_EVALUATION, may_fill=False)),
    finish(start(root, may_fill=False)),
  ]


def timeless(root):
  """Returns the metrics that do not depend on the clock."""
  return [
    {name: value for name, value in record.items() if not name.startswith('time/')}
    for record in metrics.read(root)
  ]


def variables(root, prefix):
  saved = checkpoints.Checkpoints(root / 'checkpoints', prefix=prefix).latest()
  reader = tf.train.load_checkpoint(str(saved / 'variables'))
  names = [n for n in reader.get_variable_to_shape_map() if n != '_CHECKPOINTABLE_OBJECT_GRAPH']
  return {name: reader.get_tensor(name) for name in names}


class ResumeTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    random.seed(int.from_bytes(os.urandom(4), 'big'))

  def assert_same_run(self, expected, actual):
    self.assertEqual(timeless(expected), timeless(actual))
    self.assertEqual((expected / 'tasks.json').read_text(), (actual / 'tasks.json').read_text())
    for prefix in ('latest', 'best'):
      wanted, got = variables(expected, prefix), variables(actual, prefix)
      self.assertEqual(set(wanted), set(got))
      for name, value in wanted.items():
        np.testing.assert_array_equal(value, got[name], err_msg=name)

  def test_interrupted_runs_equal_the_uninterrupted_one(self):
    folder = self.temp_dir()
    roots = {run.__name__: folder / run.__name__ for run in (left_alone, killed, asked_to_stop)}
    with concurrent.futures.ThreadPoolExecutor() as pool:
      futures = {
        run.__name__: pool.submit(run, roots[run.__name__])
        for run in (killed, asked_to_stop, left_alone)
      }
      ends = {name: future.result() for name, future in futures.items()}
    codes = {name: [code for code, _, _ in some] for name, some in ends.items()}
    errors = {name: [stderr for _, _, stderr in some] for name, some in ends.items()}
    self.assertEqual(codes['left_alone'], [0], errors)
    self.assertEqual(codes['killed'], [-signal.SIGKILL] * 3 + [0], errors)
    self.assertEqual(codes['asked_to_stop'], [143, 130, 0], errors)
    for _, stdout, _ in ends['asked_to_stop'][:-1]:
      self.assertIn('everything is saved, the same command continues', stdout)
    for _, stdout, _ in ends['asked_to_stop'][1:]:
      self.assertIn('continuing from iteration', stdout)

    self.assertLen(timeless(roots['left_alone']), 3)
    self.assert_same_run(roots['left_alone'], roots['killed'])
    self.assert_same_run(roots['left_alone'], roots['asked_to_stop'])
    for root in roots.values():
      self.assertFalse(list((root / 'checkpoints').glob('.staged-*')))
      saved = checkpoints.Checkpoints(root / 'checkpoints', prefix='latest').latest()
      self.assertEqual(checkpoints.progress(saved)['iteration'], 3)


if __name__ == '__main__':
  absltest.main()
