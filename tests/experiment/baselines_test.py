"""The baselines from end to end: they learn to adapt, cannot where they must not, and resume."""

import functools
import os
import signal
import subprocess
import sys

import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.experiment import local_loop, metrics, trained
from pearl_tf.testing import small_run, test_case

CONFIGS = small_run.ROOT / 'trainers' / 'configs' / 'baselines'
AT_THE_END = ('Training.evaluation_interval = 1000', 'Training.checkpoint_interval = 1000')
ADAPTING = (
  *AT_THE_END,
  'AdaptingBuilder.tasks_per_iteration = 20',
  'AdaptingBuilder.episodes_per_stage = 10',
  'FlatGaussian.action_scale = 1.0',
  'MetaTest.num_exploration_episodes = 10',
  'MetaTest.steps_per_repeat = 220',
)
PROMP = ('ProMPAgent.learning_rate = 1e-2',)
# Two steps an episode: none is long enough to find the goal in, a trial of four is.
LINE_STEPS = 2
RECURRENT = (
  *AT_THE_END,
  "registry.make.name = 'pearl_tf.testing.fakes:DenseLine'",
  'sample_task_split.num_train = 40',
  'sample_task_split.num_test = 20',
  f'Training.max_episode_steps = {LINE_STEPS}',
  'Training.num_environments = 64',
  'Training.num_iterations = 80',
  'RL2Agent.learning_rate = 3e-3',
  'RL2Agent.epochs = 4',
  'RL2Agent.entropy_weight = 0.0',
  'MetaTest.num_repeats = 16',
)
# Dies at this call of the process's `train`: in the second iteration, whose data it has collected.
KILLED = """
import os, signal, sys
from pearl_tf.agents import on_policy
from pearl_tf.experiment import local_loop

call, root, gin_file, *bindings = sys.argv[1:]
original, calls = on_policy.OnPolicyTraining.train, 0

def train(self, num_steps):
  global calls
  calls += 1
  if calls == int(call):
    os.kill(os.getpid(), signal.SIGKILL)
  return original(self, num_steps)

on_policy.OnPolicyTraining.train = train
local_loop.train(root, gin_files=[gin_file], gin_bindings=bindings, seed=1)
"""
RESUMED = (
  'Training.num_iterations = 3',
  'Training.num_environments = 4',
  'Training.checkpoint_interval = 1',
  'Training.evaluation_interval = 1',
  'sample_task_split.num_train = 4',
  'sample_task_split.num_test = 2',
)
FEW_EPISODES = (
  'AdaptingBuilder.tasks_per_iteration = 4',
  'AdaptingBuilder.episodes_per_stage = 2',
  'MetaTest.num_exploration_episodes = 2',
)
FEW_TRIALS = ('RL2Builder.trials_per_iteration = 4',)


def train(root, name, bindings, *, seed=0):
  files = [CONFIGS / name]
  assert local_loop.train(root, gin_files=files, gin_bindings=bindings, seed=seed)


def share_of_gap(result, floor, oracle, index):
  """Returns how far from floor (0) to oracle (1) the trajectories of an index are."""
  chosen = [t for t in result.trajectories if t.index == index]
  assert chosen
  low, high = (np.mean([returns(t) for t in chosen]) for returns in (floor, oracle))
  return (np.mean([t.episode_return for t in chosen]) - low) / (high - low)


def walk_on_the_line(trajectory, aim):
  position, goal = float(trajectory.observations[0, 0]), float(trajectory.task.parameters[0])
  total = 0.0
  for _ in range(LINE_STEPS):
    position += np.clip(aim(goal) - position, -0.5, 0.5)
    total -= abs(position - goal)
  return total


def timeless(root):
  return [
    {name: value for name, value in record.items() if not name.startswith('time/')}
    for record in metrics.read(root)
  ]


class BaselinesTest(test_case.TestCase):
  # Measured with 45 iterations, seed 0: ProMP 0.79, MAML 0.81, both 0.35 before adapting; step size
  # 0: 0.41.
  @parameterized.named_parameters(
    ('promp', 'point_robot_promp.gin', (40, 0.1), PROMP, True),
    ('promp_without_a_step', 'point_robot_promp.gin', (40, 0.0), PROMP, False),
    ('maml', 'point_robot_maml.gin', (30, 0.3), (), True),
  )
  def test_the_inner_step_closes_the_gap(self, name, numbers, bindings, learns):
    root = self.temp_dir() / 'run'
    iterations, step_size = numbers
    bindings = (*ADAPTING, *bindings, f'Training.num_iterations = {iterations}')
    train(root, name, (*bindings, f'AdaptingAgent.step_size = {step_size}'))
    agent = trained.load(root)
    robot = agent.environment(agent.tasks.test[0]).gymnasium_env.unwrapped

    def stands_still(trajectory):
      start, goal = trajectory.observations[0], trajectory.task.parameters
      return -trajectory.length * np.linalg.norm(start - goal)

    def knows(trajectory):
      return robot.oracle_return(trajectory.task, trajectory.observations[0], trajectory.length)

    result = agent.meta_test()
    before, after = (share_of_gap(result, stands_still, knows, index) for index in (0, 10))
    self.assertLess(before, 0.5)
    (self.assertGreater if learns else self.assertLess)(after, 0.5)

  # Measured, seed 0: by episode 0.03, 0.64, 0.73, 0.77; with a state of one episode -0.01. Not the
  # point robot: there the first of three episodes closed 0.67, its 20 steps suffice to explore in.
  @parameterized.named_parameters(('a_trial', 4, True), ('an_episode', 1, False))
  def test_the_hidden_state_closes_the_gap(self, episodes, learns):
    root = self.temp_dir() / 'run'
    sizes = (
      f'RL2Builder.episodes_per_trial = {episodes}',
      f'RL2Builder.trials_per_iteration = {256 // episodes}',
      f'MetaTest.steps_per_repeat = {LINE_STEPS * episodes}',
      f'MetaTest.num_exploration_episodes = {episodes - 1}',
    )
    train(root, '../methods/rl2.gin', (*RECURRENT, *sizes))
    closed = functools.partial(
      share_of_gap,
      trained.load(root).meta_test(),
      lambda trajectory: walk_on_the_line(trajectory, lambda goal: 0.0),
      lambda trajectory: walk_on_the_line(trajectory, lambda goal: goal),
    )
    self.assertLess(closed(0), 0.3)
    (self.assertGreater if learns else self.assertLess)(closed(episodes - 1), 0.5)

  @parameterized.named_parameters(
    ('promp', 'point_robot_promp.gin', FEW_EPISODES, 5 + 3),
    ('maml', 'point_robot_maml.gin', FEW_EPISODES, 1 + 1),
    ('rl2', 'point_robot_rl2.gin', FEW_TRIALS, 8 + 3),
  )
  def test_killed_and_resumed_equals_the_uninterrupted(self, name, sizes, call):
    alone, killed = self.temp_dir() / 'alone', self.temp_dir() / 'killed'
    bindings = (*RESUMED, *sizes)
    command = [sys.executable, '-c', KILLED, str(call), str(killed), str(CONFIGS / name), *bindings]
    process = subprocess.run(
      command, cwd=small_run.ROOT, capture_output=True, text=True, check=False, env=os.environ
    )
    self.assertEqual(process.returncode, -signal.SIGKILL, process.stderr)
    self.assertLen(metrics.read(killed), 1)
    train(killed, name, bindings, seed=1)
    train(alone, name, bindings, seed=1)
    self.assertLen(timeless(alone), 3)
    self.assertEqual(timeless(killed), timeless(alone))


if __name__ == '__main__':
  absltest.main()
