"""The standard health service, `grpc.health.v1.Health`.

TF Serving says SERVING as soon as its port is open. Here the answer follows the models: NOT_SERVING
while one of them has no version to offer, and from the moment the server begins to drain.
"""

import asyncio
from collections.abc import Callable

from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVICE = health_pb2.DESCRIPTOR.services_by_name['Health'].full_name
PREDICTION = ('', 'PredictionService', 'tensorflow.serving.PredictionService')
"""Names that depend on the models: the whole server, TF Serving's short name, and the full one."""
MODEL = ('ModelService', 'tensorflow.serving.ModelService')
"""Names of the service that answers whether or not a model is there."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
  """Keeps the health service up to date.

  Args:
    is_ready: tells whether every model can be used.
    period_seconds: how often it is asked.
  """

  def __init__(self, is_ready: Callable[[], bool], *, period_seconds: float = 0.5):
    self._is_ready = is_ready
    self._period = period_seconds
    self._servicer = health.aio.HealthServicer()
    self._task: asyncio.Task | None = None

  def add_to(self, server: aio.Server) -> None:
    """Registers the service."""
    health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

  async def start(self) -> None:
    """Sets all names and goes on following the models."""
    for name in MODEL:
      await self._servicer.set(name, _SERVING)
    await self._update()
    self._task = asyncio.create_task(self._follow())

  async def drain(self) -> None:
    """Says NOT_SERVING for all names, for good."""
    if self._task is not None:
      self._task.cancel()
      await asyncio.gather(self._task, return_exceptions=True)
      self._task = None
    await self._servicer.enter_graceful_shutdown()

  async def _follow(self) -> None:
    while True:
      await asyncio.sleep(self._period)
      await self._update()

  async def _update(self) -> None:
    status = _SERVING if self._is_ready() else _NOT_SERVING
    for name in PREDICTION:
      await self._servicer.set(name, status)
