"""Reads `saved_model.pb` and tells what is in it: nodes, functions, and what signatures reach.

It builds no graph and starts no session; the rules that judge what is found are elsewhere.
"""

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf import message as protobuf
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

FILE_NAME = 'saved_model.pb'
TAG = 'serve'
# Run once when the model is loaded; they are no calls for clients and have neither inputs nor
# batches.
HOUSEKEEPING_SIGNATURES = frozenset({'__saved_model_init_op', '__saved_model_train_op'})


class UnreadableModelError(Exception):
  """A folder that holds no SavedModel with the serving tag."""


class PlacedNode(NamedTuple):
  """A node and where it stands.

  Attributes:
    node: the node.
    function: name of its function in the library, or None in the main graph.
  """

  node: node_def_pb2.NodeDef
  function: str | None

  def __str__(self) -> str:
    if self.function is None:
      return f"node '{self.node.name}'"
    return f"node '{self.node.name}' of function '{self.function}'"


def read(version_dir: str | pathlib.Path) -> meta_graph_pb2.MetaGraphDef:
  """Returns the graph that a server would load: the one tagged with `serve` and nothing else.

  Raises:
    UnreadableModelError: if there is none.
  """
  path = pathlib.Path(version_dir) / FILE_NAME
  try:
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
  except OSError as error:
    raise UnreadableModelError(f'cannot read {path}: {error.strerror}') from error
  except protobuf.DecodeError as error:
    raise UnreadableModelError(f'{path} is truncated or no SavedModel: {error}') from error
  found = [sorted(graph.meta_info_def.tags) for graph in model.meta_graphs]
  if [TAG] not in found:
    raise UnreadableModelError(
      f'{path} has no graph with the one tag {TAG!r}, only {found}; write it by'
      ' tf.saved_model.save, which sets that tag'
    )
  return model.meta_graphs[found.index([TAG])]


class GraphIndex:
  """Finds nodes of a graph by name, and what a signature's outputs depend on.

  Args:
    meta_graph: what `read` returns.
  """

  def __init__(self, meta_graph: meta_graph_pb2.MetaGraphDef):
    self.signatures = {
      key: signature
      for key, signature in meta_graph.signature_def.items()
      if key not in HOUSEKEEPING_SIGNATURES
    }
    self.functions = {item.signature.name: item for item in meta_graph.graph_def.library.function}
    self._graph = meta_graph.graph_def
    self._by_name = {node.name: node for node in self._graph.node}

  def has_tensor(self, tensor_name: str) -> bool:
    """Tells whether the main graph has the node of a tensor such as `x:0`."""
    return _node_name(tensor_name) in self._by_name

  def nodes(self) -> Iterator[PlacedNode]:
    """Yields every node of the main graph and of all functions."""
    for node in self._graph.node:
      yield PlacedNode(node, None)
    for name, function in self.functions.items():
      for node in function.node_def:
        yield PlacedNode(node, name)

  def reached_nodes(self, signature_name: str) -> Iterator[PlacedNode]:
    """Yields what runs when a client calls a signature, functions included."""
    outputs = self.signatures[signature_name].outputs.values()
    queue, seen = [_node_name(info.name) for info in outputs], set()
    functions = set()
    while queue:
      name = queue.pop()
      if name in seen or name not in self._by_name:
        continue
      seen.add(name)
      node = self._by_name[name]
      queue += [_node_name(tensor) for tensor in node.input]
      yield PlacedNode(node, None)
      yield from self._called_nodes(node, functions)

  def _called_nodes(self, caller: node_def_pb2.NodeDef, seen: set[str]) -> Iterator[PlacedNode]:
    queue = [caller]
    while queue:
      for name in self._called_functions(queue.pop()):
        if name not in seen:
          seen.add(name)
          queue += self.functions[name].node_def
          yield from (PlacedNode(node, name) for node in self.functions[name].node_def)

  def _called_functions(self, node: node_def_pb2.NodeDef) -> list[str]:
    names = [node.op]
    for value in node.attr.values():
      names += [value.func.name, *(function.name for function in value.list.func)]
    return [name for name in names if name in self.functions]


def _node_name(tensor_name: str) -> str:
  return tensor_name.removeprefix('^').partition(':')[0]
