"""What a signature must be like for a server that batches calls.

TensorFlow Serving loads signatures that break these rules, and they fail at the first call or as
soon as batching is on; so they are found here, from the signature alone.
"""

import re

from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from serving.verification import graph_index

DEFAULT_SIGNATURE = 'serving_default'
_SIMPLE_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_.\-]*')


def problems(index: graph_index.GraphIndex) -> list[str]:
  """Returns one line for each fault of the signatures; an empty list means none."""
  found = []
  if DEFAULT_SIGNATURE not in index.signatures:
    known = ', '.join(sorted(index.signatures)) or 'none'
    found.append(
      f'no signature {DEFAULT_SIGNATURE!r} (there are: {known}): a call that names none fails; pass'
      " signatures={'serving_default': ...} to tf.saved_model.save"
    )
  for key, signature in sorted(index.signatures.items()):
    found += _name_problems(f'signature {key!r}', key)
    for kind, tensors in (('input', signature.inputs), ('output', signature.outputs)):
      if not tensors:
        found.append(f'signature {key!r} has no {kind}: it can never be called; give it one')
      for name, info in sorted(tensors.items()):
        where = f'signature {key!r}, {kind} {name!r}'
        found += _name_problems(where, name) + _tensor_problems(where, info, index)
  return found


def _name_problems(where: str, name: str) -> list[str]:
  if _SIMPLE_NAME.fullmatch(name):
    return []
  return [f'{where}: the name must be letters, digits, _ - and . only, no slash; rename it']


def _tensor_problems(
  where: str, info: meta_graph_pb2.TensorInfo, index: graph_index.GraphIndex
) -> list[str]:
  if info.WhichOneof('encoding') != 'name':
    return [f'{where}: it is no dense tensor; clients can send and receive only those']
  if not index.has_tensor(info.name):
    return [f'{where}: tensor {info.name!r} is not in the graph; export it again']
  found = []
  if info.dtype in (types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT, types_pb2.DT_INVALID):
    found.append(f'{where}: {types_pb2.DataType.Name(info.dtype)} cannot travel to a client')
  shape = info.tensor_shape
  if shape.unknown_rank:
    found.append(f'{where}: its rank is unknown; fix it to [batch, ...] with an input_signature')
  elif not shape.dim:
    found.append(f'{where}: a scalar cannot be batched; make it [batch], one value for each row')
  elif shape.dim[0].size != -1:
    found.append(
      f'{where}: dimension 0 is {shape.dim[0].size}, but must be None: it is the batch of calls'
    )
  return found
