"""The files of one version, looked at before TensorFlow opens any of them.

`check` refuses a version that points outside the model's folder or is visibly incomplete, with the
codes that TensorFlow Serving's loader gives.
"""

import os
import pathlib

import grpc
from google.protobuf import message
from tensorflow.core.protobuf import saved_model_pb2

from serving import errors

MODEL = 'saved_model.pb'
VARIABLES = 'variables'
_VARIABLE_OPS = frozenset({'VarHandleOp', 'VariableV2', 'Variable'})
_TAGS = {'serve'}


def check(version_dir: pathlib.Path, *, root: pathlib.Path) -> None:
  """Checks a version folder.

  Args:
    version_dir: The folder with `saved_model.pb`.
    root: Symbolic links must not lead out of this folder.

  Raises:
    ServingError: NOT_FOUND without a model, PERMISSION_DENIED for a link to elsewhere, OUT_OF_RANGE
      for a truncated file and DATA_LOSS for variables without their values.
  """
  root = root.resolve()
  for path in _walk(version_dir):
    if not path.resolve().is_relative_to(root):
      raise errors.ServingError(
        grpc.StatusCode.PERMISSION_DENIED, f'{path} leads out of {root}; copy the file instead'
      )
  if not (version_dir / MODEL).is_file():
    raise errors.not_found(
      f'Could not find SavedModel .pb or .pbtxt at supplied export directory path: {version_dir}. '
      'Check that the directory exists and that you have the right permissions for accessing it.'
    )
  graph = _graph(version_dir / MODEL)
  if any(node.op in _VARIABLE_OPS for node in graph.graph_def.node):
    _check_variables(version_dir / VARIABLES)


def _check_variables(folder: pathlib.Path) -> None:
  """Refuses variables without all of their files, which TensorFlow Serving would load or not."""
  shards = [path.name for path in folder.glob('variables.data-*-of-*')]
  expected = {name.rpartition('-')[2] for name in shards}
  if not (folder / 'variables.index').is_file() or expected != {f'{len(shards):05d}'}:
    raise errors.ServingError(
      grpc.StatusCode.DATA_LOSS,
      f'{folder} lacks values of variables: an incomplete copy? Copy to a folder whose name is no '
      'number, then rename it',
    )


def _walk(folder: pathlib.Path):
  """Yields the folder and what it holds; links are not followed."""
  yield folder
  for parent, folders, files in os.walk(folder):
    yield from (pathlib.Path(parent, name) for name in (*folders, *files))


def _graph(path: pathlib.Path):
  model = saved_model_pb2.SavedModel()
  try:
    model.ParseFromString(path.read_bytes())
  except message.DecodeError as error:
    # The code and text of TensorFlow's reader, which meets the end of the file first.
    raise errors.ServingError(
      grpc.StatusCode.OUT_OF_RANGE, f'Read less bytes than requested: {path} is truncated or broken'
    ) from error
  for graph in model.meta_graphs:
    if set(graph.meta_info_def.tags) == _TAGS:
      return graph
  raise errors.not_found(
    'Could not find meta graph def matching supplied tags: { serve }. To inspect available '
    f'tag-sets in the SavedModel, please use the SavedModel CLI: `saved_model_cli` ({path})'
  )
