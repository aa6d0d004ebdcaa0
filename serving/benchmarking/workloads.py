"""The calls that are measured, made from the signatures of the model at hand."""

import json
import pathlib
import time
from typing import NamedTuple

import numpy as np
from tensorflow_serving.apis import predict_pb2

from serving import tensors
from serving.benchmarking import turns
from serving.model_server import servable

MODEL = 'pearl'
UPDATE_TRANSITIONS = (1, 64, 200, 1000)
ADAPT_TRANSITIONS = 200
"""An episode of the published experiments."""
_MANIFEST = pathlib.PurePath('assets.extra', 'pearl_manifest.json')
_COUNTS = ('num_transitions', 'count')


class Workload(NamedTuple):
  """A call.

  Attributes:
    name: what the report calls it.
    signature: of the model.
    num_transitions: in the context, None without one.
    inputs: arrays by alias, one row each.
    request: the same as a serialised `PredictRequest` for all outputs.
  """

  name: str
  signature: str
  num_transitions: int | None
  inputs: dict[str, np.ndarray]
  request: bytes


def build(model: servable.Servable, version_dir: pathlib.Path) -> list[Workload]:
  """Returns the calls to measure; `update` only if the model supports it.

  Args:
    model: the servable of encoder and policy.
    version_dir: where it was loaded from.
  """
  tag = _latent_tag(model)
  manifest = json.loads((version_dir / _MANIFEST).read_text())
  lengths = UPDATE_TRANSITIONS if manifest['supports_update'] else ()
  return [
    _workload(model, 'act', tag, None),
    *(_workload(model, 'update', tag, length) for length in lengths),
    _workload(model, 'adapt_and_act', tag, ADAPT_TRANSITIONS),
  ]


def check(workload: Workload, response: predict_pb2.PredictResponse) -> None:
  """Makes sure that the answer is one: a refused row would be answered faster.

  Raises:
    ValueError: if a row was refused.
  """
  status = tensors.decode(response.outputs['status'])
  if status.any():
    raise ValueError(f'{workload.name} was answered with status {status.tolist()}')


def bare(model: servable.Servable, workload: Workload) -> turns.Contender:
  """Returns the session call alone, in this thread: the floor that TensorFlow sets."""
  output_names = model.signature(workload.signature).select_outputs()

  def run(seconds: float) -> turns.Sample:
    latencies = []
    start = began = time.perf_counter()
    start_cpu = time.thread_time()
    while not latencies or began < start + seconds:
      model.run(workload.signature, workload.inputs, output_names)
      now = time.perf_counter()
      latencies.append(now - began)
      began = now
    return turns.Sample(began - start, np.array(latencies), time.thread_time() - start_cpu)

  return run


def _workload(
  model: servable.Servable, signature: str, latent_tag: int, length: int | None
) -> Workload:
  inputs = _inputs(model, signature, latent_tag, length or 1)
  request = predict_pb2.PredictRequest()
  request.model_spec.name = MODEL
  request.model_spec.signature_name = signature
  for alias, value in inputs.items():
    tensors.fill(request.inputs[alias], value)
  name = signature if length is None else f'{signature} T={length}'
  return Workload(name, signature, length, inputs, request.SerializeToString())


def _inputs(
  model: servable.Servable, signature: str, latent_tag: int, length: int
) -> dict[str, np.ndarray]:
  """Returns one row of every input, such that it is accepted."""
  random = np.random.default_rng(0)
  inputs = {}
  for alias, field in model.signature(signature).inputs.items():
    free = iter((1, length))
    shape = [next(free) if size is None else size for size in field.dims]
    if alias == 'latent_tag':
      value = np.full(shape, latent_tag)
    elif alias in _COUNTS:
      value = np.full(shape, length)
    elif field.dtype.kind == 'i':
      value = random.integers(2**31 - 1, size=shape)
    else:
      value = random.uniform(0.1, 1.0, shape)
    inputs[alias] = value.astype(field.dtype)
  return inputs


def _latent_tag(model: servable.Servable) -> int:
  """Asks the model itself."""
  inputs = _inputs(model, 'encode', latent_tag=0, length=1)
  return int(model.run('encode', inputs, ('latent_tag',))['latent_tag'][0])
