"""What tests of the model manager share: a folder to publish into, a manager that is stopped."""

import asyncio
import functools
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable

from tensorflow_serving.apis import get_model_status_pb2

from pearl_tf.testing import test_case
from serving import errors
from serving.model_server import manager, model_config
from tests.serving.support import toy_model

State = get_model_status_pb2.ModelVersionStatus
WAIT_SECONDS = 30


async def until(condition: Callable[[], bool]) -> None:
  """Waits until something holds; raises `TimeoutError` after half a minute."""
  deadline = time.monotonic() + WAIT_SECONDS
  while not condition():
    if time.monotonic() > deadline:
      raise TimeoutError('what the test waits for did not happen')
    await asyncio.sleep(0.005)


@functools.cache
def valid_version() -> pathlib.Path:
  """Returns the folder of a good version, to be copied."""
  folder = pathlib.Path(tempfile.mkdtemp()) / 'valid'
  toy_model.save(folder)
  return folder


class ManagerCase(test_case.TestCase):
  """Publishes versions of the toy model and runs managers on them."""

  def setUp(self):
    super().setUp()
    self.root = self.temp_dir()
    self.base = self.root / 'toy'
    self.base.mkdir()
    self.loads = []

  def publish(self, version, base=None):
    """Writes a good version the way a publisher should."""
    base = base or self.base
    base.mkdir(exist_ok=True)
    shutil.copytree(valid_version(), base / '.tmp')
    (base / '.tmp').rename(base / str(version))

  def publish_broken(self, version):
    """Writes a version whose graph is cut off."""
    self.publish(version)
    path = self.base / str(version) / 'saved_model.pb'
    content = path.read_bytes()[:1000]
    path.unlink()
    path.write_bytes(content)

  def config(self, policy=None, labels=None, name='toy'):
    """Returns the configuration of one model below the test's folder."""
    return model_config.ModelConfig(
      name, self.root / name, policy or model_config.Latest(), labels or {}
    )

  def run_manager(self, scenario, *configs, start=True, **kwargs):
    """Runs `await scenario(manager)` with a started manager."""

    def on_load(name, version, seconds, error):
      del seconds
      self.loads.append((name, version, error is None))

    async def run():
      kwargs.setdefault('poll_seconds', 0.02)
      tested = manager.ModelManager(configs or (self.config(),), on_load=on_load, **kwargs)
      try:
        if start:
          await asyncio.wait_for(tested.start(), WAIT_SECONDS)
        return await asyncio.wait_for(scenario(tested), WAIT_SECONDS)
      finally:
        await tested.stop()

    return asyncio.run(run())

  def states(self, tested, name='toy'):
    """Returns the state of each version."""
    return {status.version: status.state for status in tested.statuses(name)}

  def error_of(self, call, *args, **kwargs):
    """Returns code and message of the error that a call raises."""
    with self.assertRaises(errors.ServingError) as caught:
      call(*args, **kwargs)
    return caught.exception.code, caught.exception.message
