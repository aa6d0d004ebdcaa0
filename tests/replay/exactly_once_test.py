"""Ten thousand trajectories of two writers, a learner and a server that die: all of them, once."""

import threading

import numpy as np
import reverb
import tensorflow as tf
from absl.testing import absltest

from pearl_tf.replay import cache as cache_lib
from pearl_tf.replay import memory, packing, server, tables, writer
from pearl_tf.testing import test_case

LAYOUT = packing.PackedLayout(1, 1)
NUM_TASKS, NUM_STEPS, NUM_TRAJECTORIES = 3, 2, 10_000


def rows_of(number):
  """The rows of a trajectory: no two are equal."""
  values = NUM_STEPS * number + np.arange(NUM_STEPS)
  return np.repeat(values[:, np.newaxis], LAYOUT.width, axis=1).astype(np.float32)


class ExactlyOnceTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.start_server(None)

  def start_server(self, port):
    all_tables = [*tables.make_tables(LAYOUT, NUM_TASKS), *tables.make_service_tables(LAYOUT)]
    self.server = server.ReplayServer(all_tables, port=port)
    self.addCleanup(self.server.stop)

  def start_learner(self):
    cache = cache_lib.ReplayCache(LAYOUT, NUM_TASKS, capacity=NUM_STEPS * NUM_TRAJECTORIES)
    return memory.Memory(cache, self.server.address)

  def write(self, number, trajectories):
    """Writes trajectories as the actor of that number does."""
    writing = writer.ReplayWriter(
      reverb.Client(self.server.address),
      LAYOUT,
      max_pending_episodes=16,
      number=number,
      to_unsaved=True,
    )
    for trajectory in trajectories:
      task = trajectory % NUM_TASKS
      writing.write_rows(task, rows_of(trajectory), in_context=True, visit=trajectory)
    writing.close()

  def start_writers(self, first, last):
    """Two threads that write all trajectories between them."""
    threads = [
      threading.Thread(target=self.write, args=(number, range(first + number, last, 2)))
      for number in range(2)
    ]
    for thread in threads:
      thread.start()
    return threads

  def drain_until_written(self, learner, threads):
    while any(thread.is_alive() for thread in threads):
      learner.drain()
    learner.drain()

  def assert_has_all(self, learner, number):
    values = [learner.cache.replay_rows(task).numpy() for task in range(NUM_TASKS)]
    for task, rows in enumerate(values):
      self.assertEqual(set((rows[:, 0] // NUM_STEPS % NUM_TASKS).tolist()), {task})
    rows = np.sort(np.concatenate(values), axis=0)
    self.assertAllEqual(rows, np.concatenate([rows_of(i) for i in range(number)]))

  def test_two_writers(self):
    learner = self.start_learner()
    self.drain_until_written(learner, self.start_writers(0, NUM_TRAJECTORIES))
    self.assert_has_all(learner, NUM_TRAJECTORIES)
    # Anything that is sent once more is known.
    self.assertEqual(learner.feeder.drain(tables.UNSAVED).num_transitions, 0)
    self.assert_has_all(learner, NUM_TRAJECTORIES)

  def test_a_learner_that_dies_between_its_checkpoint_and_the_next(self):
    learner = self.start_learner()
    self.drain_until_written(learner, self.start_writers(0, 400))
    path = tf.train.Checkpoint(cache=learner.cache).write(str(self.temp_dir() / 'saved'))
    newest = learner.feeder.newest
    # Actors of the numbers that follow, as those of tickets do.
    threads = [
      threading.Thread(target=self.write, args=(2 + number, range(400 + number, 1000, 2)))
      for number in range(2)
    ]
    for thread in threads:
      thread.start()
    learner.drain()  # Some of it, which dies with this learner.
    again = self.start_learner()
    tf.train.Checkpoint(cache=again.cache).read(path).assert_consumed()
    again.feeder.restore(newest)
    again.feeder.drain(tables.UNSAVED)
    self.drain_until_written(again, threads)
    self.assert_has_all(again, 1000)

  def test_a_writer_outlives_its_server(self):
    learner = self.start_learner()
    client = reverb.Client(self.server.address)
    writing = writer.ReplayWriter(
      client, LAYOUT, flush_timeout_seconds=0.2, number=1, to_unsaved=True
    )
    for trajectory in range(50):
      writing.write_rows(0, rows_of(trajectory), in_context=True, visit=1)
    writing.flush()
    learner.drain()
    port = self.server.port
    self.server.stop()
    writing.write_rows(0, rows_of(50), in_context=True, visit=1)
    with self.assertRaises(TimeoutError):
      writing.flush()
    self.start_server(port)
    writing._flush_timeout_ms = 60_000
    writing.write_rows(0, rows_of(51), in_context=True, visit=1)
    writing.close()
    learner.drain()
    rows = np.sort(learner.cache.replay_rows(0).numpy(), axis=0)
    self.assertAllEqual(rows, np.concatenate([rows_of(i) for i in range(52)]))


if __name__ == '__main__':
  absltest.main()
