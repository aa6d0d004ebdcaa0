"""Whether a SavedModel is fit to be served, judged from its `saved_model.pb` alone.

A stock TensorFlow Serving has neither Python nor XLA nor the libraries that extend TensorFlow at
import (Reverb's, for one), shares what a graph keeps among all clients, and batches their rows.
What breaks these rules often loads and then fails at a call, so it is found here, by name: no graph
is built and no session started, and a server can judge before it loads. That a model passes does
not prove that its signatures run; the warm-up records do.
"""

import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import tensorflow as tf
from google.protobuf import message as protobuf
from tensorflow.core.framework import attr_value_pb2, node_def_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

# What TensorFlow's own C++ says of its ops; there is no public way to ask.
from tensorflow.python.framework import op_def_registry

FILE_NAME = 'saved_model.pb'
TAG = 'serve'
# Run once when the model is loaded; they are no calls for clients and have neither inputs nor
# batches.
HOUSEKEEPING_SIGNATURES = frozenset({'__saved_model_init_op', '__saved_model_train_op'})


DEFAULT_SIGNATURE = 'serving_default'
_SIMPLE_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_.\-]*')


# tf.function(jit_compile=True) leaves this on the function and on its call.
XLA_MARK = '_XlaMustCompile'
_PYTHON = re.compile('EagerPyFunc|PyFunc|PyFuncStateless')
# The excluded are functions of their inputs, seeds among them.
_RANDOM = re.compile(
  '(?!Stateless|RandomGammaGrad|RandomIndexShuffle).*(CandidateSampler|Multinomial'
  '|NonDeterministicInts|Random|Rng|SeedGenerator|TruncatedNormal|Stateful(StandardNormal|Uniform)).*'
)
# Not the vocabularies that InitializeTableFromTextFile reads from a model's own assets.
_FILES_AND_NETWORK = re.compile(
  '(?!InitializeTable).*(DataService|File|LMDB|Record|Remote|Rpc|Sql|SummaryWriter|TextLine).*'
  '|CreateSummary.*|Debug.*|DistributedSave|Load(Dataset|AndRemapMatrix)|PrintV2'
  '|Restore(Slice)?|Save(Dataset.*|Slices)?|Snapshot.+'
)
# Every SavedModel has them to restore its variables; a client must not be able to run them.
_SAVER = re.compile('MergeV2Checkpoints|RestoreV2|SaveV2|ShardedFilename')
# Stateful in name only: they read what loading set up, or call functions, whose ops are judged too.
_READS_STATE = re.compile(
  'Assert|BatchFunction|Case|CheckNumerics(V2)?|DeepCopy|DeviceIndex|DisableCopyOnRead|Empty'
  '|GuaranteeConst|HashTable(V2)?|If|LookupTable(Export|Find|Size)(V2)?'
  '|Placeholder|Print|ReadVariableOp|ResourceGather(Nd)?|StatefulPartitionedCall'
  '|StatelessRandomGet.*|TensorArray.*V3|VarHandleOp|VarIsInitializedOp|VariableShape|While'
)


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


def problems(version_dir: str | pathlib.Path) -> list[str]:
  """Finds what keeps a stock server from loading, calling or batching a model.

  Args:
    version_dir: folder with `saved_model.pb`.

  Returns:
    One line for each problem, with the remedy; an empty list means that none was found.
  """
  try:
    index = GraphIndex(read(version_dir))
  except UnreadableModelError as error:
    return [str(error)]
  return signature_problems(index) + op_problems(index)


def signature_problems(index: GraphIndex) -> list[str]:
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


def _tensor_problems(where: str, info: meta_graph_pb2.TensorInfo, index: GraphIndex) -> list[str]:
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


def op_problems(index: GraphIndex) -> list[str]:
  """Returns one line for each op that must not be served; an empty list means none.

  What no client can reach is judged as well, since loading a model already runs part of it.
  """
  callers = _callers(index)
  found = {}
  for placed in index.nodes():
    if placed.node.op not in index.functions and (text := _op_problem(placed.node)):
      found.setdefault((placed.node.op, text), []).append(placed)
    if _is_compiled(placed.node.attr):
      called = placed.node.attr['f'].func.name if 'f' in placed.node.attr else placed.node.op
      found.setdefault(_compiled(called), []).append(placed)
  for name, function in index.functions.items():
    if _is_compiled(function.attr):
      found.setdefault(_compiled(name), [])
  for key in sorted(index.signatures):
    for placed in index.reached_nodes(key):
      if placed.node.op not in index.functions and (text := _call_problem(placed.node)):
        found.setdefault((placed.node.op, text), []).append(placed)
  return [_line(what, text, nodes, callers) for (what, text), nodes in found.items()]


def _is_compiled(attributes: Mapping[str, attr_value_pb2.AttrValue]) -> bool:
  # Asking the map first, as looking a missing key up would add it to the message.
  return XLA_MARK in attributes and attributes[XLA_MARK].b


def _compiled(name: str) -> tuple[str, str]:
  return (
    name,
    'it is compiled by XLA (jit_compile=True), which a stock server switches off: the call would'
    ' answer INTERNAL; export it without jit_compile',
  )


def _op_problem(node: node_def_pb2.NodeDef) -> str | None:
  """Returns what is wrong with an op wherever it stands."""
  if _SAVER.fullmatch(node.op):
    return None
  if _PYTHON.fullmatch(node.op):
    return 'it runs Python, which a stock server does not have; write it with TensorFlow ops'
  if _RANDOM.fullmatch(node.op):
    return (
      'it draws random numbers from state in the server, so that no call can be repeated; take a'
      ' seed per row as an input and use tf.random.stateless_*'
    )
  if _FILES_AND_NETWORK.fullmatch(node.op):
    return 'it reads or writes files or the network; remove it from what is exported'
  # Ops that a library registers at import get a kernel in this process, but no entry here.
  if not hasattr(tf.raw_ops, node.op):
    return 'it is no op of TensorFlow, so the server cannot load it; use those of TensorFlow only'
  return None


def _call_problem(node: node_def_pb2.NodeDef) -> str | None:
  """Returns what is wrong with an op that a client's call would run."""
  op = node.op
  if _SAVER.fullmatch(op):
    return 'a client could read or write files by it; remove it from the signature'
  if _op_problem(node) is not None:  # Told already.
    return None
  if _changes_state(op) and not _READS_STATE.fullmatch(op):
    return (
      'it keeps state in the server, which all clients would share; take the state as an input and'
      ' return it as an output'
    )
  return None


def _changes_state(op: str) -> bool:
  definition = op_def_registry.get(op)
  return definition is not None and (
    definition.is_stateful or any(argument.is_ref for argument in definition.input_arg)
  )


def _callers(index: GraphIndex) -> dict[str, set[str]]:
  """Returns the signatures that reach each function or, after a slash, node of the main graph."""
  callers = {}
  for key in index.signatures:
    for node, function in index.reached_nodes(key):
      callers.setdefault(function or f'/{node.name}', set()).add(key)
  return callers


def _line(what: str, text: str, nodes: list[PlacedNode], callers: dict[str, set[str]]) -> str:
  if not nodes:  # A function that is marked, but whose caller is not.
    return f"function '{what}': {text}"
  reached = set().union(
    *(callers.get(placed.function or f'/{placed.node.name}', ()) for placed in nodes)
  )
  by = f', called by {", ".join(sorted(reached))}' if reached else ', called by no signature'
  more = f' and {len(nodes) - 1} more' if len(nodes) > 1 else ''
  return f"'{what}' ({nodes[0]}{more}{by}): {text}"
