"""What a server says about the versions of a model, and waiting for it."""

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from tests.serving.support import contract_server

State = get_model_status_pb2.ModelVersionStatus


class VersionWatch:
  """Asks GetModelStatus.

  Args:
    channel: to the server.
    model: name of the model.
  """

  def __init__(self, channel: grpc.Channel, model: str):
    self._stub = model_service_pb2_grpc.ModelServiceStub(channel)
    self._model = model

  def statuses(self) -> dict[int, State]:
    """Returns the status of each version that the server knows."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = self._model
    response = self._stub.GetModelStatus(request, timeout=60)
    return {status.version: status for status in response.model_version_status}

  def wait(self, version: int, state: int) -> State:
    """Waits until a version has a state, and returns its status.

    Raises:
      TimeoutError: if that takes too long.
      RuntimeError: if it has ended and another state was asked for.
    """

    def reached() -> State | None:
      status = self.statuses().get(version)
      if status is not None and status.state == State.END != state:
        raise RuntimeError(f'{self._model} version {version} has ended: {status}')
      return status if status is not None and status.state == state else None

    return contract_server.wait_for(
      reached, f'{self._model} version {version} to get to state {state}'
    )
