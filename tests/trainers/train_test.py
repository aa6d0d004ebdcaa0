"""The program as its users start it: every test here is a process."""

import os
import re
import subprocess
import sys

from absl.testing import absltest

from pearl_tf.experiment import metrics
from pearl_tf.testing import small_run, test_case

FAMILY = '''
import gymnasium
import numpy as np

from pearl_tf.environments import meta_env


class Slope(meta_env.MetaEnv):
  """Roll a ball to an unknown place on a slope."""

  parameter_names = ('place',)
  default_parameters = (0.0,)
  observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
  action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

  def __init__(self, broken=False):
    self._broken = broken

  def sample_parameters(self, num_tasks, random_state):
    return random_state.uniform(-1, 1, size=(num_tasks, 1))

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed, options=options)
    self._state = self.np_random.normal(size=2)
    return self._state.astype(np.float32), {}

  def step(self, action):
    if self._broken:
      raise ArithmeticError('the ball is gone')
    self._state = self._state * 0.9 + 0.1 * float(action[0])
    reward = -abs(self._state[0] - self.task.parameters[0])
    return self._state.astype(np.float32), reward, False, False, {}
'''


def family_of_the_readme() -> str:
  codes = re.findall(r'```python\n(.*?)```', (small_run.ROOT / 'README.md').read_text(), re.DOTALL)
  (code,) = (code for code in codes if 'class Reach' in code)
  return code


def train(*arguments, bindings=(), environment=None, folder=small_run.ROOT):
  command = [sys.executable, '-m', 'trainers.train', *map(str, arguments)]
  command += [f'--gin_bindings={binding}' for binding in bindings]
  path = os.pathsep.join([str(small_run.ROOT), str(folder)])
  return subprocess.run(
    command,
    cwd=folder,
    env={**os.environ, 'PYTHONPATH': path, **(environment or {})},
    capture_output=True,
    text=True,
    check=False,
  )


class TrainTest(test_case.TestCase):
  def assert_user_error(self, result, code, *parts, stdout=''):
    self.assertEqual(result.returncode, code, result.stderr)
    self.assertStartsWith(small_run.without_reverb(result.stderr), 'error: ')
    self.assertNotIn('Traceback', result.stderr)
    for part in parts:
      self.assertIn(part, result.stderr)
    self.assertRegex(result.stdout, rf'\A{stdout}\Z')

  def test_help(self):
    for flag in ('--help', '--helpshort'):
      result = train(flag)
      self.assertEqual(result.returncode, 0, result.stderr)
      self.assertEqual(result.stderr, '')
      self.assertStartsWith(result.stdout, 'Meta-trains PEARL, or a baseline, on a family of')
      self.assertIn('python -m trainers.train --root_dir=runs/cheetah-vel', result.stdout)
      for name in ('--root_dir', '--gin_file', '--gin_bindings', '--seed'):
        self.assertIn(name, result.stdout)
      self.assertLess(len(result.stdout.splitlines()), 40)

  def test_usage(self):
    root = self.temp_dir() / 'run'
    self.assert_user_error(train(), 2, 'root_dir')
    self.assert_user_error(train(f'--root_dir={root}'), 2, '--gin_file is missing')
    self.assert_user_error(
      train(f'--root_dir={root}', '--gin_file=x.gin', 'PearlTraining.batch_size=3'),
      2,
      "unexpected arguments ['PearlTraining.batch_size=3']",
    )
    self.assert_user_error(train(f'--root_dir={root}', '--sed=1'), 2, 'sed')
    self.assert_user_error(train(f'--root_dir={root}', '--seed=-1'), 2, '-1')
    self.assertFalse(root.exists())

  def test_a_configuration_error(self):
    root = self.temp_dir() / 'run'
    result = train(
      f'--root_dir={root}',
      f'--gin_file={small_run.GIN_FILE}',
      bindings=["registry.make.name = 'pearl/PointRobt-v0'"],
    )
    self.assert_user_error(result, 1, "'pearl/PointRobt-v0'", "'pearl/PointRobot-v0'")
    self.assertFalse(root.exists())

  def test_a_family_of_ones_own(self):
    folder = self.temp_dir()
    (folder / 'reach.py').write_text(family_of_the_readme())
    (folder / 'my_module.py').write_text(FAMILY)
    arguments = ('--root_dir=run', f'--gin_file={small_run.GIN_FILE}')
    short = ('Training.num_iterations = 1', 'PearlTraining.gradient_steps_per_iteration = 10')
    own = (*small_run.SMALL, *short, "registry.make.name = 'reach:Reach'")
    result = train(*arguments, bindings=own, folder=folder)
    self.assertEqual(result.returncode, 0, result.stderr)
    self.assertIn('listens at a port of every network interface', result.stderr)
    self.assertEqual(small_run.without_reverb(result.stderr), '')  # Quiet where nothing is wrong.
    self.assertIn('iteration 1/1', result.stdout)
    self.assertIn('next: python -m trainers.evaluate --root_dir=run', result.stdout)
    (record,) = metrics.read(folder / 'run')
    self.assertEqual(record['gradient_steps'], 10)
    self.assertIn('test/final_return', record)

    # Another configuration in the same folder.
    result = train(*arguments, bindings=(*own, 'PearlAgent.gamma = 0.5'), folder=folder)
    self.assert_user_error(result, 1, '+PearlAgent.gamma = 0.5', 'another --root_dir')

    # What one's own code raises is shown where it happened, then said in one line.
    broken = (*small_run.SMALL, "make.name = 'my_module:Slope'", 'make.broken = True')
    result = train('--root_dir=other', arguments[1], bindings=broken, folder=folder)
    self.assertEqual(result.returncode, 1)
    self.assertIn('my_module.py", line', result.stderr)
    last = result.stderr.splitlines()[-1]
    self.assertStartsWith(last, 'error: Environment Slope, task 0 (parameters')
    self.assertIn('step raised ArithmeticError: the ball is gone', last)

  def test_divergence(self):
    root = self.temp_dir() / 'run'
    result = train(
      f'--root_dir={root}',
      f'--gin_file={small_run.GIN_FILE}',
      bindings=(
        *small_run.LINE,
        'make.reward_scale = 1e30',
        'Tolerance.largest_number = 3e38',
      ),
    )
    self.assert_user_error(
      result,
      1,
      'training diverged within gradient steps 0 to 10',
      'loss/critic',
      'was kept',
      stdout=r'3 iterations: about 1,060 env steps and 120 gradient steps; .* 0.0 MB of memory.*\n',
    )
    self.assertLen(list((root / 'checkpoints').iterdir()), 1)


if __name__ == '__main__':
  absltest.main()
