"""Exports that were damaged on their way never replace a good one, and the server says so."""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable

import grpc
import tensorflow as tf
from absl.testing import absltest, parameterized
from tensorflow_serving.apis import prediction_log_pb2

from pearl_tf.export import warmup
from pearl_tf.testing import exported_model, test_case
from tests.serving.support import contract_server, load, toy_server, version_watch

MODEL = 'pearl'
GOOD = 1
State = version_watch.State


def cut(file: pathlib.Path, share: float) -> None:
  """Keeps the first part of a file, as a copy that was broken off leaves it."""
  os.truncate(file, int(share * file.stat().st_size))


def data_file(folder: pathlib.Path) -> pathlib.Path:
  return next((folder / 'variables').glob('variables.data-*'))


def flip_a_bit(folder: pathlib.Path) -> None:
  content = bytearray(data_file(folder).read_bytes())
  content[-1] ^= 1  # Weights come last.
  data_file(folder).write_bytes(content)


def spoil_last_warm_up(folder: pathlib.Path) -> None:
  """Lets the last record ask for a signature that is not there."""
  file = str(folder / warmup.FILE)
  records = [record.numpy() for record in tf.data.TFRecordDataset(file)]
  log = prediction_log_pb2.PredictionLog.FromString(records[-1])
  log.predict_log.request.model_spec.signature_name = 'nosuch'
  with tf.io.TFRecordWriter(file) as writer:
    for record in (*records[:-1], log.SerializeToString()):
      writer.write(record)


class BadVersionsTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.base_path = exported_model.export_small(folder) / MODEL
    cls.server = cls.enterClassContext(
      toy_server.serving(
        model_name=MODEL, model_base_path=str(cls.base_path), file_system_poll_wait_seconds=0.02
      )
    )
    cls.channel = cls.enterClassContext(grpc.insecure_channel(cls.server.address))
    cls.watch = version_watch.VersionWatch(cls.channel, MODEL)
    cls.request = cls.request_of(cls.base_path / str(GOOD))

  @staticmethod
  def request_of(version_dir: pathlib.Path):
    """Returns a request that the export itself brings along."""
    record = next(iter(tf.data.TFRecordDataset(str(version_dir / warmup.FILE)))).numpy()
    return prediction_log_pb2.PredictionLog.FromString(record).predict_log.request

  def publish(self, damage: Callable[[pathlib.Path], None]) -> int:
    """Publishes a damaged copy of the good version; returns its number."""
    version = max(self.watch.statuses()) + 1
    staged = self.base_path / f'.tmp-{version}'
    shutil.copytree(self.base_path / str(GOOD), staged)
    damage(staged)
    staged.rename(self.base_path / str(version))
    return version

  @parameterized.named_parameters(
    ('empty_graph', lambda folder: cut(folder / 'saved_model.pb', 0.0)),
    ('tenth_of_the_graph', lambda folder: cut(folder / 'saved_model.pb', 0.1)),
    ('half_of_the_graph', lambda folder: cut(folder / 'saved_model.pb', 0.5)),
    ('most_of_the_graph', lambda folder: cut(folder / 'saved_model.pb', 0.99)),
    ('no_graph', lambda folder: (folder / 'saved_model.pb').unlink()),
    ('half_of_the_variables', lambda folder: cut(data_file(folder), 0.5)),
    ('half_of_their_index', lambda folder: cut(folder / 'variables' / 'variables.index', 0.5)),
    ('variables_not_copied_yet', lambda folder: shutil.rmtree(folder / 'variables')),
    ('data_not_copied_yet', lambda folder: data_file(folder).unlink()),
    ('one_bit', flip_a_bit),
    ('half_of_the_warm_up', lambda folder: cut(folder / warmup.FILE, 0.5)),
    ('warm_up_that_fails', spoil_last_warm_up),
  )
  def test_is_reported_and_replaces_nothing(self, damage):
    with load.Load(self.server.address, lambda: self.request, num_clients=1) as clients:
      version = self.publish(damage)
      status = self.watch.wait(version, State.END).status
    self.assertNotEqual(status.error_code, 0)
    self.assertNotEmpty(status.error_message)
    self.assertEmpty([outcome.error for outcome in clients.failures])
    versions = {outcome.response.model_spec.version.value for outcome in clients.outcomes}
    self.assertEqual(versions, {GOOD})
    self.assertEqual(self.watch.statuses()[GOOD].state, State.AVAILABLE)

  def test_half_copied_in_place_is_served_once_it_is_whole(self):
    """The wrong way to publish: the folder has its number before it has its files."""
    version = max(self.watch.statuses()) + 1
    good, target = self.base_path / str(GOOD), self.base_path / str(version)
    target.mkdir()
    shutil.copy(good / 'saved_model.pb', target)
    status = self.watch.wait(version, State.END).status
    self.assertNotEqual(status.error_code, 0)
    shutil.copytree(good, target, dirs_exist_ok=True)
    self.wait_for_state(version, State.AVAILABLE)
    shutil.rmtree(target)
    self.wait_for_state(version, State.END)

  def wait_for_state(self, version: int, state: int) -> None:
    contract_server.wait_for(
      lambda: self.watch.statuses()[version].state == state, f'version {version} to change'
    )


if __name__ == '__main__':
  absltest.main()
