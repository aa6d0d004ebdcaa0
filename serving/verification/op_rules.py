"""Which ops a served graph may hold.

Judged by name and by the kernels of TensorFlow itself, as a stock server has neither Python nor
the libraries that extend TensorFlow at import (Reverb's, for one). TF-Text's and Decision Forests'
ops are refused too: stock links them, but nothing here could prove that they run.
"""

import functools
import re
from collections.abc import Mapping

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, kernel_def_pb2, node_def_pb2, op_def_pb2

from serving.verification import c_api, graph_index

# tf.function(jit_compile=True) leaves this on the function and on its call.
XLA_MARK = '_XlaMustCompile'
_DEVICES = ('CPU', 'DEFAULT')  # DEFAULT: kernels that any device takes.
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


def problems(index: graph_index.GraphIndex) -> list[str]:
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
  if not _has_kernel(node):
    # Only here: Keras keeps a variant of its recurrent layers for GPUs, which a CPU never calls.
    return 'it has no kernel for a CPU with these types; use another op'
  if op in _changing_state() and not _READS_STATE.fullmatch(op):
    return (
      'it keeps state in the server, which all clients would share; take the state as an input and'
      ' return it as an output'
    )
  return None


@functools.cache
def _changing_state() -> frozenset[str]:
  operations = op_def_pb2.OpList.FromString(c_api.registered_ops()).op
  return frozenset(
    op.name
    for op in operations
    if op.is_stateful or any(argument.is_ref for argument in op.input_arg)
  )


@functools.cache
def _kernels() -> dict[str, list[kernel_def_pb2.KernelDef]]:
  """Returns the CPU kernels by op; some 0.3 s, once a process."""
  by_op = {}
  for kernel in kernel_def_pb2.KernelList.FromString(c_api.registered_kernels()).kernel:
    if kernel.device_type in _DEVICES:
      by_op.setdefault(kernel.op, []).append(kernel)
  return by_op


def _has_kernel(node: node_def_pb2.NodeDef) -> bool:
  return any(_accepts(kernel, node) for kernel in _kernels().get(node.op, []))


def _accepts(kernel: kernel_def_pb2.KernelDef, node: node_def_pb2.NodeDef) -> bool:
  """Tells whether the types of a node fit; those it leaves open or to a default pass."""
  return all(
    node.attr[constraint.name].type in constraint.allowed_values.list.type
    for constraint in kernel.constraint
    if constraint.name in node.attr and node.attr[constraint.name].WhichOneof('value') == 'type'
  )


def _callers(index: graph_index.GraphIndex) -> dict[str, set[str]]:
  """Returns the signatures that reach each function or, after a slash, node of the main graph."""
  callers = {}
  for key in index.signatures:
    for node, function in index.reached_nodes(key):
      callers.setdefault(function or f'/{node.name}', set()).add(key)
  return callers


def _line(
  what: str, text: str, nodes: list[graph_index.PlacedNode], callers: dict[str, set[str]]
) -> str:
  if not nodes:  # A function that is marked, but whose caller is not.
    return f"function '{what}': {text}"
  reached = set().union(
    *(callers.get(placed.function or f'/{placed.node.name}', ()) for placed in nodes)
  )
  by = f', called by {", ".join(sorted(reached))}' if reached else ', called by no signature'
  more = f' and {len(nodes) - 1} more' if len(nodes) > 1 else ''
  return f"'{what}' ({nodes[0]}{more}{by}): {text}"
