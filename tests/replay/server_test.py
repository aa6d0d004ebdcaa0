"""A restored server holds what was checkpointed, or refuses to start."""

import json
import pathlib
import shutil

import numpy as np
import reverb
from absl.testing import absltest, parameterized

from pearl_tf.data import types
from pearl_tf.replay import cache as cache_lib
from pearl_tf.replay import feeder, packing, server, tables, writer
from pearl_tf.testing import test_case

_LAYOUT = packing.PackedLayout(20, 6)
_NUM_TASKS = 2


def _episode(seed: int, num_steps: int) -> types.Episode:
  generator = np.random.default_rng(seed)
  rows = generator.normal(size=[num_steps, _LAYOUT.width]).astype(np.float32)
  parts = np.split(rows, [20, 26, 27, 28, 29], axis=1)
  return types.Episode(parts[0], parts[1], parts[2][:, 0], parts[3][:, 0], parts[4][:, 0], parts[5])


def _contents(client: reverb.Client) -> dict[str, set[tuple]]:
  """Every trajectory of the tables that may be sampled more than once, with its priority."""
  contents = {}
  for name, info in client.server_info().items():
    contents[name] = set()
    if name != tables.FRESH and info.current_size:
      for sample in client.sample(name, 60 * info.current_size, emit_timesteps=False):
        header, rows = sample.data
        item = (sample.info.key, sample.info.priority, header.tobytes(), rows.tobytes())
        contents[name].add(item)
      assert len(contents[name]) == info.current_size
  return contents


