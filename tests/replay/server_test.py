import reverb
from absl.testing import absltest

from pearl_tf.replay import packing, server, tables
from pearl_tf.testing import test_case

_LAYOUT = packing.PackedLayout(20, 6)


def _num_threads() -> int:
  with open('/proc/self/status') as status:
    return next(int(line.split()[1]) for line in status if line.startswith('Threads:'))


class ReplayServerTest(test_case.TestCase):
  def test_it_serves_until_it_is_stopped(self):
    with server.ReplayServer(tables.make_tables(_LAYOUT, 2)) as running:
      names = reverb.Client(running.address).server_info()
      self.assertEqual(set(names), {'replay/0', 'replay/1', tables.FRESH})
    running.stop()
    with self.assertRaisesRegex(RuntimeError, 'was stopped'):
      running.address  # noqa: B018

  def test_ten_thousand_tasks_take_as_many_threads_as_a_hundred(self):
    before = _num_threads()
    with server.ReplayServer(tables.make_tables(_LAYOUT, 10_000)) as running:
      self.assertLess(_num_threads() - before, 300)
      tables_of_server = reverb.Client(running.address).server_info()
      self.assertLen(tables_of_server, tables.MAX_REPLAY_TABLES + 1)
      self.assertIn(tables.replay_name(9_999), tables_of_server)


if __name__ == '__main__':
  absltest.main()
