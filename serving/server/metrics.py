"""Prometheus metrics under TensorFlow Serving's names, beside a few of our own.

Each server has a registry of its own, so that several servers can live in one process.
"""

from collections.abc import Callable

import prometheus_client

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
PATH = '/monitoring/prometheus/metrics'
OTHER_MODEL = ''
"""Stands for all names that no model has: what clients make up must not become time series."""
_PREFIX = ':tensorflow:serving:'
# TensorFlow Serving's own: microseconds, the first up to 10, each 1.8 times as wide as the last.
_BUCKETS = tuple(10 * 1.8**exponent for exponent in range(33))
_MICROSECONDS = 1e6


class Metrics:
  """What the server counts.

  Args:
    model_name: name of the model.
    num_in_flight: returns the number of requests being answered.
  """

  def __init__(self, model_name: str, num_in_flight: Callable[[], int]):
    self._model_name = model_name
    self.registry = registry = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    self._requests = prometheus_client.Counter(
      f'{_PREFIX}request_count', 'Requests.', ['model_name', 'status'], registry=registry
    )
    self._latency = prometheus_client.Histogram(
      f'{_PREFIX}request_latency',
      'Microseconds from the decoded message to the answer, of requests that succeeded.',
      ['model_name'],
      buckets=_BUCKETS,
      registry=registry,
    ).labels(model_name)
    self._batch_rows = prometheus_client.Histogram(
      'pearl_serving_batch_rows',
      'Rows of the batches that ran.',
      buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
      registry=registry,
    )
    self._loads = prometheus_client.Counter(
      'pearl_serving_loads', 'Tries to load a version.', ['status'], registry=registry
    )
    prometheus_client.Gauge(
      'pearl_serving_requests_in_flight', 'Requests being answered.', registry=registry
    ).set_function(num_in_flight)
    # `labels` itself is too slow for every request.
    self._succeeded = self._requests.labels(model_name, 'OK')

  def succeeded(self, seconds: float) -> None:
    """Counts an answered predict request."""
    self._succeeded.inc()
    self._latency.observe(seconds * _MICROSECONDS)

  def failed(self, model_name: str, status: str) -> None:
    """Counts a predict request that was answered by an error of this gRPC code's name."""
    known = model_name if model_name == self._model_name else OTHER_MODEL
    self._requests.labels(known, status).inc()

  def load_ended(self, succeeded: bool) -> None:
    """Counts a try to load a version."""
    self._loads.labels('success' if succeeded else 'fail').inc()

  def batch_ran(self, rows: int) -> None:
    """Counts a batch."""
    self._batch_rows.observe(rows)

  def exposition(self) -> bytes:
    """Returns all metrics in Prometheus' text format."""
    return prometheus_client.generate_latest(self.registry)
