"""What can go wrong between a client and a server, one exception for each thing a caller can do.

Everything derives from `ClientError`. Whether to retry has been decided before any of these is
raised: what is left is for the caller.
"""

from collections.abc import Sequence

import grpc

BAD_NUMBERS = 3
FOREIGN_LATENT_TAG = 9
NUM_TRANSITIONS_OUT_OF_RANGE = 11
# TensorFlow Serving's text for a version that is not, or no longer, loaded.
_VERSION_GONE = 'Specific('


class ClientError(Exception):
  """Any failure of the serving client."""


class InvalidInputError(ClientError, ValueError):
  """Data that no model would accept; nothing was sent."""


class ModelMismatchError(ClientError, ValueError):
  """The served model is not PEARL's, or not one for this environment."""


class CallError(ClientError):
  """The server, or the way to it, refused a call.

  Attributes:
    code: `grpc.StatusCode`.
    details: the text that came with it.
    call: what was called, for example the signature.
  """

  def __init__(self, code: grpc.StatusCode, details: str, call: str):
    super().__init__(f'{call}: {code.name}: {details}')
    self.code = code
    self.details = details
    self.call = call


class VersionGoneError(CallError):
  """The version of the model that the call is pinned to is not served any more."""


class RowError(ClientError):
  """The model refused single rows of a call.

  Attributes:
    status: the status of the first refused row, a gRPC code number.
    rows: the indices of all refused rows.
    call: the signature.
  """

  reason = 'an unknown fault'

  def __init__(self, status: int, rows: Sequence[int], call: str):
    super().__init__(f'{call}: status {status} in row(s) {list(rows)}: {self.reason}')
    self.status = status
    self.rows = tuple(rows)
    self.call = call


class BadNumbersError(RowError):
  """Numbers that are not finite, a precision that is not positive, or a negative count."""

  reason = 'numbers that are not finite or not possible'


class ForeignLatentError(RowError):
  """A belief or latent of another model: latent spaces must not be mixed."""

  reason = 'the latent_tag is that of another model; encode the raw transitions on this one'


class LengthError(RowError):
  """A `num_transitions` below zero or above the length of the context."""

  reason = 'num_transitions does not fit the context'


class VersionChangedError(ClientError):
  """The model was replaced in the middle of an episode, and the caller asked to be told."""


class ContextLostError(ClientError):
  """The model was replaced, and the transitions the belief came from are not here to be encoded."""


_BY_STATUS = {
  BAD_NUMBERS: BadNumbersError,
  FOREIGN_LATENT_TAG: ForeignLatentError,
  NUM_TRANSITIONS_OUT_OF_RANGE: LengthError,
}


def from_rpc(error: grpc.RpcError, call: str) -> CallError:
  """Returns the exception for a failed call.

  Args:
    error: what `grpc` or `grpc.aio` raised.
    call: what was called.
  """
  code, details = error.code(), error.details() or ''
  if code is grpc.StatusCode.NOT_FOUND and _VERSION_GONE in details:
    return VersionGoneError(code, details, call)
  return CallError(code, details, call)


def check_status(statuses: Sequence[int], call: str) -> None:
  """Raises the exception of the first row that was refused.

  Args:
    statuses: `[B] int32` as answered, 0 where all is well.
    call: the signature.

  Raises:
    RowError: of the kind of the first refused row.
  """
  refused = [row for row, status in enumerate(statuses) if status]
  if refused:
    status = int(statuses[refused[0]])
    raise _BY_STATUS.get(status, RowError)(status, refused, call)
