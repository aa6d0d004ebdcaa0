"""Which calls of a signature may share a batch, and how their arrays become one and many again.

Rows of different calls are put one below the other. Sequences of different lengths share a batch
only where the signature takes their true lengths, as otherwise padding would become data.
"""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from serving import errors
from serving.model_server import signatures

LENGTHS = 'num_transitions'
_SMALLEST_BUCKET = 16


class BatchLayout:
  """The batching rules of one signature.

  Attributes:
    is_batchable: Whether rows of several calls can be put together: there are inputs, and dim 0 of
      all inputs and outputs is free.
  """

  def __init__(self, signature: signatures.Signature, *, pad: bool = True):
    """Reads a signature.

    Args:
      signature: The signature.
      pad: Whether sequences of different lengths may be padded to the longest.
    """
    fields = signature.inputs
    self.is_batchable = signature.is_batchable
    self._any_input = next(iter(fields), None)
    self._aliases = tuple(fields)
    self._has_open_dims = any(not field.dims or None in field.dims[1:] for field in fields.values())
    self._sequences: tuple[str, ...] = ()
    if pad and self.is_batchable and self._can_pad(signature):
      self._sequences = tuple(alias for alias, field in fields.items() if None in field.dims[1:])

  def rows(self, inputs: Mapping[str, np.ndarray]) -> int:
    """Returns dim 0, which a batch needs to be the same for all inputs.

    Raises:
      ServingError: INVALID_ARGUMENT if it is not.
    """
    sizes = {value.shape[0] for value in inputs.values()}
    if len(sizes) != 1:
      raise errors.invalid_argument(
        'Batching Run() input tensors must have equal 0th-dimension size'
      )
    return sizes.pop()

  def length(self, inputs: Mapping[str, np.ndarray]) -> int:
    """Returns the size of dim 1 of the sequences, 1 if there are none."""
    return max((inputs[alias].shape[1] for alias in self._sequences), default=1)

  def bucket(self, inputs: Mapping[str, np.ndarray]) -> Hashable:
    """Returns what must be equal for two calls to share a batch.

    Lengths are put into buckets by powers of two, so that no call does more than twice its work for
    the sake of another.
    """
    if not self._has_open_dims:
      return ()
    if self._sequences:
      lengths = inputs[LENGTHS]
      sizes = {inputs[alias].shape[1] for alias in self._sequences}
      longest = max(sizes)
      # A length that exceeds its sequence must not come true by padding.
      if len(sizes) == 1 and not np.any((lengths < 0) | (lengths > longest)):
        return max(_SMALLEST_BUCKET, 1 << (longest - 1).bit_length() if longest else 0)
    return tuple(inputs[alias].shape[1:] for alias in self._aliases)

  def stack(
    self, calls: Sequence[Mapping[str, np.ndarray]], *, rows: int | None = None
  ) -> dict[str, np.ndarray]:
    """Puts calls of one bucket together.

    Args:
      calls: Inputs of each call.
      rows: Number of rows to fill the batch up to, by copies of its last one.
    """
    batch = {alias: self._stack_input(alias, calls) for alias in calls[0]}
    if rows is None:
      return batch
    return {alias: _fill_up(value, rows) for alias, value in batch.items()}

  def _stack_input(self, alias: str, calls: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    values = [call[alias] for call in calls]
    if alias in self._sequences and len({value.shape[1] for value in values}) > 1:
      length = max(value.shape[1] for value in values)
      values = [_pad(value, length) for value in values]
    return values[0] if len(values) == 1 else np.concatenate(values)

  def _can_pad(self, signature: signatures.Signature) -> bool:
    lengths = signature.inputs.get(LENGTHS)
    if lengths is None or lengths.dims is None or len(lengths.dims) != 1:
      return False
    only_dim_1 = all(None not in field.dims[2:] for field in signature.inputs.values())
    return only_dim_1 and all(None not in field.dims[1:] for field in signature.outputs.values())


def split(
  outputs: Mapping[str, np.ndarray], rows: Sequence[int]
) -> list[dict[str, np.ndarray]] | None:
  """Gives each call its rows.

  Args:
    outputs: Of a batch.
    rows: Number of rows of each call; what the batch has beyond them is filling.

  Returns:
    Views, or None if an output has not one row per row of the batch.
  """
  total = sum(rows)
  sizes = {value.shape[0] if value.ndim else -1 for value in outputs.values()}
  if len(sizes) != 1 or min(sizes) < total:
    return None
  parts, start = [], 0
  for number in rows:
    parts.append({alias: value[start : start + number] for alias, value in outputs.items()})
    start += number
  return parts


def _pad(value: np.ndarray, length: int) -> np.ndarray:
  padded = np.zeros((value.shape[0], length, *value.shape[2:]), value.dtype)
  padded[:, : value.shape[1]] = value
  return padded


def _fill_up(value: np.ndarray, rows: int) -> np.ndarray:
  missing = rows - value.shape[0]
  if missing <= 0 or not value.shape[0]:
    return value
  return np.concatenate([value, np.repeat(value[-1:], missing, axis=0)])
