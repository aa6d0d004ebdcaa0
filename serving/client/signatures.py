"""The model's signatures as functions that check, split and pad what they send.

Each function is a generator: it yields `messages.Predict`, is sent `messages.Prediction`, and
returns the result. So one definition serves the blocking and the asyncio client (`connection`,
`aio`), and tests need no network.
"""

import math
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

import numpy as np
from numpy import typing

from serving.client import belief as belief_lib
from serving.client import errors, interface, messages, options, validation

Result = TypeVar('Result')
Steps = Generator[messages.Call, messages.Answer, Result]

# Contexts are padded to one of these lengths, so that calls of several clients fit into one batch,
# and the server meets few shapes. The last is the longest that is sent at once.
LENGTHS = (1, 16, 64, 256, 1024, 4096)
# Rows and elements of one call: the limits of our server, and what a message of 16 MiB holds.
MAX_ROWS = 256
MAX_ELEMENTS = 2**20
_STATE_OUTPUTS = ('eta', 'precision', 'count', 'mean', 'variance', 'latent_tag', 'status')


class Signatures:
  """The signatures of one version of a model, bound to its sizes."""

  def __init__(self, version: int, sizes: interface.Interface, deadlines: options.Deadlines):
    """Binds them.

    Args:
      version: every call is pinned to it.
      sizes: of that version.
      deadlines: of each call; what needs several calls may take several times as long.
    """
    self.version = version
    self.sizes = sizes
    self._deadlines = deadlines

  def encode(self, contexts: Sequence[np.ndarray]) -> Steps[list[belief_lib.Belief]]:
    """Infers one belief per context.

    Args:
      contexts: `B` arrays `[N_b, C]`; an empty one gives the prior. One longer than `LENGTHS[-1]`
        takes further calls of `update`.

    Returns:
      `B` beliefs.

    Raises:
      InvalidInputError: if a context has the wrong shape or is not finite.
    """
    pieces = self._pieces(contexts)
    beliefs = yield from self._infer('encode', {}, [piece[0] for piece in pieces])
    return (yield from self._update(beliefs, pieces, first=1))

  def update(
    self, beliefs: Sequence[belief_lib.Belief], contexts: Sequence[np.ndarray]
  ) -> Steps[list[belief_lib.Belief]]:
    """Adds the evidence of new transitions.

    Args:
      beliefs: `B` beliefs of this model.
      contexts: `B` arrays `[N_b, C]`, the new transitions only.

    Returns:
      `B` beliefs.

    Raises:
      InvalidInputError: if a context has the wrong shape or is not finite.
    """
    return (yield from self._update(beliefs, self._pieces(contexts), first=0))

  def sample_latents(
    self, beliefs: Sequence[belief_lib.Belief], seeds: typing.ArrayLike
  ) -> Steps[np.ndarray]:
    """Draws one latent per belief.

    Args:
      beliefs: `B` beliefs of this model.
      seeds: `[B, 2] int32`; a row's latent is a function of its belief and seed alone.

    Returns:
      `[B, L] float32`.
    """
    seeds = validation.integers('seeds', seeds, [len(beliefs), 2], np.int32)
    inputs = {**belief_lib.stack(beliefs), 'seed': seeds}
    outputs = yield from self._run('sample_z', inputs, ('z', 'status'), self._deadlines.act)
    return outputs['z']

  def act(
    self,
    observations: typing.ArrayLike,
    latents: typing.ArrayLike,
    latent_tags: typing.ArrayLike,
    seeds: typing.ArrayLike | None = None,
  ) -> Steps[np.ndarray]:
    """Chooses one action per row.

    Args:
      observations: `[B, O]`.
      latents: `[B, L]`.
      latent_tags: `[B] int64`, of the beliefs the latents were drawn from.
      seeds: `[B, 2] int32` to sample actions; None for the mean action.

    Returns:
      `[B, A] float32` in [-1, 1].

    Raises:
      InvalidInputError: if something has the wrong shape or is not finite.
    """
    observations = validation.floats(
      'observation', observations, [None, self.sizes.observation_size]
    )
    rows = len(observations)
    inputs = {
      'observation': observations,
      'z': validation.floats('latent', latents, [rows, self.sizes.latent_size]),
      'latent_tag': validation.integers('latent_tag', latent_tags, [rows], np.int64),
    }
    signature = 'act'
    if seeds is not None:
      signature = 'act_sample'
      inputs['seed'] = validation.integers('seeds', seeds, [rows, 2], np.int32)
    outputs = yield from self._run(signature, inputs, ('action', 'status'), self._deadlines.act)
    return outputs['action']

  def _update(
    self, beliefs: Sequence[belief_lib.Belief], pieces: Sequence[list[np.ndarray]], *, first: int
  ) -> Steps[list[belief_lib.Belief]]:
    """Adds the pieces of every context from number `first` on, one of each at a time."""
    beliefs = list(beliefs)
    for turn in range(first, max(map(len, pieces), default=0)):
      rows = [row for row, piece in enumerate(pieces) if turn < len(piece)]
      state = belief_lib.stack([beliefs[row] for row in rows])
      updated = yield from self._infer('update', state, [pieces[row][turn] for row in rows])
      for row, belief in zip(rows, updated, strict=True):
        beliefs[row] = belief
    return beliefs

  def _infer(
    self, signature: str, state: dict[str, np.ndarray], contexts: Sequence[np.ndarray]
  ) -> Steps[list[belief_lib.Belief]]:
    inputs = {
      'context': _pad(contexts, self.sizes.context_size),
      'num_transitions': np.array([len(context) for context in contexts], np.int32),
      **state,
    }
    outputs = yield from self._run(signature, inputs, _STATE_OUTPUTS, self._deadlines.adapt)
    return belief_lib.unstack(outputs, self.version)

  def _pieces(self, contexts: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Splits every context, float32, into pieces short enough for one call, at least one."""
    result = []
    for context in contexts:
      checked = validation.floats('context', context, [None, self.sizes.context_size])
      starts = range(0, len(checked), LENGTHS[-1]) or [0]
      result.append([checked[start : start + LENGTHS[-1]] for start in starts])
    return result

  def _run(
    self, signature: str, inputs: dict[str, np.ndarray], outputs: tuple[str, ...], seconds: float
  ) -> Steps[dict[str, np.ndarray]]:
    """Calls a signature, in parts where one call would be too large, and checks the status."""
    num_rows = len(next(iter(inputs.values())))
    widest = max(math.prod(array.shape[1:]) for array in inputs.values())
    step = max(1, min(MAX_ROWS, MAX_ELEMENTS // max(1, widest)))
    parts = []
    for start in range(0, num_rows, step) or [0]:
      part = {name: array[start : start + step] for name, array in inputs.items()}
      answer = yield messages.Predict(signature, self.version, part, outputs, seconds)
      parts.append(answer.outputs)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in outputs}
    for name, array in joined.items():
      if len(array) != num_rows:
        raise errors.ModelMismatchError(
          f'{signature} answered {len(array)} rows of {name!r} for {num_rows}'
        )
    errors.check_status(joined['status'], signature)
    return joined


def is_refused_update(error: Exception) -> bool:
  """Tells whether a model says that it cannot update, as one with a recurrent encoder does."""
  return isinstance(error, errors.CallError) and 'update is not supported' in error.details


def drive(steps: Steps[Result], answer_fn: Callable[[messages.Call], messages.Answer]) -> Result:
  """Runs steps to their end, blocking.

  Args:
    steps: a generator of calls.
    answer_fn: makes a call; what it raises is raised in the steps, which may know better.
  """
  try:
    call = next(steps)
    while True:
      try:
        answer = answer_fn(call)
      except errors.ClientError as error:
        call = steps.throw(error)
      else:
        call = steps.send(answer)
  except StopIteration as stop:
    return stop.value


def _pad(contexts: Sequence[np.ndarray], context_size: int) -> np.ndarray:
  """Returns `[B, T, C]`, T being one of `LENGTHS`, zeros where a context has ended."""
  longest = max((len(context) for context in contexts), default=0)
  length = next(length for length in LENGTHS if length >= longest)
  padded = np.zeros([len(contexts), length, context_size], np.float32)
  for row, context in zip(padded, contexts, strict=True):
    row[: len(context)] = context
  return padded
