"""From the writer through the tables into the cache: everything, once, in order."""

import numpy as np
import reverb
from absl.testing import absltest

from pearl_tf.data import types
from pearl_tf.replay import cache as cache_lib
from pearl_tf.replay import feeder as feeder_lib
from pearl_tf.replay import local, packing, server, tables, writer
from pearl_tf.testing import test_case

_LAYOUT = packing.PackedLayout(2, 1)
_NUM_TASKS = 3


def _episode(first: int, num_steps: int) -> types.Episode:
  """An episode whose transitions are numbered, and whose last one is terminal."""
  numbers = np.arange(first, first + num_steps, dtype=np.float32)
  return types.Episode(
    observation=np.stack([numbers, numbers + 0.5], axis=1),
    action=numbers[:, np.newaxis] / 1000,
    reward=numbers,
    context_reward=-numbers,
    discount=(numbers < numbers[-1]).astype(np.float32),
    next_observation=np.stack([numbers + 1, numbers + 1.5], axis=1),
  )


class WriterAndFeederTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.server = server.ReplayServer(tables.make_tables(_LAYOUT, _NUM_TASKS))
    self.addCleanup(self.server.stop)
    self.client = reverb.Client(self.server.address)
    self.writer = writer.ReplayWriter(self.client, _LAYOUT)
    self.cache = cache_lib.ReplayCache(_LAYOUT, _NUM_TASKS, capacity=10_000)
    self.feeder = feeder_lib.Feeder(self.cache, self.server.address)

  def _table_rows(self, name: str) -> set[float]:
    """The numbers of all transitions in a table, by drawing until none can be missing."""
    num_items = self.client.server_info()[name].current_size
    if not num_items:
      return set()
    samples = self.client.sample(name, 60 * num_items, emit_timesteps=False)
    return {number for sample in samples for number in sample.data[1][:, 3].tolist()}

  def test_cache_holds_what_was_written_in_order(self):
    generator = np.random.default_rng(0)
    replay = [[] for _ in range(_NUM_TASKS)]
    context = [[] for _ in range(_NUM_TASKS)]
    visits = [0] * _NUM_TASKS
    first = num_undrained = 0
    for i in range(150):
      task = int(generator.integers(_NUM_TASKS))
      if generator.random() < 0.1:
        visits[task] += 1
        context[task] = []
        new_context = True
      else:
        new_context = False
      # Lengths repeat and change, because the writer keeps its stream while they repeat.
      episode = _episode(first, (5, 5, 5, 17, 1)[int(generator.integers(5))])
      in_context = new_context or bool(generator.random() < 0.5)
      self.writer.write(task, episode, in_context=in_context, visit=visits[task])
      replay[task].append(_LAYOUT.pack(episode))
      if in_context:
        context[task].append(_LAYOUT.pack(episode))
      first += len(episode.reward)
      num_undrained += len(episode.reward)
      if i % 40 == 39:
        self.writer.flush()
        self.assertEqual(self.feeder.drain().num_transitions, num_undrained)
        num_undrained = 0
    self.writer.flush()
    self.assertEqual(self.feeder.drain().num_transitions, num_undrained)
    self.assertEqual(self.cache.num_rows, first)
    for task in range(_NUM_TASKS):
      self.assertAllEqual(self.cache.replay_rows(task), np.concatenate(replay[task]))
      self.assertAllEqual(self.cache.context_rows(task), np.concatenate(context[task]))
      expected = set(np.concatenate(replay[task])[:, 3].tolist())
      self.assertEqual(self._table_rows(f'replay/{task}'), expected)

  def test_terminal_transition_arrives(self):
    self.writer.write(0, _episode(0, 4), in_context=True, visit=0)
    self.writer.flush()
    self.feeder.drain()
    transition = _LAYOUT.unpack_transition(self.cache.replay_rows(0))
    self.assertAllEqual(transition.discount, [1, 1, 1, 0])
    self.assertAllEqual(transition.next_observation[-1], [4, 4.5])

  def test_drain_takes_each_item_once(self):
    self.assertEqual(self.feeder.drain().num_transitions, 0)
    self.writer.write(1, _episode(0, 4), in_context=False, visit=0)
    self.writer.flush()
    self.assertEqual(self.feeder.drain().num_transitions, 4)
    self.assertEqual(self.feeder.drain().num_transitions, 0)
    info = self.client.server_info()
    self.assertEqual(info['fresh'].current_size, 0)
    self.assertEqual(info['replay/1'].current_size, 1)

  def test_a_later_visit_of_any_writer_begins_a_new_context(self):
    other = writer.ReplayWriter(self.client, _LAYOUT, number=1)
    for task in range(2):
      self.writer.write(task, _episode(10 * task, 5), in_context=True, visit=1)
    self.writer.flush()
    other.write(0, _episode(50, 3), in_context=True, visit=2)
    other.flush()
    self.writer.write(0, _episode(60, 3), in_context=True, visit=1)  # Slower than the other one.
    self.writer.flush()
    self.feeder.drain()
    self.assertAllEqual(self.cache.context_rows(0)[:, 3], [50, 51, 52])
    self.assertEqual(self.cache.num_transitions(0), 11)
    self.assertEqual(self.cache.num_context_transitions(1), 5)

  def test_tables_are_filled_from_a_restored_cache(self):
    replay = local.Replay(cache_lib.ReplayCache(_LAYOUT, _NUM_TASKS, capacity=100))
    self.addCleanup(replay.stop)
    for number in range(6):
      replay.writer.write(number % 2, _episode(10 * number, 4), in_context=True, visit=number // 2)
    replay.writer.flush()
    replay.drain()
    again = local.Replay(replay.cache)
    self.addCleanup(again.stop)
    again.refill_tables()
    client = reverb.Client(again.server.address)
    sizes = {name: info.current_size for name, info in client.server_info().items()}
    self.assertEqual(sizes, {'replay/0': 3, 'replay/1': 3, 'replay/2': 0, 'fresh': 0})
    headers = {
      tuple(sample.data[0][:3].tolist()): sample.data[1][0, 3]
      for sample in client.sample('replay/1', 60, emit_timesteps=False)
    }
    self.assertEqual(headers[1, 1, 2], 50.0)
    self.assertIn((1, 0, 2), headers)  # What an earlier visit brought is context no more.

  def test_bad_episode_is_refused_before_it_is_stored(self):
    episode = _episode(0, 3)
    with self.assertRaisesRegex(ValueError, 'field reward'):
      self.writer.write(0, episode._replace(reward=episode.reward[:-1]), in_context=True, visit=0)
    self.writer.write(0, episode, in_context=True, visit=0)
    self.writer.flush()
    self.assertEqual(self.feeder.drain().num_transitions, 3)

  def test_unknown_task_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'replay/7'):
      self.writer.write(7, _episode(0, 3), in_context=True, visit=0)

  def test_second_consumer_is_reported(self):
    self.writer.write(0, _episode(0, 3), in_context=True, visit=0)
    self.writer.write(0, _episode(3, 3), in_context=True, visit=0)
    self.writer.flush()
    impatient = feeder_lib.Feeder(self.cache, self.server.address, timeout_seconds=0.2)
    server_info = impatient._client.server_info

    def info_then_theft(*args):
      info = server_info(*args)
      next(self.client.sample(tables.FRESH, 1, emit_timesteps=False))
      return info

    impatient._client.server_info = info_then_theft
    with self.assertRaisesRegex(RuntimeError, 'held 2 trajectories, but only 1 arrived'):
      impatient.drain()

  def test_numbers_are_checked(self):
    with self.assertRaisesRegex(ValueError, 'timeout_seconds must be positive, got 0'):
      feeder_lib.Feeder(self.cache, self.server.address, timeout_seconds=0)
    with self.assertRaisesRegex(ValueError, 'flush_timeout_seconds must be positive, got -1'):
      writer.ReplayWriter(self.client, _LAYOUT, flush_timeout_seconds=-1)
    with self.assertRaisesRegex(ValueError, 'max_pending_episodes must be positive, got 0'):
      writer.ReplayWriter(self.client, _LAYOUT, max_pending_episodes=0)


class FullQueueTest(test_case.TestCase):
  def test_writer_reports_a_queue_nobody_drains(self):
    reverb_server = reverb.Server(tables.make_tables(_LAYOUT, 1, max_fresh_episodes=2))
    self.addCleanup(reverb_server.stop)
    client = reverb_server.localhost_client()
    blocked = writer.ReplayWriter(client, _LAYOUT, flush_timeout_seconds=0.5)
    for i in range(3):
      blocked.write(0, _episode(i, 2), in_context=False, visit=0)
    with self.assertRaisesRegex(TimeoutError, "did not confirm .* within 0.5 s.*'fresh'"):
      blocked.flush()
    list(client.sample(tables.FRESH, 1, emit_timesteps=False))  # Makes room.
    blocked.flush()


if __name__ == '__main__':
  absltest.main()
