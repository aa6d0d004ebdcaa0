"""A recurrent policy as it is served: the actor's own actions, over the episodes of a trial."""

import json

import numpy as np
import tensorflow as tf
from absl.testing import absltest
from tf_agents.trajectories import time_step as ts

from pearl_tf.agents.rl2 import actor as rl2_actor
from pearl_tf.agents.rl2 import agent as rl2_agent
from pearl_tf.export import manifest, row_status, state_exporter
from pearl_tf.testing import exported_model, test_case


class StateExporterTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.agent = rl2_agent.RL2Agent(
      exported_model.DOMAIN, train_step_counter=tf.Variable(0, dtype=tf.int64), seed=3
    )
    for variable in self.agent.network.variables:
      variable.assign(3.0 * variable)  # So that inputs make a difference.
    self.root = self.temp_dir()
    self.exporter = state_exporter.StateExporter(
      exported_model.DOMAIN, self.root, network=self.agent.network
    )
    self.version = self.root / state_exporter.RL2 / str(self.export())

  def export(self):
    return self.exporter.export(exported_model.origin())

  def test_acts_as_the_actor_over_the_episodes_of_a_trial(self):
    served = tf.saved_model.load(str(self.version)).signatures[state_exporter.SIGNATURE]
    actor = rl2_actor.RL2Actor(self.agent, deterministic=True)
    expected_state = actor.initial_state(2)
    state = np.zeros([2, self.exporter.state_size], np.float32)
    random = np.random.default_rng(0)
    actions = []
    for step in range(6):
      observation = random.normal(size=[2, 2]).astype(np.float32)
      reward = random.normal(size=[2]).astype(np.float32)
      # At the trial's start a caller may have anything there.
      step_type = np.full([2], ts.StepType.FIRST if step % 3 == 0 else ts.StepType.MID)
      expected, expected_state = actor.act(
        observation, step_type, reward, expected_state, np.zeros(2, np.int32)
      )
      answer = served(
        observation=tf.constant(observation),
        last_reward=tf.constant(reward[:, np.newaxis]),
        begins_episode=tf.constant((step_type == ts.StepType.FIRST)[:, np.newaxis], tf.float32),
        state=tf.constant(state),
      )
      state = answer['state'].numpy()
      self.assertAllEqual(answer['status'], [row_status.OK] * 2)
      self.assertAllClose(answer['action'], np.clip(expected, -1, 1), atol=1e-6)
      actions.append(expected)
    self.assertGreater(np.ptp(actions), 0.1)
    self.assertGreater(np.max(np.abs(actions)), 1.0)  # What is clipped is not what is remembered.

  def test_bad_numbers_fail_their_row_alone_and_leave_its_state(self):
    served = tf.saved_model.load(str(self.version)).signatures[state_exporter.SIGNATURE]
    inputs = {
      'observation': tf.ones([2, 2]),
      'last_reward': tf.ones([2, 1]),
      'begins_episode': tf.zeros([2, 1]),
      'state': tf.fill([2, self.exporter.state_size], 0.5),
    }
    good = served(**inputs)
    bad = served(**inputs | {'observation': tf.constant([[1.0, 1.0], [np.nan, 1.0]])})
    self.assertAllEqual(bad['status'], [row_status.OK, row_status.BAD_NUMBERS])
    self.assertAllClose(bad['action'][0], good['action'][0])
    self.assertAllEqual(np.isnan(bad['action'][1]), [True, True])
    self.assertAllEqual(bad['state'][1], inputs['state'][1])

  def test_manifest_and_configuration(self):
    told = json.loads((self.version / manifest.FILE).read_text())
    self.assertEqual(told['state_size'], self.exporter.state_size)
    self.assertEqual(told['signatures']['act']['inputs']['state']['shape'], [None, 131])
    self.assertIn('base_path: "rl2"', (self.root / 'models.config').read_text())

  def test_the_next_version_has_the_weights_of_its_time(self):
    for variable in self.agent.network.variables:
      variable.assign(variable + 0.1)
    second = self.root / state_exporter.RL2 / str(self.export())
    inputs = {
      'observation': tf.ones([1, 2]),
      'last_reward': tf.ones([1, 1]),
      'begins_episode': tf.zeros([1, 1]),
      'state': tf.zeros([1, self.exporter.state_size]),
    }
    first, second = (
      tf.saved_model.load(str(path)).signatures['act'](**inputs)['state']
      for path in (self.version, second)
    )
    self.assertNotAllClose(first, second)


if __name__ == '__main__':
  absltest.main()
