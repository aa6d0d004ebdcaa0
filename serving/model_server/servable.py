"""One version of one model in memory: load, check, warm up, run, lend, close."""

import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import grpc
import numpy as np
from absl import logging
from tensorflow.core.protobuf import meta_graph_pb2

from serving import errors, judge
from serving.model_server import graph_session, signatures, version_files, warmup

# Aliases fed, aliases fetched, and the function of the one that gives the other.
_Entry = tuple[tuple[str, ...], tuple[str, ...], Callable[..., list[np.ndarray]]]


class Servable:
  """A loaded version.

  It is lent out: `with servable:` keeps it in memory until the block ends, even if it is retired
  meanwhile. Borrowing a servable that was freed already raises NOT_FOUND.

  Attributes:
    name: Of the model.
    version: Number of its folder.
    signatures: SignatureDef by key, as exported, the loader's own included.
  """

  def __init__(self, name: str, version: int, session: graph_session.GraphSession):
    """Takes over a session; use `load`."""
    self.name = name
    self.version = version
    self.signatures: dict[str, meta_graph_pb2.SignatureDef] = dict(session.meta_graph.signature_def)
    self._session = session
    self._ready: dict[str, signatures.Signature] = {}
    self._callables: dict[str, _Entry] = {}
    self._lock = threading.Lock()
    self._leases = 0
    self._on_idle: Callable[[], None] | None = None

  @classmethod
  def load(
    cls,
    path: pathlib.Path,
    *,
    name: str,
    version: int,
    root: pathlib.Path | None = None,
    warm_up: bool = True,
  ) -> Self:
    """Loads a version and replays its warm-up records.

    Args:
      path: Folder with `saved_model.pb`.
      name: Of the model.
      version: Its number.
      root: Folder that symbolic links must not leave; the version's parent if None.
      warm_up: Whether to replay the records.

    Raises:
      ServingError: If the files are incomplete, if the graph holds what stock TensorFlow Serving
        cannot run, or if a record fails.
    """
    path = pathlib.Path(path)
    session = None
    try:
      version_files.check(path, root=root or path.parent)
      _check_ops(path)
      session = graph_session.GraphSession(path)
      servable = cls(name, version, session)
      servable._compile()
      if warm_up:
        warmup.replay(servable, path)
    except Exception as error:
      if session is not None:
        session.close()
      raise errors.from_exception(error) from error
    return servable

  @property
  def callables(self) -> frozenset[str]:
    """Names of the signatures that clients can call."""
    return frozenset(self._callables)

  def signature(self, name: str = '') -> signatures.Signature:
    """Returns a signature ready for checks; an empty name means `serving_default`.

    Raises:
      ServingError: FAILED_PRECONDITION if there is none of that name.
    """
    ready = self._ready.get(name)
    if ready is None:
      name, proto = signatures.find(self.signatures, name)
      # Asking twice at the same time makes two that are equal.
      ready = self._ready.setdefault(name, signatures.Signature(proto, name))
    return ready

  def run(
    self, signature_name: str, inputs: Mapping[str, np.ndarray], output_names: Sequence[str]
  ) -> dict[str, np.ndarray]:
    """Runs the graph in the calling thread; several threads may do so at once.

    Args:
      signature_name: Key; empty for `serving_default`.
      inputs: Arrays that passed `Signature.check_inputs`.
      output_names: Aliases that `Signature.select_outputs` gave.

    Returns:
      Arrays by alias.

    Raises:
      ServingError: With the code of the op that failed.
    """
    signature = self.signature(signature_name)
    entry = self._callables.get(signature.name)
    if entry is None:
      if signature.outputs:
        raise self._not_found()
      raise errors.invalid_argument('Must specify at least one target to fetch or execute.')
    feeds, fetches, call = entry
    inputs = signature.with_defaults(inputs)
    try:
      outputs = dict(zip(fetches, call(*[inputs[alias] for alias in feeds]), strict=True))
    except Exception as error:
      raise errors.from_exception(error) from error
    return {alias: outputs[alias] for alias in output_names}

  def __enter__(self) -> Self:
    with self._lock:
      if self._session is None:
        raise self._not_found()
      self._leases += 1
    return self

  def __exit__(self, *exc_info):
    with self._lock:
      self._leases -= 1
      on_idle = self._on_idle if self._leases == 0 else None
    if on_idle is not None:
      on_idle()

  def retire(self, on_idle: Callable[[], None]) -> None:
    """Asks to be told when nobody borrows it any more; the caller must have stopped lending it.

    Args:
      on_idle: Called once or, with new borrowers in between, more often; in this thread if it is
        idle now, else in that of the last borrower.
    """
    with self._lock:
      self._on_idle = on_idle
      is_idle = self._leases == 0
    if is_idle:
      on_idle()

  def close(self) -> bool:
    """Frees the graph unless it is borrowed; returns whether it is freed."""
    with self._lock:
      if self._leases:
        return False
      session, self._session = self._session, None
      self._callables.clear()
    if session is not None:
      session.close()
    return True

  def _compile(self) -> None:
    """Makes the callable of every signature, each for all outputs; `run` leaves out the others.

    Here and not at a first call: making one takes a tenth of a second.
    """
    for key in self.signatures.keys() - judge.HOUSEKEEPING_SIGNATURES:
      signature = self.signature(key)
      if not signature.outputs:
        continue
      feeds, fetches = tuple(signature.inputs), tuple(signature.outputs)
      call = self._session.make_callable(
        [signature.inputs[alias].name for alias in feeds],
        [signature.outputs[alias].name for alias in fetches],
      )
      self._callables[signature.name] = (feeds, fetches, call)

  def _not_found(self) -> errors.ServingError:
    return errors.not_found(
      f'Servable not found for request: Specific({self.name}, {self.version})'
    )


def _check_ops(path: pathlib.Path) -> None:
  """Refuses what a stock server could not run; what it could run but not batch is only logged."""
  index = judge.GraphIndex(judge.read(path))
  for problem in judge.signature_problems(index):
    logging.warning('%s: %s', path, problem)
  if problems := judge.op_problems(index):
    raise errors.ServingError(
      grpc.StatusCode.FAILED_PRECONDITION, f'{path} must not be served: {"; ".join(problems)}'
    )
