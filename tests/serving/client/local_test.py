"""The same session on an export in process as on a server."""

import json

import numpy as np
from absl.testing import absltest

from pearl_tf.testing import exported_model, test_case
from serving import client
from serving.server import options as server_options
from serving.server import server as server_lib

GENEROUS = client.Deadlines(connect=60.0, act=60.0, adapt=60.0, begin=60.0)


def live(session):
  """Lives two episodes; returns actions and beliefs."""
  actions, beliefs = [], []
  random = np.random.default_rng(0)
  for _ in range(2):
    session.begin_episode()
    reward = None
    for observation in random.uniform(-1, 1, [5, 2]):
      actions.append(session.step(observation, reward).value)
      reward = random.normal()
    session.end_episode([0.0, 0.0], reward)
    beliefs.append(session.adapt())
  return np.array(actions), beliefs


class LocalTest(test_case.TestCase):
  def test_as_on_a_server(self):
    directory = exported_model.export_small(self.temp_dir())
    settings = server_options.ServerOptions(
      model_name='pearl', model_base_path=str(directory / 'pearl'), port=0
    )
    server = self.enter_context(server_lib.in_background(settings))
    remote = self.enter_context(client.connect(server.address, client.Options(deadlines=GENEROUS)))
    self.assertTrue(remote.is_ready())
    local = client.load(directory)
    self.assertTrue(local.is_ready())
    self.assertEqual(remote.describe()[1], local.describe()[1])
    lives = [
      live(self.enter_context(client.Session(model, seed=3, deterministic=deterministic)))
      for model in (remote, local)
      for deterministic in (True, False)
    ]
    for served, here in (lives[::2], lives[1::2]):
      self.assertAllClose(served[0], here[0], rtol=1e-4, atol=1e-5)
      for one, other in zip(served[1], here[1], strict=True):
        self.assertAllClose(one._asdict(), other._asdict(), rtol=1e-4, atol=1e-5)
    self.assertNotAllClose(lives[0][0], lives[1][0])

  def test_units_of_the_environment(self):
    directory = exported_model.export_small(self.temp_dir())
    for path in (directory, directory / 'pearl', directory / 'pearl' / '1'):
      model = client.load(str(path))
      self.assertEqual(model.describe()[0], 1)
    manifest = model.manifest
    self.assertEqual(manifest, client.read_manifest(directory / 'pearl' / '1'))
    self.assertEqual(manifest.action_bounds, ([-0.1, -0.1], [0.1, 0.1]))
    self.assertEqual(
      (manifest.action_names, manifest.observation_names), (['dx', 'dy'], ['x', 'y'])
    )
    sessions = [
      self.enter_context(client.Session(model, action_bounds=bounds))
      for bounds in (None, manifest.action_bounds)
    ]
    for session in sessions:
      session.begin_episode()
    share, scaled = (session.step([0.5, -0.5]).value for session in sessions)
    self.assertAllClose(scaled, 0.1 * share)

  def test_what_tensorflow_refuses(self):
    model = client.load(exported_model.export_small(self.temp_dir()))
    session = self.enter_context(client.Session(model))
    session.begin_episode()
    session._task.latent = session.latent._replace(value=np.zeros([7], np.float32))
    with self.assertRaisesRegex(client.errors.CallError, 'act in process: INVALID_ARGUMENT'):
      session.step([0.0, 0.0])

  def test_no_export(self):
    folder = self.temp_dir()
    with self.assertRaisesRegex(ValueError, 'has no saved_model.pb and no numbered version'):
      client.load(folder)
    with self.assertRaisesRegex(ValueError, 'no manifest of an export'):
      client.read_manifest(folder)
    (folder / 'x.json').write_text(json.dumps([1]))
    with self.assertRaisesRegex(ValueError, 'x.json is no manifest'):
      client.read_manifest(folder / 'x.json')


if __name__ == '__main__':
  absltest.main()
