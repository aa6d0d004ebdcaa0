"""What can go wrong between a client and a model: one exception for each thing a caller can do.

Everything derives from `ClientError`. Whether to try again has been decided before any of these is
raised (`channel`): what is left is for the caller. No message ever contains a token or a key.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc


class ClientError(Exception):
  """Any failure of the client."""


class InvalidInputError(ClientError, ValueError):
  """Data that no model would accept; nothing was sent."""


class CredentialsError(ClientError):
  """A token, key or certificate cannot be read or cannot be sent."""


class ModelMismatchError(ClientError, ValueError):
  """The model is not PEARL's, or not one for this environment."""


class CallError(ClientError):
  """The server, or the way to it, refused a call.

  Attributes:
    code: `grpc.StatusCode`.
    details: what the server or gRPC said.
    call: what was called, for example the signature.
  """

  def __init__(self, code: grpc.StatusCode, details: str, call: str, advice: str = ''):
    super().__init__(f'{call}: {code.name}: {details}' + (f' ({advice})' if advice else ''))
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


class VersionChangedError(ClientError):
  """The model was replaced in the middle of an episode, and the caller asked to be told."""


class ContextLostError(ClientError):
  """The model was replaced, and the transitions the belief came from are not here to be encoded."""


MOVED = (VersionGoneError, ForeignLatentError)
"""The model that a belief or latent is of has been replaced."""

BY_STATUS = {3: BadNumbersError, 9: ForeignLatentError}
"""What the `status` of a row means; the numbers are gRPC's codes."""
