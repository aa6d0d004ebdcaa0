"""The distribution for robots: built, and used in an environment of its three dependencies."""

import ast
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

from absl.testing import absltest
from google.protobuf import any_pb2, wrappers_pb2
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
  get_model_metadata_pb2,
  get_model_status_pb2,
  model_pb2,
  predict_pb2,
)

from pearl_tf import version
from pearl_tf.testing import scripted_server, test_case
from serving.client import pearl_pb2

ROOT = pathlib.Path(__file__).resolve().parents[3]
SOURCE = ROOT / 'serving' / 'client'
# Everything that pip would install beside the wheel itself.
DEPENDENCIES = (
  'google.protobuf',
  'google._upb',
  'grpc',
  'numpy',
  'numpy.libs',
  'typing_extensions',
)
ORIGINALS = {
  'Any': any_pb2.Any,
  'GetModelMetadataRequest': get_model_metadata_pb2.GetModelMetadataRequest,
  'GetModelMetadataResponse': get_model_metadata_pb2.GetModelMetadataResponse,
  'GetModelStatusRequest': get_model_status_pb2.GetModelStatusRequest,
  'GetModelStatusResponse': get_model_status_pb2.GetModelStatusResponse,
  'ModelSpec': model_pb2.ModelSpec,
  'ModelVersionStatus': get_model_status_pb2.ModelVersionStatus,
  'PredictRequest': predict_pb2.PredictRequest,
  'PredictResponse': predict_pb2.PredictResponse,
  'Shape': tensor_shape_pb2.TensorShapeProto,
  'SignatureDef': meta_graph_pb2.SignatureDef,
  'SignatureDefMap': get_model_metadata_pb2.SignatureDefMap,
  'Tensor': tensor_pb2.TensorProto,
  'TensorInfo': meta_graph_pb2.TensorInfo,
  'Version': wrappers_pb2.Int64Value,
}
ROBOT = """
import sys, time
address, *sys.path[:0] = sys.argv[1:]
started = time.perf_counter()
import google.protobuf.descriptor_pool, grpc, numpy
import concurrent.futures, dataclasses, ipaddress, json, logging
dependencies = time.perf_counter() - started
from serving import client
own = time.perf_counter() - started - dependencies
with client.connect(address) as model, client.Session(model, seed=1) as session:
  session.begin_episode()
  session.step([1.0, 2.0], timeout=60.0)
  session.end_episode([1.0, 2.0], 1.0)
  assert session.adapt(timeout=60.0).count == 1
assert not any('tensorflow' in name or 'absl' in name for name in sys.modules)
assert own < dependencies, (own, dependencies)
print(client.__file__)
"""


def build(folder):
  """Builds the wheel from a copy of the sources; returns it."""
  source = shutil.copytree(SOURCE, folder / 'client', ignore=shutil.ignore_patterns('__pycache__'))
  code = f'from setuptools import build_meta; print(build_meta.build_wheel({str(folder)!r}))'
  subprocess.run([sys.executable, '-c', code], cwd=source, check=True, capture_output=True)
  (wheel,) = folder.glob('*.whl')
  return wheel


class DistributionTest(test_case.TestCase):
  def test_a_robot_with_three_packages(self):
    folder = self.temp_dir()
    wheel = build(folder)
    self.assertEqual(wheel.name, f'pearl_client-{version.__version__}-py3-none-any.whl')
    installed = folder / 'installed'
    zipfile.ZipFile(wheel).extractall(installed)
    self.assertTrue((installed / 'serving' / 'client' / 'py.typed').is_file())
    site = pathlib.Path(importlib.util.find_spec('numpy').origin).parents[1]
    for name in DEPENDENCIES:
      path = name.replace('.', '/') if name.startswith('google') else name
      for found in (*site.glob(path), *site.glob(f'{path}.py')):
        link = installed / found.relative_to(site)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(found)
    with scripted_server.ScriptedServer({1: scripted_server.ToyModel(11)}) as server:
      # -S: without site-packages; -I: without this folder and PYTHONPATH.
      result = subprocess.run(
        [sys.executable, '-I', '-S', '-c', ROBOT, server.address, str(installed)],
        capture_output=True,
        text=True,
      )
    self.assertEqual(result.returncode, 0, result.stderr)
    self.assertStartsWith(result.stdout, str(installed))

  def test_sources_are_those_of_an_older_python(self):
    for path in SOURCE.glob('*.py'):
      ast.parse(path.read_text(), feature_version=(3, 9))

  def test_messages_are_tensorflow_serving_s(self):
    description = (SOURCE / 'pearl.proto').read_text()
    written = [(name, int(number)) for name, number in re.findall(r'(\w+) = (\d+);', description)]
    generated = []

    def compare(ours, theirs):
      for field in ours.fields:
        original = theirs.fields_by_name[field.name]
        wanted = (original.number, original.label)
        self.assertEqual((field.number, field.label), wanted, field.full_name)
        if original.type != original.TYPE_ENUM:
          self.assertEqual(field.type, original.type, field.full_name)
        if not ours.GetOptions().map_entry:
          generated.append((field.name, field.number))
      for nested in ours.nested_types:
        compare(nested, theirs.nested_types_by_name[nested.name])

    for name, theirs in ORIGINALS.items():
      compare(pearl_pb2.DESCRIPTOR.message_types_by_name[name], theirs.DESCRIPTOR)
    self.assertEqual(set(ORIGINALS), set(pearl_pb2.DESCRIPTOR.message_types_by_name))
    self.assertCountEqual(generated, written)


if __name__ == '__main__':
  absltest.main()
