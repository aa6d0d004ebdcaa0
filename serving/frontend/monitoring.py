"""Prometheus metrics under TF Serving's names, beside a few of our own.

Each server has a registry of its own, so that several servers can live in one process. Dashboards
made for TF Serving keep working: colons in names, microseconds, counters without `_total`.
"""

import math
from collections.abc import Callable, Collection, Iterator

import prometheus_client
from prometheus_client import core, registry, utils

CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'
REQUEST_COUNT = ':tensorflow:serving:request_count'
REQUEST_LATENCY = ':tensorflow:serving:request_latency'
RUNTIME_LATENCY = ':tensorflow:serving:runtime_latency'
LOAD_ATTEMPT_COUNT = ':tensorflow:cc:saved_model:load_attempt_count'
LOAD_LATENCY = ':tensorflow:cc:saved_model:load_latency'
OTHER_MODEL = ''
"""Stands for all names that no model has: what clients make up must not become time series."""

# TF Serving's own: 33 buckets, the first up to 10 us, each 1.8 times as wide as the one before.
_BUCKETS = tuple(10 * 1.8**exponent for exponent in range(33))
_BATCH_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_MICROSECONDS = 1e6
_SUFFIX = '_total'


class Metrics:
  """What the server counts.

  Args:
    model_names: returns the names of the configured models.
    num_in_flight: returns the number of requests being answered.
  """

  def __init__(
    self, *, model_names: Callable[[], Collection[str]], num_in_flight: Callable[[], int]
  ):
    self._model_names = model_names
    self.registry = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=self.registry)
    self._requests = prometheus_client.Counter(
      REQUEST_COUNT,
      'The total number of requests.',
      ['model_name', 'status'],
      registry=self.registry,
    )
    self._latency = prometheus_client.Histogram(
      REQUEST_LATENCY,
      'Distribution of wall time (in microseconds) for successful requests.',
      ['model_name', 'API', 'entrypoint'],
      buckets=_BUCKETS,
      registry=self.registry,
    )
    self._runtime = prometheus_client.Histogram(
      RUNTIME_LATENCY,
      'Distribution of wall time (in microseconds) in the runtime, queueing for a batch included.',
      ['model_name', 'API', 'runtime'],
      buckets=_BUCKETS,
      registry=self.registry,
    )
    prometheus_client.Gauge(
      'pearl_serving_requests_in_flight', 'Requests being answered.', registry=self.registry
    ).set_function(num_in_flight)
    self._batch_rows = prometheus_client.Histogram(
      'pearl_serving_batch_rows',
      'Rows of the batches that ran.',
      buckets=_BATCH_ROWS,
      registry=self.registry,
    )
    self._loads = prometheus_client.Counter(
      LOAD_ATTEMPT_COUNT,
      'Tries to load a version, by model and outcome.',
      ['model_path', 'status'],
      registry=self.registry,
    )
    self._load_seconds = prometheus_client.Counter(
      LOAD_LATENCY,
      'Microseconds spent loading versions that could be served.',
      ['model_path'],
      registry=self.registry,
    )
    self._children: dict[tuple[str, ...], object] = {}

  def succeeded(
    self, model_name: str, *, entrypoint: str, seconds: float, runtime_seconds: float
  ) -> None:
    """Counts an answered predict request.

    Args:
      model_name: the model that answered.
      entrypoint: 'GRPC' or 'REST'.
      seconds: from the decoded message to the answer.
      runtime_seconds: the part of it spent waiting for and running the model.
    """
    requests, latency, runtime = self._of_success(model_name, entrypoint)
    requests.inc()
    latency.observe(seconds * _MICROSECONDS)
    runtime.observe(runtime_seconds * _MICROSECONDS)

  def failed(self, model_name: str, status: str) -> None:
    """Counts a predict request that was answered by an error of this gRPC code's name."""
    known = model_name if model_name in self._model_names() else OTHER_MODEL
    self._requests.labels(known, status).inc()

  def load_ended(self, model_path: str, *, seconds: float, succeeded: bool) -> None:
    """Counts a try to load a version from a model's folder."""
    self._loads.labels(model_path, 'success' if succeeded else 'fail').inc()
    if succeeded:
      self._load_seconds.labels(model_path).inc(seconds * _MICROSECONDS)

  def batch_ran(self, rows: int, num_calls: int, seconds: float) -> None:
    """Counts a batch, as `serving.model_server.batcher` reports it."""
    del num_calls, seconds
    self._batch_rows.observe(rows)

  def exposition(self) -> bytes:
    """Returns all metrics in Prometheus' text format, 0.0.4."""
    lines = []
    for metric in self.registry.collect():
      lines.extend(_lines(metric))
    return ('\n'.join(lines) + '\n').encode()

  def add(self, collector: registry.Collector) -> None:
    """Adds metrics that are worked out when they are asked for."""
    self.registry.register(collector)

  def _of_success(self, model_name: str, entrypoint: str) -> tuple:
    """Returns the time series of a model; `labels` itself is too slow for every request."""
    key = (model_name, entrypoint)
    if key not in self._children:
      self._children[key] = (
        self._requests.labels(model_name, 'OK'),
        self._latency.labels(model_name, 'Predict', entrypoint),
        self._runtime.labels(model_name, 'Predict', 'TF1'),
      )
    return self._children[key]


def _lines(metric: core.Metric) -> Iterator[str]:
  """Formats one metric; unlike `prometheus_client.generate_latest` it renames no counter."""
  yield f'# HELP {metric.name} {metric.documentation}'
  kind = 'untyped' if metric.type == 'unknown' else metric.type
  yield f'# TYPE {metric.name} {kind}'
  for sample in metric.samples:
    name = sample.name
    if name.endswith('_created') and metric.type in ('counter', 'histogram'):
      continue  # When a series began: not part of this format.
    if metric.type == 'counter':
      name = name.removesuffix(_SUFFIX)
    labels = ','.join(f'{key}="{_escaped(value)}"' for key, value in sample.labels.items())
    yield f'{name}{{{labels}}} {_number(sample.value)}'


def _escaped(value: str) -> str:
  return value.replace('\\', r'\\').replace('"', r'\"').replace('\n', r'\n')


def _number(value: float) -> str:
  if math.isfinite(value) and value == int(value):
    return str(int(value))
  return utils.floatToGoString(value)
