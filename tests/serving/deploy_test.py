"""The manifests agree with each other and with the configurations they mount."""

import pathlib

import yaml
from absl.testing import absltest, parameterized
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from pearl_tf.testing import test_case
from serving.model_server import batching_config

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / 'serving' / 'deploy'
MODELS = ('pearl', 'pearl_encoder', 'pearl_policy')
# What tensorflow_model_server 2.15.1 knows and these files may use; all others are typing errors.
STOCK_FLAGS = {
  '--model_config_file',
  '--monitoring_config_file',
  '--grpc_max_threads',
  '--enable_grpc_healthcheck_service',
  '--enable_profiler',
}


def manifest(name: str) -> dict:
  return yaml.safe_load((DEPLOY / 'kubernetes' / f'{name}.yaml').read_text())


def compose_service() -> dict:
  return yaml.safe_load((DEPLOY / 'compose.yaml').read_text())['services']['pearl']


def container() -> dict:
  (only,) = manifest('deployment')['spec']['template']['spec']['containers']
  return only


class DeployTest(test_case.TestCase):
  def test_every_model_keeps_two_versions_where_the_export_is_mounted(self):
    models = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((DEPLOY / 'models.config').read_text(), models)
    configs = models.model_config_list.config
    self.assertSequenceEqual([config.name for config in configs], MODELS)
    for config in configs:
      self.assertEqual(config.base_path, f'/models/{config.name}')
      self.assertEqual(config.model_version_policy.latest.num_versions, 2)
    (mount,) = [m for m in container()['volumeMounts'] if m['name'] == 'export']
    self.assertEqual((mount['mountPath'], mount['readOnly']), ('/models', True))
    self.assertTrue(any(v.endswith(':/models:ro') for v in compose_service()['volumes']))

  def test_batching_can_be_parsed(self):
    parsed = batching_config.from_text((DEPLOY / 'batching.config').read_text())
    # With them one request of no rows ends a stock server.
    self.assertEqual(parsed.allowed_batch_sizes, ())
    self.assertTrue(parsed.pad_variable_length_inputs)

  def test_both_ways_start_the_same_server(self):
    self.assertEqual(compose_service()['image'], container()['image'])
    self.assertEqual(compose_service()['command'], container()['args'])
    given = {argument.partition('=')[0] for argument in container()['args']}
    self.assertEqual(given, STOCK_FLAGS)

  @parameterized.parameters('models.config', 'monitoring.config')
  def test_the_config_map_holds_the_files(self, name):
    self.assertEqual(manifest('config')['data'][name], (DEPLOY / name).read_text())
    self.assertIn(f'/config/{name}', ' '.join(container()['args']))

  def test_everything_selects_the_same_pods(self):
    labels = {'app': 'pearl-serving'}
    deployment = manifest('deployment')['spec']
    self.assertEqual(deployment['template']['metadata']['labels'], labels)
    self.assertEqual(deployment['selector']['matchLabels'], labels)
    self.assertEqual(manifest('service')['spec']['selector'], labels)
    self.assertEqual(manifest('network-policy')['spec']['podSelector']['matchLabels'], labels)
    self.assertEqual(manifest('disruption-budget')['spec']['selector']['matchLabels'], labels)

  def test_the_kustomization_names_every_manifest(self):
    files = {path.name for path in (DEPLOY / 'kubernetes').glob('*.yaml')}
    self.assertEqual({*manifest('kustomization')['resources'], 'kustomization.yaml'}, files)

  def test_ports_are_not_opened_to_the_world(self):
    self.assertTrue(all(port.startswith('127.0.0.1:') for port in compose_service()['ports']))


if __name__ == '__main__':
  absltest.main()
