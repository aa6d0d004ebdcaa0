"""docs/robot.md: every piece of code on it runs."""

import json
import pathlib
import re
import sys
import types

import grpc
import numpy as np
from absl.testing import absltest

from pearl_tf.testing import exported_model, scripted_server, test_case
from serving import client

PAGE = pathlib.Path(__file__).resolve().parents[3] / 'docs' / 'robot.md'
# A loaded machine needs more time, and the test is not about speed.
PATIENT = client.Options(deadlines=client.Deadlines(connect=60.0, act=60.0, adapt=60.0, begin=60.0))


def piece(beginning):
  """Returns the code on the page that begins with some text."""
  pieces = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL)
  (found,) = [text for text in pieces if text.startswith(beginning)]
  found = found.replace('timeout=0.015', 'timeout=60')
  return found.replace('wait_seconds=60', 'PATIENT, wait_seconds=60')


class Robot:
  """Lives episodes of three steps."""

  def __init__(self):
    self.commands = []

  def reset(self):
    self._num_steps = 0
    return [1.0, 0.0]

  def done(self):
    return self._num_steps == 3

  def safe_action(self):
    return [0.0, 0.0]

  def move(self, command):
    self._num_steps += 1
    self.commands.append(np.asarray(command))
    return [0.0, 1.0], 0.5


class StandInNode:
  """What the page's node uses of rclpy."""

  def __init__(self, name):
    self.name = name
    self.published, self.callbacks, self.timers, self.problems = [], {}, {}, []

  def declare_parameter(self, name, value):
    del name, value
    return types.SimpleNamespace(value=StandInNode.address)

  def create_publisher(self, kind, topic, depth):
    del kind, topic, depth
    return types.SimpleNamespace(publish=lambda message: self.published.append(message.data))

  def create_subscription(self, kind, topic, callback, depth):
    del kind, depth
    self.callbacks[topic] = callback

  def create_timer(self, seconds, callback):
    self.timers[seconds] = callback

  def get_logger(self):
    return types.SimpleNamespace(error=self.problems.append)


class RobotPageTest(test_case.TestCase):
  def start(self):
    return self.enter_context(scripted_server.ScriptedServer({1: scripted_server.ToyModel(11)}))

  def session(self, server):
    model = self.enter_context(client.connect(server.address, PATIENT))
    session = self.enter_context(client.Session(model))
    session.begin_episode()
    return session

  def test_the_loop(self):
    server, robot = self.start(), Robot()
    manifest = self.temp_dir() / 'pearl_manifest.json'
    bounds = {'low': [-0.1, -0.1], 'high': [0.1, 0.1]}
    values = {'env_name': 'x', 'observation_size': 2, 'action_size': 2, 'env_action_bounds': bounds}
    manifest.write_text(json.dumps(values))
    code = piece('from serving import client\n\nbounds')
    code = code.replace('robot-brain:8500', server.address).replace(manifest.name, str(manifest))
    server.fail_next(grpc.StatusCode.INTERNAL, signature='act')  # A safe action, once.
    exec(code, {'robot': robot, 'PATIENT': PATIENT})
    self.assertLen(robot.commands, 4 * 3)
    self.assertAllEqual(robot.commands[0], [0.0, 0.0])
    self.assertLessEqual(np.abs(robot.commands).max(), 0.1)
    counts = [int(call.inputs['count'][0]) for call in server.received('sample_z')]
    self.assertEqual(counts, [0, 3, 6, 9])

  def test_without_episodes(self):
    server, robot = self.start(), Robot()
    robot.reset()
    session = self.session(server)
    code = piece('for tick in range').replace('10_000', '1_000')
    exec(code, {'robot': robot, 'session': session, 'observation': [0.0, 0.0], 'reward': None})
    session.adapt()
    self.assertEqual(session.belief.count, 999)
    self.assertGreater(len(server.received('sample_z')), 1)

  def test_in_process(self):
    directory = exported_model.export_small(self.temp_dir())
    variables = {'robot': Robot(), 'client': client}
    exec(piece('model = client.load').replace('exports/demo', str(directory)), variables)
    self.assertLessEqual(np.abs(variables['command']).max(), 0.1)

  def test_options(self):
    variables = {'client': client}
    exec(piece('options ='), variables)
    self.assertEqual(variables['options'].deadlines.adapt, 5.0)

  def test_the_node(self):
    server = self.start()
    StandInNode.address = server.address
    message = lambda **fields: types.SimpleNamespace(**fields)  # noqa: E731
    spun = []
    modules = {
      'rclpy': {'init': lambda: None, 'spin': spun.append},
      'rclpy.node': {'Node': StandInNode},
      'sensor_msgs': {},
      'sensor_msgs.msg': {'JointState': object},
      'std_msgs': {},
      'std_msgs.msg': {'Float64': object, 'Float64MultiArray': message},
    }
    stand_ins = {name: types.ModuleType(name) for name in modules}
    for name, contents in modules.items():
      vars(stand_ins[name]).update(contents)
    self.enter_context(absltest.mock.patch.dict(sys.modules, stand_ins))
    variables = {'PATIENT': PATIENT}
    exec(piece('import rclpy'), variables)
    variables['main']()
    (node,) = spun
    self.addCleanup(node.model.close)
    self.addCleanup(node.session.close)
    node.timers[0.02]()
    self.assertEmpty(node.published)  # Nothing was seen yet.
    node.callbacks['joint_states'](message(position=[1.0], velocity=[2.0]))
    node.timers[0.02]()
    node.callbacks['reward'](message(data=0.5))
    node.timers[0.02]()
    self.assertLen(node.published, 2)
    node.callbacks['joint_states'](message(position=[float('nan')], velocity=[0.0]))
    node.timers[0.02]()
    self.assertEqual(node.published[-1], [0.0, 0.0])
    self.assertRegex(node.problems[0], r'observation\[0\] is nan')
    self.assertEqual(node.session.num_pending, 1)
    node.timers[10.0]().result(60)
    self.assertEqual(node.session.belief.count, 1)


if __name__ == '__main__':
  absltest.main()
