"""From the writer through the tables into the cache: everything, once, in order."""

import json

import numpy as np
import reverb
from absl.testing import absltest

from pearl_tf.data import types
from pearl_tf.replay import cache as cache_lib
from pearl_tf.replay import feeder as feeder_lib
from pearl_tf.replay import packing, server, tables, writer
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
    self.server = server.ReplayServer(_LAYOUT, _NUM_TASKS)
    self.addCleanup(self.server.stop)
    self.writer = writer.ReplayWriter(self.server.client, _LAYOUT)
    self.cache = cache_lib.ReplayCache(_LAYOUT, _NUM_TASKS, capacity=10_000)
    self.feeder = feeder_lib.Feeder(self.cache, self.server.address)

  def _table_rows(self, name: str) -> set[float]:
    """The numbers of all transitions in a table, by drawing until none can be missing."""
    num_items = self.server.client.server_info()[name].current_size
    if not num_items:
      return set()
    samples = self.server.client.sample(name, 60 * num_items, emit_timesteps=False)
    return {number for sample in samples for number in sample.data[1][:, 3].tolist()}

  def test_cache_holds_what_was_written_in_order(self):
    generator = np.random.default_rng(0)
    replay = [[] for _ in range(_NUM_TASKS)]
    context = [[] for _ in range(_NUM_TASKS)]
    first = num_undrained = 0
    for i in range(150):
      task = int(generator.integers(_NUM_TASKS))
      if generator.random() < 0.1:
        self.writer.begin_context(task)
        context[task] = []
        new_context = True
      else:
        new_context = False
      # Lengths repeat and change, because the writer keeps its stream while they repeat.
      episode = _episode(first, (5, 5, 5, 17, 1)[int(generator.integers(5))])
      in_context = new_context or bool(generator.random() < 0.5)
      self.writer.write(task, episode, in_context=in_context)
      replay[task].append(_LAYOUT.pack(episode))
      if in_context:
        context[task].append(_LAYOUT.pack(episode))
      first += len(episode.reward)
      num_undrained += len(episode.reward)
      if i % 40 == 39:
        self.writer.flush()
        self.assertEqual(self.feeder.drain(), num_undrained)
        num_undrained = 0
    self.writer.flush()
    self.assertEqual(self.feeder.drain(), num_undrained)
    self.assertEqual(self.cache.num_rows, first)
    for task in range(_NUM_TASKS):
      self.assertAllEqual(self.cache.replay_rows(task), np.concatenate(replay[task]))
      self.assertAllEqual(self.cache.context_rows(task), np.concatenate(context[task]))
      for name, rows in (('replay', replay), ('context', context)):
        expected = set(np.concatenate(rows[task])[:, 3].tolist())
        self.assertEqual(self._table_rows(f'{name}/{task}'), expected)

  def test_terminal_transition_arrives(self):
    self.writer.write(0, _episode(0, 4), in_context=True)
    self.writer.flush()
    self.feeder.drain()
    transition = _LAYOUT.unpack_transition(self.cache.replay_rows(0))
    self.assertAllEqual(transition.discount, [1, 1, 1, 0])
    self.assertAllEqual(transition.next_observation[-1], [4, 4.5])

  def test_drain_takes_each_item_once(self):
    self.assertEqual(self.feeder.drain(), 0)
    self.writer.write(1, _episode(0, 4), in_context=False)
    self.writer.flush()
    self.assertEqual(self.feeder.drain(), 4)
    self.assertEqual(self.feeder.drain(), 0)
    info = self.server.client.server_info()
    self.assertEqual(info['fresh'].current_size, 0)
    self.assertEqual(info['replay/1'].current_size, 1)
    self.assertEqual(info['context/1'].current_size, 0)

  def test_items_are_weighted_by_their_length(self):
    for num_steps in (1, 9):
      self.writer.write(0, _episode(0, num_steps), in_context=True)
    self.writer.flush()
    for name in ('replay/0', 'context/0'):
      for sample in self.server.client.sample(name, 20, emit_timesteps=False):
        self.assertEqual(sample.info.priority, len(sample.data[1]))
        self.assertAlmostEqual(sample.info.probability, len(sample.data[1]) / 10)

  def test_begin_context_clears_only_its_task_and_what_was_pending(self):
    for task in range(2):
      self.writer.write(task, _episode(10 * task, 5), in_context=True)  # Not flushed.
    self.writer.begin_context(0)
    info = self.server.client.server_info()
    self.assertEqual(info['context/0'].current_size, 0)
    self.assertEqual(info['context/1'].current_size, 1)
    self.assertEqual(info['replay/0'].current_size, 1)
    self.writer.write(0, _episode(50, 3), in_context=True)
    self.writer.flush()
    self.feeder.drain()
    self.assertAllEqual(self.cache.context_rows(0)[:, 3], [50, 51, 52])
    self.assertEqual(self.cache.num_context_transitions(1), 5)
    self.assertEqual(self._table_rows('context/0'), {50, 51, 52})

  def test_generations_survive_a_restart(self):
    self.writer.begin_context(2)
    self.writer.write(2, _episode(0, 3), in_context=True)
    self.writer.close()
    state = json.loads(json.dumps(self.writer.state()))
    restarted = writer.ReplayWriter(self.server.client, _LAYOUT)
    restarted.restore(state)
    self.assertEqual(restarted.state(), self.writer.state())
    restarted.write(2, _episode(3, 3), in_context=True)  # The same context goes on.
    restarted.flush()
    self.feeder.drain()
    self.assertEqual(self.cache.num_context_transitions(2), 6)
    restarted.begin_context(2)
    restarted.write(2, _episode(6, 3), in_context=True)
    restarted.flush()
    self.feeder.drain()
    self.assertAllEqual(self.cache.context_rows(2)[:, 3], [6, 7, 8])

  def test_state_of_something_else_is_refused(self):
    for state in ({}, {'generations': {'a': 1}}, {'generations': 3}, None):
      with self.assertRaisesRegex(ValueError, 'Not the state of a ReplayWriter'):
        self.writer.restore(state)

  def test_without_feeding_nothing_queues(self):
    quiet = writer.ReplayWriter(self.server.client, _LAYOUT, feed_cache=False)
    quiet.write(0, _episode(0, 3), in_context=True)
    quiet.flush()
    info = self.server.client.server_info()
    self.assertEqual(info['fresh'].current_size, 0)
    self.assertEqual(info['context/0'].current_size, 1)

  def test_bad_episode_is_refused_before_it_is_stored(self):
    episode = _episode(0, 3)
    with self.assertRaisesRegex(ValueError, 'field reward'):
      self.writer.write(0, episode._replace(reward=episode.reward[:-1]), in_context=True)
    self.writer.write(0, episode, in_context=True)
    self.writer.flush()
    self.assertEqual(self.feeder.drain(), 3)

  def test_unknown_task_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'replay/7'):
      self.writer.write(7, _episode(0, 3), in_context=True)

  def test_second_consumer_is_reported(self):
    self.writer.write(0, _episode(0, 3), in_context=True)
    self.writer.write(0, _episode(3, 3), in_context=True)
    self.writer.flush()
    impatient = feeder_lib.Feeder(self.cache, self.server.address, timeout_seconds=0.2)
    server_info = impatient._client.server_info

    def info_then_theft(*args):
      info = server_info(*args)
      next(self.server.client.sample(tables.FRESH, 1, emit_timesteps=False))
      return info

    impatient._client.server_info = info_then_theft
    with self.assertRaisesRegex(RuntimeError, 'held 2 trajectories, but only 1 arrived'):
      impatient.drain()

  def test_numbers_are_checked(self):
    with self.assertRaisesRegex(ValueError, 'timeout_seconds must be positive, got 0'):
      feeder_lib.Feeder(self.cache, self.server.address, timeout_seconds=0)
    with self.assertRaisesRegex(ValueError, 'flush_timeout_seconds must be positive, got -1'):
      writer.ReplayWriter(self.server.client, _LAYOUT, flush_timeout_seconds=-1)
    with self.assertRaisesRegex(ValueError, 'max_pending_episodes must be positive, got 0'):
      writer.ReplayWriter(self.server.client, _LAYOUT, max_pending_episodes=0)


class FullQueueTest(test_case.TestCase):
  def test_writer_reports_a_queue_nobody_drains(self):
    reverb_server = reverb.Server(tables.make_tables(_LAYOUT, 1, max_fresh_episodes=2))
    self.addCleanup(reverb_server.stop)
    client = reverb_server.localhost_client()
    blocked = writer.ReplayWriter(client, _LAYOUT, flush_timeout_seconds=0.5)
    for i in range(3):
      blocked.write(0, _episode(i, 2), in_context=False)
    with self.assertRaisesRegex(TimeoutError, "did not confirm .* within 0.5 s.*'fresh'"):
      blocked.flush()
    list(client.sample(tables.FRESH, 1, emit_timesteps=False))  # Makes room.
    blocked.flush()


if __name__ == '__main__':
  absltest.main()
