"""From a predict request to its answer, whatever the transport.

`Predictor` finds the servable, decodes, checks and hands the arrays to the batcher. gRPC and REST
are thin skins around it, so that both obey the same limits and are counted alike.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import grpc
import numpy as np
from absl import logging
from tensorflow_serving.apis import model_pb2, predict_pb2

from serving.server import batcher, errors, metrics, models, servable, signature, tensors

MAX_ROWS = 256
"""Largest batch in one request."""
BUSY_TEXT = 'Server Threadpool Exhausted'
"""TensorFlow Serving's text for too many requests at once."""


class Call(NamedTuple):
  """One request being answered.

  Attributes:
    servable: lent for as long as the call lasts.
    signature: one of its signatures.
  """

  servable: servable.Servable
  signature: signature.Signature


class Predictor:
  """Answers predict requests, within limits that TensorFlow Serving does not have.

  Sizes are refused with INVALID_ARGUMENT, because trying again does not help; too many requests at
  once with RESOURCE_EXHAUSTED, because it does.

  Args:
    served: the model.
    max_in_flight: requests being answered at once.
    max_steps: rows times sequence length of one request.

  Attributes:
    num_in_flight: requests being answered.
    metrics: what is counted.
  """

  def __init__(self, served: models.Models, *, max_in_flight: int, max_steps: int):
    self._models = served
    self._max_in_flight = max_in_flight
    self._max_steps = max_steps
    self.num_in_flight = 0
    self.metrics = metrics.Metrics(served.name, lambda: self.num_in_flight)
    self._batcher = batcher.Batcher(self.metrics.batch_ran)

  async def close(self) -> None:
    """Refuses what waits and waits for what runs."""
    await self._batcher.close()

  async def predict(
    self, request: predict_pb2.PredictRequest, *, deadline: float | None
  ) -> predict_pb2.PredictResponse:
    """Answers a request of the gRPC service.

    Args:
      request: as it came.
      deadline: when the client stops waiting, in the clock of `time.monotonic`; None if never.

    Raises:
      errors.ServingError: as TensorFlow Serving would answer, or for one of our limits.
    """
    spec = request.model_spec
    has_spec = request.HasField('model_spec')
    with self.call(spec if has_spec else None, spec.signature_name) as (lent, found):
      # Before they are decoded: a thousand inputs nobody asked for may each be a large tensor.
      found.check_names(request.inputs)
      inputs = {name: _decode(name, request.inputs[name]) for name in found.inputs}
      outputs = await self.run(Call(lent, found), inputs, request.output_filter, deadline=deadline)
      response = predict_pb2.PredictResponse()
      for name, array in outputs.items():
        tensors.fill(response.outputs[name], array)
      fill_spec(response.model_spec, lent, found.name)
      return response

  @contextlib.contextmanager
  def call(self, spec: model_pb2.ModelSpec | None, signature_name: str) -> Iterator[Call]:
    """Borrows the servable of a request, and counts the request as it ends.

    Args:
      spec: model and version.
      signature_name: empty for `serving_default`.

    Raises:
      errors.ServingError: RESOURCE_EXHAUSTED if there are too many at once; if model, version or
        signature are unknown; any other exception of the block as such an error.
    """
    began = time.perf_counter()
    name = spec.name if spec is not None else ''
    if self.num_in_flight >= self._max_in_flight:
      self.metrics.failed(name, grpc.StatusCode.RESOURCE_EXHAUSTED.name)
      raise errors.ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, BUSY_TEXT)
    self.num_in_flight += 1
    try:
      with resolve(self._models, spec) as lent:
        yield Call(lent, lent.find(signature_name))
    except errors.ServingError as error:
      self.metrics.failed(name, error.code.name)
      raise
    except asyncio.CancelledError:
      self.metrics.failed(name, grpc.StatusCode.CANCELLED.name)
      raise
    except Exception as error:
      logging.exception('a request of model %r failed', name)
      seen = errors.from_exception(error)
      self.metrics.failed(name, seen.code.name)
      raise seen from error
    finally:
      self.num_in_flight -= 1
    self.metrics.succeeded(time.perf_counter() - began)

  async def run(
    self,
    call: Call,
    inputs: Mapping[str, np.ndarray],
    output_filter: Sequence[str] = (),
    *,
    deadline: float | None,
  ) -> dict[str, np.ndarray]:
    """Checks decoded inputs and runs them.

    Raises:
      errors.ServingError: if they do not fit the signature, are too large or come too late, or the
        model fails.
    """
    lent, found = call
    output_names = found.select_outputs(output_filter)
    found.check_inputs(inputs)
    if deadline is not None and deadline <= time.monotonic():
      raise errors.ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, 'it came too late')
    for name, array in inputs.items():
      self._check_size(name, array.shape, found.inputs[name].dims)
    return await self._batcher.run(lent, found, inputs, output_names, deadline=deadline)

  def _check_size(
    self, name: str, shape: tuple[int, ...], dims: tuple[int | None, ...] | None
  ) -> None:
    if not shape:
      return
    rows = shape[0]
    if rows > MAX_ROWS:
      raise errors.invalid_argument(
        f'{name} has {rows} rows; this server takes at most {MAX_ROWS} in one request'
      )
    if len(shape) == 1 or max(rows, 1) * max(shape[1:]) <= self._max_steps:
      return
    for size, dim in zip(shape[1:], dims[1:] if dims else shape[1:], strict=True):
      if (dim is None or dims is None) and max(rows, 1) * size > self._max_steps:
        raise errors.invalid_argument(
          f'{name} has shape {list(shape)}; this server takes at most {self._max_steps} rows times'
          ' sequence length in one request'
        )


def resolve(served: models.Models, spec: model_pb2.ModelSpec | None) -> servable.Servable:
  """Returns the servable that a request asks for, to be borrowed by `with`.

  Raises:
    errors.ServingError: INVALID_ARGUMENT without a name or for a label, of which this server has
      none, NOT_FOUND for an unknown model or version.
  """
  if spec is None:
    raise errors.invalid_argument('Missing ModelSpec')
  if not spec.name:
    raise errors.invalid_argument('ModelSpec has no name specified.')
  if spec.version_label:
    raise errors.invalid_argument(f'Unrecognized servable version label: {spec.version_label}')
  return served.resolve(spec.name, spec.version.value if spec.HasField('version') else None)


def fill_spec(spec: model_pb2.ModelSpec, answering: servable.Servable, key: str = '') -> None:
  """Writes who answered: the effective version is what a client pins itself to."""
  spec.name = answering.name
  spec.version.value = answering.version
  spec.signature_name = key


def _decode(name: str, proto) -> np.ndarray:
  try:
    return tensors.decode(proto)
  except tensors.TensorError as error:
    raise errors.invalid_argument(f'tensor parsing error: {name}: {error}') from error