class ReplayServerTest(test_case.TestCase):
  def _start(self, **kwargs) -> server.ReplayServer:
    started = server.ReplayServer(_LAYOUT, _NUM_TASKS, **kwargs)
    self.addCleanup(started.stop)
    return started

  def _filled(self) -> tuple[server.ReplayServer, list[np.ndarray]]:
    """A server with 10 trajectories in all, of which the first 4 were drained."""
    started = self._start()
    source = writer.ReplayWriter(started.client, _LAYOUT)
    rows = []
    for i in range(10):
      episode = _episode(i, 40 + i)
      source.write(i % 2, episode, in_context=i % 3 != 0)
      rows.append(_LAYOUT.pack(episode))
      if i == 3:
        source.flush()
        drained = cache_lib.ReplayCache(_LAYOUT, _NUM_TASKS, capacity=1000)
        feeder.Feeder(drained, started.address).drain()
    source.close()
    return started, rows

  def test_restores_every_row_of_every_table(self):
    original, rows = self._filled()
    path = original.checkpoint(self.temp_dir())
    expected = _contents(original.client)
    original.stop()
    restored = self._start(restore_from=path)
    self.assertEqual(_contents(restored.client), expected)
    self.assertLen(expected['replay/0'], 5)
    self.assertLen(expected['context/1'], 3)
    # What the learner had not taken yet waits in the same order.
    cache = cache_lib.ReplayCache(_LAYOUT, _NUM_TASKS, capacity=1000)
    self.assertEqual(feeder.Feeder(cache, restored.address).drain(), sum(len(x) for x in rows[4:]))
    for task in range(2):
      self.assertAllEqual(cache.replay_rows(task), np.concatenate(rows[4 + task :: 2]))

  def test_shared_chunks_are_written_once_and_stay_shared(self):
    original, rows = self._filled()
    path = original.checkpoint(self.temp_dir())
    num_bytes = sum(x.nbytes for x in rows)
    size = (path / 'chunks.tfrecord').stat().st_size
    self.assertLess(size, 1.2 * num_bytes)
    original.stop()
    # A checkpoint of what was restored is no larger: the tables still share.
    again = self._start(restore_from=path).checkpoint(self.temp_dir())
    self.assertLess((again / 'chunks.tfrecord').stat().st_size, 1.01 * size)

  def test_checkpoint_survives_the_server_and_a_move(self):
    original, _ = self._filled()
    staging = self.temp_dir()
    path = original.checkpoint(staging)
    self.assertEqual(path.parent, staging)
    expected = _contents(original.client)
    original.stop()
    moved = self.temp_dir() / 'final'
    shutil.move(staging, moved)
    self.assertEqual(_contents(self._start(restore_from=moved / path.name).client), expected)

  def test_every_checkpoint_stands_alone(self):
    original, _ = self._filled()
    first = original.checkpoint(self.temp_dir())
    expected = _contents(original.client)
    source = writer.ReplayWriter(original.client, _LAYOUT)
    source.write(0, _episode(99, 5), in_context=True)
    source.close()
    second = original.checkpoint(self.temp_dir())
    later = _contents(original.client)
    original.stop()
    self.assertNotEqual(expected, later)
    self.assertEqual(_contents(self._start(restore_from=first).client), expected)
    self.assertEqual(_contents(self._start(restore_from=second).client), later)

  def test_restored_server_goes_on(self):
    original, _ = self._filled()
    path = original.checkpoint(self.temp_dir())
    original.stop()
    restored = self._start(restore_from=path)
    source = writer.ReplayWriter(restored.client, _LAYOUT)
    source.begin_context(0)
    source.write(0, _episode(99, 5), in_context=True)
    source.flush()
    info = restored.client.server_info()
    self.assertEqual(info['context/0'].current_size, 1)
    self.assertEqual(info['replay/0'].current_size, 6)
    self.assertEqual(info['fresh'].current_size, 7)

  def test_empty_server_round_trip(self):
    path = self._start().checkpoint(self.temp_dir())
    restored = self._start(restore_from=path)
    self.assertEqual({x.current_size for x in restored.client.server_info().values()}, {0})

  @parameterized.parameters(
    'manifest.json', 'DONE', 'tables.tfrecord', 'items.tfrecord', 'chunks.tfrecord'
  )
  def test_missing_file_is_refused(self, name):
    original, _ = self._filled()
    path = original.checkpoint(self.temp_dir())
    (path / name).unlink()
    with self.assertRaisesRegex(server.CheckpointError, name):
      self._start(restore_from=path)

  @parameterized.parameters('tables.tfrecord', 'items.tfrecord', 'chunks.tfrecord')
  def test_damaged_file_is_refused(self, name):
    original, _ = self._filled()
    path = original.checkpoint(self.temp_dir())
    content = bytearray((path / name).read_bytes())
    (path / name).write_bytes(content[:-1])
    with self.assertRaisesRegex(server.CheckpointError, f'damaged: {name}'):
      self._start(restore_from=path)
    content[len(content) // 2] ^= 255
    (path / name).write_bytes(content)
    with self.assertRaisesRegex(server.CheckpointError, 'cannot be restored'):
      self._start(restore_from=path)

  def test_missing_checkpoint_is_refused(self):
    with self.assertRaisesRegex(server.CheckpointError, 'nowhere is not a complete replay'):
      self._start(restore_from=pathlib.Path(self.temp_dir()) / 'nowhere')

  def test_manifest_that_is_no_manifest_is_refused(self):
    path = self._start().checkpoint(self.temp_dir())
    for text in ('', '[]', '{"bytes": 3}'):
      (path / 'manifest.json').write_text(text)
      with self.assertRaisesRegex(server.CheckpointError, 'not a complete replay checkpoint'):
        self._start(restore_from=path)

  def test_checkpoint_of_another_run_is_refused(self):
    original, _ = self._filled()
    path = original.checkpoint(self.temp_dir())
    original.stop()
    with self.assertRaisesRegex(server.CheckpointError, "another run.*'num_tasks': 2"):
      server.ReplayServer(_LAYOUT, 3, restore_from=path)
    # The same row width with other columns: Reverb itself could not tell.
    other = packing.PackedLayout(21, 4)
    self.assertEqual(other.width, _LAYOUT.width)
    with self.assertRaisesRegex(server.CheckpointError, "another run.*'action_size': 6"):
      server.ReplayServer(other, 2, restore_from=path)

  def test_reverb_that_loads_nothing_is_noticed(self):
    original, _ = self._filled()
    path = original.checkpoint(self.temp_dir())
    original.stop()
    # A stand-in for any reason why Reverb would ignore the folder: the manifest says otherwise.
    (path / 'DONE').unlink()
    manifest = json.loads((path / 'manifest.json').read_text())
    manifest['bytes']['DONE'] = None
    (path / 'manifest.json').write_text(json.dumps(manifest))
    with self.assertRaisesRegex(server.CheckpointError, 'restored nothing'):
      self._start(restore_from=path)

  def test_checkpoint_folder_is_checked(self):
    started = self._start()
    directory = self.temp_dir()
    started.checkpoint(directory)
    with self.assertRaisesRegex(FileExistsError, 'new folder each time'):
      started.checkpoint(directory)
    with self.assertRaisesRegex(FileNotFoundError, 'nowhere'):
      started.checkpoint(directory / 'nowhere')

  def test_stop_cleans_up_and_may_be_repeated(self):
    scratch = self.temp_dir()
    with self._start(scratch_directory=scratch) as started:
      self.assertLen(list(scratch.iterdir()), 1)
      self.assertEqual(started.address, f'localhost:{started.port}')
    self.assertEmpty(list(scratch.iterdir()))
    started.stop()
    with self.assertRaisesRegex(RuntimeError, 'was stopped'):
      _ = started.client

  def test_failed_restore_leaves_no_scratch_folder(self):
    path = self._start().checkpoint(self.temp_dir())
    scratch = self.temp_dir()
    content = bytearray((path / 'tables.tfrecord').read_bytes())
    content[len(content) // 2] ^= 255
    (path / 'tables.tfrecord').write_bytes(content)
    with self.assertRaises(server.CheckpointError):
      self._start(restore_from=path, scratch_directory=scratch)
    self.assertEmpty(list(scratch.iterdir()))


if __name__ == '__main__':
  absltest.main()
