"""The blocking connection to a server: makes the calls that the logic of a session asks for."""

from types import TracebackType

import grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc

from serving.client import channels, errors, interface, logic, messages, signatures
from serving.client import options as options_lib


class Connection:
  """A channel to one model of a server. Several sessions may share it, in several threads too.

  Attributes:
    address: of the server.
    options: as given.
    logic: the rules of sessions, with what is known of the model's versions.
  """

  def __init__(self, address: str, options: options_lib.Options | None = None):
    """Opens a channel; nothing is sent before `connect`.

    Args:
      address: 'host:port' or 'unix:path'.
      options: defaults to plaintext, no token, the model 'pearl'.

    Raises:
      ValueError: if the address is empty, or a token would travel in plaintext.
    """
    self.address = address
    self.options = options or options_lib.Options()
    self.logic = logic.Logic(self.options)
    self._channel = channels.open_blocking(address, self.options)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
    self._methods = {messages.Describe: stub.GetModelMetadata, messages.Predict: stub.Predict}

  def __enter__(self) -> 'Connection':
    return self

  def __exit__(
    self,
    exception_type: type[BaseException] | None,
    exception: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    self.close()

  def connect(self) -> interface.Interface:
    """Waits for the server; returns the sizes of the model's version in force.

    Raises:
      CallError: if there is no such server or model within the deadline.
      ModelMismatchError: if the model is not PEARL's.
    """
    return self.run(self.logic.connect()).sizes

  def run(self, steps: signatures.Steps[signatures.Result]) -> signatures.Result:
    """Makes the calls of `steps` and returns their result."""
    return signatures.drive(steps, self._call)

  def close(self) -> None:
    """Closes the channel; calls under way are cancelled."""
    self._channel.close()

  def _call(self, call: messages.Call) -> messages.Answer:
    try:
      response = self._methods[type(call)](
        messages.to_request(call, self.options),
        timeout=call.deadline_seconds,
        metadata=channels.metadata(self.options),
        wait_for_ready=isinstance(call, messages.Describe) and call.wait_for_ready,
      )
    except grpc.RpcError as error:
      raise errors.from_rpc(error, f'{call.name} at {self.address}') from error
    return messages.from_response(call, response)


def connect(address: str, options: options_lib.Options | None = None) -> Connection:
  """Opens a connection and waits for the server and its model.

  Args:
    address: 'host:port' or 'unix:path'.
    options: defaults to plaintext, no token, the model 'pearl'.

  Returns:
    The connection, a context manager that closes it.

  Raises:
    CallError: if there is no such server or model within the deadline.
    ModelMismatchError: if the model is not PEARL's.
  """
  connection = Connection(address, options)
  try:
    connection.connect()
  except BaseException:
    connection.close()
    raise
  return connection
