"""The tables have the names, order and limits the other modules rely on."""

import gin
import numpy as np
import reverb
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.replay import packing, tables
from pearl_tf.testing import test_case


class TablesTest(test_case.TestCase):
  def test_names(self):
    names = [table.name for table in tables.make_tables(packing.PackedLayout(2, 1), 2)]
    self.assertEqual(names, ['replay/0', 'replay/1', 'fresh'])

  def test_signature(self):
    signature = tables.signature(packing.PackedLayout(2, 1))
    self.assertEqual(signature['header'], tf.TensorSpec([9], tf.int64, 'header'))
    self.assertEqual(signature['rows'], tf.TensorSpec([None, 8], tf.float32, 'rows'))

  def test_capacities_come_from_gin(self):
    gin.parse_config('make_tables.max_replay_episodes = 7\nmake_tables.max_fresh_episodes = 5')
    layout = packing.PackedLayout(2, 1)
    info = {table.name: table.info for table in tables.make_tables(layout, 1)}
    self.assertEqual(info['replay/0'].max_size, 7)
    self.assertEqual(info['fresh'].max_size, 5)
    self.assertEqual(info['fresh'].max_times_sampled, 1)

  def test_full_replay_table_drops_the_oldest(self):
    layout = packing.PackedLayout(2, 1)
    server = reverb.Server(tables.make_tables(layout, 1, max_replay_episodes=2))
    self.addCleanup(server.stop)
    client = server.localhost_client()
    with client.trajectory_writer(1) as writer:
      for i in range(4):
        rows = np.full([3, layout.width], i, np.float32)
        writer.append({'header': np.zeros([9], np.int64), 'rows': rows})
        item = {name: column[-1] for name, column in writer.history.items()}
        writer.create_item('replay/0', 3.0, item)
      writer.flush()
    samples = client.sample('replay/0', 40, emit_timesteps=False)
    self.assertEqual({float(sample.data[1][0, 0]) for sample in samples}, {2.0, 3.0})

  @parameterized.parameters('num_tasks', 'max_replay_episodes', 'max_fresh_episodes')
  def test_numbers_must_be_positive(self, name):
    arguments = {'num_tasks': 1, name: 0}
    with self.assertRaisesRegex(ValueError, f'{name} must be positive, got 0'):
      tables.make_tables(packing.PackedLayout(2, 1), **arguments)


if __name__ == '__main__':
  absltest.main()
