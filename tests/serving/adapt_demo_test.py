import io
import subprocess
import sys

import numpy as np
import rich.console
from absl.testing import absltest

from pearl_tf.environments import gymnasium_adapter, point_robot
from pearl_tf.testing import fakes, scripted_server, test_case
from serving import adapt_demo, client

GENEROUS = client.Deadlines(connect=60.0, act=60.0, adapt=60.0, begin=60.0)


class AdaptDemoTest(test_case.TestCase):
  def start(self, **model):
    server = self.enter_context(
      scripted_server.ScriptedServer({1: scripted_server.ToyModel(11, **model)})
    )
    options = client.Options(deadlines=GENEROUS)
    return server, self.enter_context(client.connect(server.address, options))

  def environment(self):
    return gymnasium_adapter.GymnasiumAdapter(point_robot.PointRobot(), max_episode_steps=4)

  def program(self, *arguments):
    return subprocess.run(
      [sys.executable, '-m', 'serving.adapt_demo', *arguments], capture_output=True, text=True
    )

  def test_adapts_to_every_task(self):
    server, connection = self.start()
    environment = self.environment()
    tasks = adapt_demo.unseen_tasks(environment, 2, seed=0)
    results = adapt_demo.adapt_to_tasks(connection, environment, tasks, num_episodes=3, seed=0)
    self.assertEqual([result.task.index for result in results], [0, 1])
    self.assertEqual([len(result.returns) for result in results], [3, 3])
    counts = [int(call.inputs['count'][0]) for call in server.received('sample_z')]
    self.assertEqual(counts, [0, 4, 8] * 2)
    # All trajectories of a task start alike.
    starts = [call.inputs['observation'][0] for call in server.received('act')][::4]
    for task in (starts[:3], starts[3:]):
      self.assertAllEqual(task[0], task[1])
      self.assertAllEqual(task[0], task[2])
    self.assertNotAllClose(starts[0], starts[3])
    again = adapt_demo.adapt_to_tasks(connection, environment, tasks, num_episodes=3, seed=0)
    self.assertEqual([one.returns for one in results], [one.returns for one in again])

  def test_returns_are_those_of_the_environment(self):
    _, connection = self.start()
    environment = self.environment()
    rewards = []
    take_step = environment.take_step

    def recording(action):
      step = take_step(action)
      rewards.append(step.reward)
      return step

    environment.take_step = recording
    tasks = adapt_demo.unseen_tasks(environment, 1, seed=0)
    (result,) = adapt_demo.adapt_to_tasks(connection, environment, tasks, num_episodes=2, seed=0)
    self.assertAllClose(result.returns, [sum(rewards[:4]), sum(rewards[4:])])

  def test_tasks(self):
    environment = self.environment()

    def goals(seed):
      return np.stack([t.parameters for t in adapt_demo.unseen_tasks(environment, 3, seed)])

    self.assertAllEqual(goals(0), goals(0))
    self.assertNotAllClose(goals(0), goals(1))
    trained_on = environment.sample_tasks(3, 0)
    self.assertNotAllClose(goals(0), np.stack([task.parameters for task in trained_on]))

  def test_table(self):
    task = point_robot.PointRobot().sample_tasks(1, seed=0)[0]
    results = [
      adapt_demo.Adaptation(task, 'goal_x=0.10 goal_y=0.20', (-9.0, -4.0, -3.5), 0),
      adapt_demo.Adaptation(task, 'goal_x=0.30 goal_y=0.40', (-7.0, -2.0, -1.5), 0),
    ]
    console = rich.console.Console(record=True, width=100, file=io.StringIO())
    console.print(adapt_demo.format_table(results, title='a title'))
    text = console.export_text()
    for expected in ('a title', 'before (prior)', 'after 2', '-8.00', '-2.50', '+5.50', 'mean'):
      self.assertIn(expected, text)

  def test_agent_of_another_environment(self):
    _, connection = self.start()
    environment = gymnasium_adapter.GymnasiumAdapter(fakes.Line(), max_episode_steps=4)
    with self.assertRaisesRegex(client.errors.ModelMismatchError, 'of another environment'):
      adapt_demo.adapt_to_tasks(
        connection, environment, fakes.line_tasks(1), num_episodes=2, seed=0
      )

  def test_program(self):
    server, _ = self.start()
    server.token = 'secret-of-the-robot'
    token_file = self.temp_dir() / 'token'
    token_file.write_text(f'{server.token}\n')
    result = self.program(
      f'--server={server.address}', '--tasks=2', '--episodes=3', f'--token_file={token_file}'
    )
    self.assertEqual(result.returncode, 0, result.stderr)
    self.assertIn('before (prior)', result.stdout)
    self.assertLen(server.received('act'), 2 * 3 * 20)

  def test_wrong_flags(self):
    result = self.program('--tasks=2')
    self.assertEqual(result.returncode, 2)
    self.assertIn('--server', result.stderr)
    result = self.program('--server=localhost:1', '--key_file=key.pem')
    self.assertEqual(result.returncode, 2)
    self.assertIn('--key_file and --cert_file go together', result.stderr)


if __name__ == '__main__':
  absltest.main()
