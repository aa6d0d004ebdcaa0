"""From a predict request to its answer, whatever the transport.

`Predictor` finds the servable, decodes, checks and hands the arrays to the batcher. gRPC and REST
are thin skins around it, so that both obey the same limits and are counted alike.
"""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import grpc
import numpy as np
from absl import logging
from tensorflow_serving.apis import model_pb2, predict_pb2

from serving import errors, tensors
from serving.frontend import limits, monitoring
from serving.model_server import batcher, manager, servable, signatures

GRPC = 'GRPC'
REST = 'REST'


@dataclasses.dataclass
class Call:
  """One request being answered: what it runs, and how long the model took.

  Attributes:
    servable: lent for as long as the call lasts.
    signature: of the servable.
    runtime_seconds: spent waiting for and running the model.
  """

  servable: servable.Servable
  signature: signatures.Signature
  runtime_seconds: float = 0.0


class Predictor:
  """Answers predict requests."""

  def __init__(
    self,
    models: manager.ModelManager,
    batches: batcher.Batcher,
    *,
    size_limits: limits.SizeLimits,
    in_flight: limits.InFlight,
    metrics: monitoring.Metrics,
  ):
    self._models = models
    self._batcher = batches
    self._limits = size_limits
    self._in_flight = in_flight
    self._metrics = metrics

  async def predict(
    self, request: predict_pb2.PredictRequest, *, deadline: float | None
  ) -> predict_pb2.PredictResponse:
    """Answers a request of the gRPC service.

    Args:
      request: as it came.
      deadline: when the client stops waiting, in the clock of `time.monotonic`; None if never.

    Raises:
      errors.ServingError: as TF Serving would answer, or for one of our limits.
    """
    if not request.HasField('model_spec'):
      raise self._counted('', errors.invalid_argument('Missing ModelSpec'))
    spec = request.model_spec
    with self.call(spec, spec.signature_name, entrypoint=GRPC) as call:
      # Before they are decoded: a thousand inputs nobody asked for may each be a large tensor.
      call.signature.check_names(request.inputs)
      inputs = self._decode(request)
      outputs = await self.run(call, inputs, request.output_filter, deadline=deadline)
      response = predict_pb2.PredictResponse()
      for name, array in outputs.items():
        tensors.fill(response.outputs[name], array, as_content=False)
      fill_spec(response.model_spec, call.servable, call.signature.name)
      return response

  @contextlib.contextmanager
  def call(
    self,
    spec: model_pb2.ModelSpec,
    signature_name: str,
    *,
    entrypoint: str,
    unknown_signature: Callable[[str], errors.ServingError] | None = None,
  ) -> Iterator[Call]:
    """Borrows the servable of a request, and counts the request as it ends.

    Args:
      spec: model and version.
      signature_name: empty for `serving_default`.
      entrypoint: `GRPC` or `REST`.
      unknown_signature: gives the error for an unknown signature, if not that of gRPC.

    Raises:
      errors.ServingError: RESOURCE_EXHAUSTED if there are too many at once; if model, version,
        label or signature are unknown; any other exception of the block as such an error.
    """
    began = time.perf_counter()
    try:
      with self._in_flight, resolve(self._models, spec) as lent:
        name = signature_name or signatures.DEFAULT
        if unknown_signature is not None and name not in lent.signatures:
          raise unknown_signature(name)
        call = Call(lent, lent.signature(name))
        yield call
    except errors.ServingError as error:
      raise self._counted(spec.name, error) from error.__cause__
    except asyncio.CancelledError:
      self._metrics.failed(spec.name, grpc.StatusCode.CANCELLED.name)
      raise
    except Exception as error:
      logging.exception('a request of model %r failed', spec.name)
      raise self._counted(spec.name, errors.from_exception(error)) from error
    self._metrics.succeeded(
      call.servable.name,
      entrypoint=entrypoint,
      seconds=time.perf_counter() - began,
      runtime_seconds=call.runtime_seconds,
    )

  async def run(
    self,
    call: Call,
    inputs: Mapping[str, np.ndarray],
    output_filter: Sequence[str],
    *,
    deadline: float | None,
  ) -> dict[str, np.ndarray]:
    """Checks decoded inputs and runs them.

    Raises:
      errors.ServingError: if they do not fit the signature, are too large or come too late, or the
        model fails.
    """
    call.signature.check_inputs(inputs)
    self._limits.check(call.signature, inputs)
    output_names = call.signature.select_outputs(output_filter)
    began = time.perf_counter()
    try:
      return await self._batcher.run(
        call.servable, call.signature, inputs, output_names, deadline=deadline
      )
    finally:
      call.runtime_seconds = time.perf_counter() - began

  def _decode(self, request: predict_pb2.PredictRequest) -> dict[str, np.ndarray]:
    inputs = {}
    for name, proto in request.inputs.items():
      try:
        inputs[name] = tensors.decode(proto, max_elements=self._limits.elements)
      except tensors.TensorError as error:
        raise errors.invalid_argument(f'tensor parsing error: {name}: {error}') from error
    return inputs

  def _counted(self, model_name: str, error: errors.ServingError) -> errors.ServingError:
    self._metrics.failed(model_name, error.code.name)
    return error


def resolve(models: manager.ModelManager, spec: model_pb2.ModelSpec) -> servable.Servable:
  """Returns the servable that a request asks for, to be borrowed by `with`.

  Raises:
    errors.ServingError: INVALID_ARGUMENT without a name or for an unknown label, NOT_FOUND for an
      unknown model or version.
  """
  if not spec.name:
    raise errors.invalid_argument('ModelSpec has no name specified.')
  kind = spec.WhichOneof('version_choice')
  if kind == 'version':
    return models.resolve(spec.name, version=spec.version.value)
  if kind == 'version_label':
    return models.resolve(spec.name, label=spec.version_label)
  return models.resolve(spec.name)


def fill_spec(
  spec: model_pb2.ModelSpec, answering: servable.Servable, signature_name: str = ''
) -> None:
  """Writes who answered: the effective version is what a client pins itself to."""
  spec.name = answering.name
  spec.version.value = answering.version
  if signature_name:
    spec.signature_name = signature_name
