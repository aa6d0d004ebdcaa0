"""What our exporter writes is never seen half, however often the server looks."""

import pathlib
import signal
import subprocess
import sys
import threading

import grpc
from absl.testing import absltest

from pearl_tf.export import versions
from pearl_tf.testing import exported_model, test_case
from tests.serving.support import contract_cases, load, numbered_model, toy_server, version_watch

MODEL = numbered_model.MODEL
NUM_VERSIONS = 6
KEPT = 3
_PAUSE_SECONDS = 0.0005
State = version_watch.State
# Writes part of a version, says so, and waits for its end.
HALF = """
import pathlib, shutil, sys, time
from pearl_tf.export import versions

def write(version, folders):
  (folder,) = folders.values()
  shutil.copy(pathlib.Path(sys.argv[2], 'saved_model.pb'), folder)
  print('written', flush=True)
  time.sleep(600)

versions.Versions(sys.argv[1], (sys.argv[3],), keep=3).publish(write)
"""


class LookingAllTheTime:
  """A thread that looks at a folder as a server does, only far more often."""

  def __init__(self, base_path: pathlib.Path):
    self.incomplete: list[str] = []
    self.seen: set[str] = set()
    self._base_path = base_path
    self._stop = threading.Event()
    self._thread = threading.Thread(target=self._look)

  def __enter__(self):
    self._thread.start()
    return self

  def __exit__(self, *exc_info):
    self._stop.set()
    self._thread.join()

  def _look(self) -> None:
    while not self._stop.wait(_PAUSE_SECONDS):
      for folder in self._base_path.iterdir():
        if folder.name.isdecimal():
          self._check(folder)

  def _check(self, folder: pathlib.Path) -> None:
    self.seen.add(folder.name)
    for part in ('saved_model.pb', 'variables/variables.index'):
      # One that is gone as a whole was removed as it should be.
      if not (folder / part).is_file() and folder.exists():
        self.incomplete.append(f'{folder} without {part}')


class PublisherTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = self.temp_dir()
    self.base_path = self.folder / MODEL
    self.source = numbered_model.Publisher(self.temp_dir() / 'source')

  def publish(self) -> int:
    """Publishes as our exporter does, file by file."""

    def write(version: int, folders: dict[str, pathlib.Path]) -> None:
      staged = self.source.stage(version)
      for file in sorted(staged.rglob('*')):
        target = folders[MODEL] / file.relative_to(staged)
        if file.is_dir():
          target.mkdir()
        else:
          target.write_bytes(file.read_bytes())

    return versions.Versions(self.folder, (MODEL,), keep=KEPT).publish(write)

  def serve(self) -> tuple[version_watch.VersionWatch, str]:
    server = self.enter_context(
      toy_server.serving(
        model_name=MODEL,
        model_base_path=str(self.base_path),
        file_system_poll_wait_seconds=0.002,
      )
    )
    channel = self.enter_context(grpc.insecure_channel(server.address))
    return version_watch.VersionWatch(channel, MODEL), server.address

  def test_every_version_is_seen_whole(self):
    self.publish()
    watch, address = self.serve()

    def request():
      return contract_cases.predict('', contract_cases.values(), model=MODEL)

    with LookingAllTheTime(self.base_path) as looking, load.Load(address, request) as clients:
      for _ in range(NUM_VERSIONS - 1):
        version = self.publish()
        watch.wait(version, State.AVAILABLE)
    self.assertEmpty(looking.incomplete)
    self.assertGreaterEqual(len(looking.seen), NUM_VERSIONS - 1)
    self.assertEmpty([outcome.error for outcome in clients.failures])
    statuses = watch.statuses()
    self.assertEqual(set(statuses), set(range(1, NUM_VERSIONS + 1)))
    for status in statuses.values():
      self.assertEqual(status.status.error_code, 0, status)

  def test_publisher_killed_while_it_writes(self):
    self.publish()
    watch, _ = self.serve()
    source = self.source.stage(99)
    command = [sys.executable, '-c', HALF, str(self.folder), str(source), MODEL]
    root = pathlib.Path(exported_model.__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as writing:
      self.assertEqual(writing.stdout.readline(), 'written\n')
      writing.send_signal(signal.SIGKILL)
    self.assertTrue((self.base_path / '.tmp-2' / 'saved_model.pb').is_file())
    # The next one takes another number and clears up.
    self.assertEqual(self.publish(), 3)
    watch.wait(3, State.AVAILABLE)
    self.assertNotIn(2, watch.statuses())
    self.assertFalse((self.base_path / '.tmp-2').exists())


if __name__ == '__main__':
  absltest.main()
