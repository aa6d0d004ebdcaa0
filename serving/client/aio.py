"""Connection and session for asyncio; the methods of `connection` and `session`, awaited."""

from types import TracebackType

import grpc
import numpy as np
from numpy import typing
from tensorflow_serving.apis import prediction_service_pb2_grpc

from serving.client import belief as belief_lib
from serving.client import channels, errors, interface, logic, messages, signatures, transitions
from serving.client import options as options_lib
from serving.client import session as session_lib


class Connection:
  """A channel to one model of a server, bound to the running event loop.

  Attributes:
    address: of the server.
    options: as given.
    logic: the rules of sessions, with what is known of the model's versions.
  """

  def __init__(self, address: str, options: options_lib.Options | None = None):
    """Opens a channel; see `connection.Connection`."""
    self.address = address
    self.options = options or options_lib.Options()
    self.logic = logic.Logic(self.options)
    self._channel = channels.open_asyncio(address, self.options)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
    self._methods = {messages.Describe: stub.GetModelMetadata, messages.Predict: stub.Predict}

  async def __aenter__(self) -> 'Connection':
    return self

  async def __aexit__(
    self,
    exception_type: type[BaseException] | None,
    exception: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    await self.close()

  async def connect(self) -> interface.Interface:
    """Waits for the server; returns the sizes of the model's version in force."""
    return (await self.run(self.logic.connect())).sizes

  async def run(self, steps: signatures.Steps[signatures.Result]) -> signatures.Result:
    """Makes the calls of `steps` and returns their result."""
    try:
      call = next(steps)
      while True:
        try:
          answer = await self._call(call)
        except errors.ClientError as error:
          call = steps.throw(error)
        else:
          call = steps.send(answer)
    except StopIteration as stop:
      return stop.value

  async def close(self) -> None:
    """Closes the channel; calls under way are cancelled."""
    await self._channel.close()

  async def _call(self, call: messages.Call) -> messages.Answer:
    try:
      response = await self._methods[type(call)](
        messages.to_request(call, self.options),
        timeout=call.deadline_seconds,
        metadata=channels.metadata(self.options),
        wait_for_ready=isinstance(call, messages.Describe) and call.wait_for_ready,
      )
    except grpc.RpcError as error:
      raise errors.from_rpc(error, f'{call.name} at {self.address}') from error
    return messages.from_response(call, response)


async def connect(address: str, options: options_lib.Options | None = None) -> Connection:
  """Opens a connection and waits for the server and its model; see `connection.connect`."""
  connection = Connection(address, options)
  try:
    await connection.connect()
  except BaseException:
    await connection.close()
    raise
  return connection


class Session(session_lib.SessionState):
  """An agent's stay with one task; see `session.Session` for everything but the `await`."""

  def __init__(
    self,
    connection: Connection,
    *,
    seed: int = 0,
    capacity: int = transitions.DEFAULT_CAPACITY,
    deterministic: bool = True,
    reencode_within_episode: bool = True,
    belief: belief_lib.Belief | None = None,
  ):
    """Starts on the prior; see `session.Session` for the arguments."""
    super().__init__(
      connection.logic,
      seed=seed,
      capacity=capacity,
      deterministic=deterministic,
      reencode_within_episode=reencode_within_episode,
      belief=belief,
    )
    self._connection = connection

  async def begin_episode(self) -> np.ndarray:
    """Moves to the newest version and draws the latent `[L] float32` of a new episode."""
    await self._connection.run(self._begin_steps())
    return self._task.latent.value

  async def act(self, observation: typing.ArrayLike) -> np.ndarray:
    """Chooses an action `[A] float32` in [-1, 1] for an observation `[O]`."""
    return (await self._connection.run(self._act_steps(observation)))[0]

  async def adapt(self) -> belief_lib.Belief:
    """Takes the transitions observed since the last time into the belief, and returns it."""
    await self._connection.run(self._adapt_steps())
    return self._task.belief
