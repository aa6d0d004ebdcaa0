"""The manifests of a distributed run name programs, flags, services and volumes that exist."""

import importlib
import pathlib
import re
import shlex
import subprocess

import yaml
from absl import flags
from absl.testing import absltest, parameterized

from pearl_tf.testing import test_case

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / 'trainers' / 'deploy'
ROLES = ('replay_server', 'learner', 'evaluator', 'actor')


def manifests(name):
  text = (DEPLOY / 'kubernetes' / f'{name}.yaml').read_text()
  return {item['kind']: item for item in yaml.safe_load_all(text)}


def pod(name):
  (workload,) = (m for kind, m in manifests(name).items() if kind in ('Job', 'Deployment'))
  return workload['spec']['template']


def container(name):
  (only,) = pod(name)['spec']['containers']
  return only


def environment(name):
  """Returns what Kubernetes replaces in arguments."""
  values = dict(manifests('experiment')['ConfigMap']['data'])
  return values | {variable['name']: '7' for variable in container(name).get('env', ())}


def kubernetes_command(name):
  values = environment(name)
  arguments = container(name)['args']
  return [re.sub(r'\$\((\w+)\)', lambda match: values[match[1]], a) for a in arguments]


def kubernetes_commands():
  return [kubernetes_command(name) for name in ('replay', 'learner', 'evaluator', 'actor')]


def compose():
  return yaml.safe_load((DEPLOY / 'compose.yaml').read_text())


def compose_commands():
  commands = []
  for service in compose()['services'].values():
    if 'entrypoint' in service:
      script = service['entrypoint'][-1].replace('$$(shuf -i 0-4095 -n 1)', '4095')
      commands.append(shlex.split(script)[3:])
    else:
      commands.append(service['command'])
  return commands


def slurm_commands():
  text = (DEPLOY / 'slurm.sh').read_text().replace('$SLURM_PROCID', '3').replace('$port', '20000')
  lines = re.findall(r'python -m (trainers\.\w+ .*?)(?: &|\' &)$', text, re.MULTILINE)
  return [shlex.split(line) for line in lines]


class DeployTest(test_case.TestCase):
  def parse(self, module, arguments):
    """Parses arguments by the flags that a program defines, and nothing else."""
    before = set(flags.FLAGS)
    module.define_flags()
    names = set(flags.FLAGS) - before
    own = flags.FlagValues()
    for name in names:
      own[name] = flags.FLAGS[name]
    flags.FLAGS.remove_flag_values(names)
    return own, own([module.__name__, *arguments])

  @parameterized.named_parameters(
    ('kubernetes', kubernetes_commands), ('compose', compose_commands), ('slurm', slurm_commands)
  )
  def test_every_command_is_one_that_a_program_takes(self, commands):
    programs = [command[0] for command in commands()]
    self.assertCountEqual(programs, [f'trainers.{role}' for role in ROLES])
    for program, *arguments in commands():
      module = importlib.import_module(program)
      own, rest = self.parse(module, arguments)
      self.assertEqual(rest, [program])
      if program != 'trainers.actor':
        self.assertLen(own.gin_file, 1)
    with self.assertRaises(flags.Error):
      self.parse(importlib.import_module('trainers.actor'), ['--num_actors=3'])

  def test_the_shipped_configuration_exists(self):
    names = {manifests('experiment')['ConfigMap']['data']['GIN_FILE']}
    names |= set(re.findall(r'--gin_file=(\S+\.gin)', (DEPLOY / 'compose.yaml').read_text()))
    for name in names:
      self.assertTrue((ROOT / 'trainers' / 'configs' / name).is_file(), name)

  def test_all_name_one_image(self):
    images = {container(name)['image'] for name in ('replay', 'learner', 'evaluator', 'actor')}
    images |= {service['image'].partition(':')[0] for service in compose()['services'].values()}
    self.assertEqual(images, {'pearl-tf'})
    (image,) = manifests('kustomization')['Kustomization']['images']
    self.assertEqual(image['name'], 'pearl-tf')
    dockerfile = (DEPLOY / 'Dockerfile').read_text()
    self.assertIn('FROM python:3.11-', dockerfile)  # As setup.py requires.
    for line in re.findall(r'^COPY (.+) \S+$', dockerfile, re.MULTILINE):
      for source in line.split():
        self.assertTrue((ROOT / source).exists(), source)
    self.assertIn('ENTRYPOINT ["python", "-m"]', dockerfile)

  def test_services_ports_and_volumes_fit(self):
    service = manifests('replay')['Service']
    labels = pod('replay')['metadata']['labels']
    self.assertEqual(service['spec']['selector'], labels)
    (port,) = (entry['port'] for entry in service['spec']['ports'])
    self.assertIn(f'--port={port}', container('replay')['args'])
    for probe in ('startupProbe', 'livenessProbe'):
      self.assertEqual(container('replay')[probe]['tcpSocket']['port'], port)
    for name in ('learner', 'evaluator', 'actor'):
      self.assertIn(f'--server={service["metadata"]["name"]}:{port}', container(name)['args'])
    claim = manifests('experiment')['PersistentVolumeClaim']['metadata']['name']
    for name in ('learner', 'evaluator'):
      (volume,) = pod(name)['spec']['volumes']
      self.assertEqual(volume['persistentVolumeClaim']['claimName'], claim)
      (mount,) = container(name)['volumeMounts']
      (folder,) = (a for a in container(name)['args'] if a.startswith('--root_dir='))
      self.assertStartsWith(folder, f'--root_dir={mount["mountPath"]}/')
    for name in ('replay', 'learner', 'evaluator', 'actor'):
      self.assertContainsSubset(('requests', 'limits'), container(name)['resources'])

  def test_nobody_else_reaches_the_server(self):
    policy = manifests('network-policy')['NetworkPolicy']['spec']
    self.assertEqual(policy['podSelector']['matchLabels'], pod('replay')['metadata']['labels'])
    (rule,) = policy['ingress']
    (source,) = rule['from']
    allowed = {e['key']: e['values'] for e in source['podSelector']['matchExpressions']}
    for name in ('learner', 'evaluator', 'actor'):
      for key, value in pod(name)['metadata']['labels'].items():
        self.assertIn(value, allowed[key])
    self.assertEqual(compose()['networks'], {'replay': {'internal': True}})
    for service in compose()['services'].values():
      self.assertNotIn('ports', service)

  def test_the_kustomization_names_every_manifest(self):
    files = {path.name for path in (DEPLOY / 'kubernetes').glob('*.yaml')}
    resources = manifests('kustomization')['Kustomization']['resources']
    self.assertEqual({*resources, 'kustomization.yaml'}, files)

  def test_the_slurm_script_is_a_script(self):
    subprocess.run(['bash', '-n', DEPLOY / 'slurm.sh'], check=True)
    self.assertTrue((DEPLOY / 'slurm.sh').stat().st_mode & 0o111)


if __name__ == '__main__':
  absltest.main()
