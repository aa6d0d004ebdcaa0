"""The files of serving/deploy agree with each other and with the programs they start."""

import ast
import pathlib
import re
import sys

import yaml
from absl import flags
from absl.testing import absltest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from pearl_tf.testing import test_case
from serving.server import __main__ as main

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / 'serving' / 'deploy'
STOCK = DEPLOY / 'tensorflow_serving'
# What tensorflow_model_server 2.15.1 knows and these files may use; all others are typing errors.
STOCK_FLAGS = {
  '--model_config_file',
  '--monitoring_config_file',
  '--grpc_max_threads',
  '--enable_grpc_healthcheck_service',
  '--enable_profiler',
}
DISTRIBUTIONS = {
  'absl': 'absl-py',
  'google': 'protobuf',
  'grpc': 'grpcio',
  'grpc_health': 'grpcio-health-checking',
  'grpc_reflection': 'grpcio-reflection',
  'prometheus_client': 'prometheus-client',
  'tensorflow_serving': 'tensorflow-serving-api',
}


def stock(name: str) -> dict:
  return yaml.safe_load((STOCK / f'{name}.yaml').read_text())


def compose(folder: pathlib.Path) -> dict:
  return yaml.safe_load((folder / 'compose.yaml').read_text())['services']['pearl']


def container(deployment: dict) -> dict:
  (only,) = deployment['spec']['template']['spec']['containers']
  return only


class OursTest(test_case.TestCase):
  def options(self, arguments):
    """Parses a command line as the program does; raises if it would not start."""
    values = flags.FlagValues()
    main.define_flags(values)
    values(['server', *arguments])
    return main.options_from_flags(values)

  def manifests(self):
    return list(yaml.safe_load_all((DEPLOY / 'kubernetes.yaml').read_text()))

  def test_compose(self):
    service = compose(DEPLOY)
    settings = self.options(service['command'])
    self.assertEqual(settings.model_base_path, '/models/pearl')
    self.assertTrue(any(volume.endswith(':/models:ro') for volume in service['volumes']))
    self.assertEqual(
      service['ports'],
      [f'127.0.0.1:{port}:{port}' for port in (settings.port, settings.rest_api_port)],
    )
    self.assertTrue((DEPLOY / service['build']['context'] / 'setup.py').is_file())
    self.assertTrue((ROOT / service['build']['dockerfile']).is_file())
    self.assertGreater(int(service['stop_grace_period'][:-1]), settings.grace_seconds)

  def test_manifest(self):
    deployment, service = self.manifests()
    settings = self.options(container(deployment)['args'])
    self.assertFalse(settings.allow_insecure_remote)
    mounted = {mount['mountPath'] for mount in container(deployment)['volumeMounts']}
    for path in (
      settings.model_base_path,
      settings.tls_cert,
      settings.tls_key,
      settings.auth_token_file,
    ):
      self.assertIn(str(pathlib.Path(path).parent), mounted)
    (port,) = container(deployment)['ports']
    self.assertEqual(port['containerPort'], settings.port)
    labels = deployment['spec']['template']['metadata']['labels']
    self.assertEqual(deployment['spec']['selector']['matchLabels'], labels)
    self.assertEqual(service['spec']['selector'], labels)
    pod = deployment['spec']['template']['spec']
    self.assertGreater(pod['terminationGracePeriodSeconds'], settings.grace_seconds + 5)

  def test_image_has_what_the_server_imports(self):
    text = (DEPLOY / 'Dockerfile').read_text().replace('\\\n', ' ')
    installed = set(re.search('pip install .*constraints.txt (.*)', text)[1].split())
    files = [*(ROOT / 'serving' / 'server').glob('*.py'), ROOT / 'serving' / 'judge.py']
    needed = set()
    for path in files:
      for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
          needed |= {alias.name.partition('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
          needed.add(node.module.partition('.')[0])
    needed -= {*sys.stdlib_module_names, 'serving', 'pearl_tf'}
    self.assertEqual({DISTRIBUTIONS.get(name, name) for name in needed}, installed)


class StockTest(test_case.TestCase):
  def test_every_model_keeps_two_versions_where_the_export_is_mounted(self):
    models = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((STOCK / 'models.config').read_text(), models)
    for config in models.model_config_list.config:
      self.assertEqual(config.base_path, f'/models/{config.name}')
      self.assertEqual(config.model_version_policy.latest.num_versions, 2)
    mounts = container(stock('deployment'))['volumeMounts']
    (mount,) = [mount for mount in mounts if mount['name'] == 'export']
    self.assertEqual((mount['mountPath'], mount['readOnly']), ('/models', True))
    self.assertTrue(any(volume.endswith(':/models:ro') for volume in compose(STOCK)['volumes']))

  def test_no_setting_with_which_a_request_of_no_rows_ends_the_server(self):
    self.assertNotIn('allowed_batch_sizes', (STOCK / 'batching.config').read_text())

  def test_both_ways_start_the_same_server(self):
    started = container(stock('deployment'))
    self.assertEqual(compose(STOCK)['image'], started['image'])
    self.assertEqual(compose(STOCK)['command'], started['args'])
    self.assertEqual({text.partition('=')[0] for text in started['args']}, STOCK_FLAGS)

  def test_the_kustomization_names_every_manifest_and_file(self):
    files = {path.name for path in STOCK.glob('*.yaml')}
    named = {*stock('kustomization')['resources'], 'kustomization.yaml', 'compose.yaml'}
    self.assertEqual(named, files)
    (generated,) = stock('kustomization')['configMapGenerator']
    for name in generated['files']:
      self.assertTrue((STOCK / name).is_file())
      self.assertIn(f'/config/{name}', ' '.join(container(stock('deployment'))['args']))

  def test_everything_selects_the_same_pods(self):
    labels = {'app': 'pearl-serving'}
    deployment = stock('deployment')['spec']
    self.assertEqual(deployment['template']['metadata']['labels'], labels)
    self.assertEqual(deployment['selector']['matchLabels'], labels)
    self.assertEqual(stock('service')['spec']['selector'], labels)
    self.assertEqual(stock('network-policy')['spec']['podSelector']['matchLabels'], labels)
    self.assertEqual(stock('disruption-budget')['spec']['selector']['matchLabels'], labels)

  def test_ports_are_not_opened_to_the_world(self):
    self.assertTrue(all(port.startswith('127.0.0.1:') for port in compose(STOCK)['ports']))


if __name__ == '__main__':
  absltest.main()
