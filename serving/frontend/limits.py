"""How much one request, and all together, may ask for.

TF Serving has no such limits. Sizes are refused with INVALID_ARGUMENT, because trying again does
not help; too many requests at once with RESOURCE_EXHAUSTED, because it does.
"""

import dataclasses
from collections.abc import Mapping
from types import TracebackType

import numpy as np

from serving import errors, tensors
from serving.model_server import signatures

BUSY_TEXT = 'Server Threadpool Exhausted'
"""TF Serving's text for too many requests at once."""


@dataclasses.dataclass(frozen=True)
class SizeLimits:
  """The largest request.

  Attributes:
    rows: size of dimension 0, the batch.
    sequence_length: size of any later dimension that the signature leaves open, such as the number
      of transitions of a context.
    steps: rows times the largest such size, what one request makes the server compute.
    elements: numbers in one tensor.
  """

  rows: int = 256
  sequence_length: int = 4096
  steps: int = 65_536
  elements: int = tensors.MAX_ELEMENTS

  def check(self, signature: signatures.Signature, inputs: Mapping[str, np.ndarray]) -> None:
    """Checks decoded inputs that fit the signature.

    Raises:
      errors.ServingError: INVALID_ARGUMENT that names the input and the limit.
    """
    for name, array in inputs.items():
      shape = array.shape
      if not shape:
        continue
      if shape[0] > self.rows:
        raise errors.invalid_argument(
          f'{name} has {shape[0]} rows; this server takes at most {self.rows} in one request'
        )
      if max(shape) > self.sequence_length or shape[0] * max(shape[1:], default=1) > self.steps:
        self._check_sequence(name, shape, signature.inputs[name].dims)

  def _check_sequence(
    self, name: str, shape: tuple[int, ...], dims: tuple[int | None, ...] | None
  ) -> None:
    open_dims = dims or (None,) * len(shape)
    for size, dim in zip(shape[1:], open_dims[1:], strict=True):
      if dim is None and size > self.sequence_length:
        raise errors.invalid_argument(
          f'{name} has shape {list(shape)}; this server takes sequences of at most'
          f' {self.sequence_length}'
        )
      if dim is None and size * shape[0] > self.steps:
        raise errors.invalid_argument(
          f'{name} has shape {list(shape)}; this server takes at most {self.steps} rows times'
          ' sequence length in one request'
        )


class InFlight:
  """Counts the requests being answered; a context manager around each.

  Refusing is all it does: requests are never queued here, but behind the model that runs them.
  """

  def __init__(self, limit: int):
    self._limit = limit
    self.count = 0

  def __enter__(self) -> 'InFlight':
    if self.count >= self._limit:
      raise errors.resource_exhausted(BUSY_TEXT)
    self.count += 1
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    self.count -= 1
