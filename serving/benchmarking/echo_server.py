"""A grpc.aio server that does nothing: the floor that Python's gRPC sets for any server.

It answers every method with the bytes it got, without protocol buffers and without TensorFlow.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import grpc
from grpc import aio

from serving.benchmarking import helper_process

_MAX_MESSAGE_BYTES = 16 * 2**20


class Started(NamedTuple):
  """A server that is ready.

  Attributes:
    address: where it listens.
    pid: its process.
  """

  address: str
  pid: int


class _Echo(grpc.GenericRpcHandler):
  """Takes every method of every service."""

  def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
    """Returns the one handler."""
    del handler_call_details
    return grpc.unary_unary_rpc_method_handler(_echo)


@contextlib.contextmanager
def running() -> Iterator[Started]:
  """Serves from a process of its own while the block runs."""
  with helper_process.running(_serve, 'echo-server') as pipe:
    yield helper_process.receive(pipe)


async def _echo(request: bytes, context: aio.ServicerContext) -> bytes:
  del context
  return request


def _serve(pipe: helper_process.Pipe) -> None:
  asyncio.run(_serve_until_closed(pipe))


async def _serve_until_closed(pipe: helper_process.Pipe) -> None:
  server = aio.server(
    options=[
      ('grpc.max_receive_message_length', _MAX_MESSAGE_BYTES),
      ('grpc.max_send_message_length', -1),
      ('grpc.so_reuseport', 0),
    ]
  )
  server.add_generic_rpc_handlers((_Echo(),))
  port = server.add_insecure_port('127.0.0.1:0')
  await server.start()
  pipe.send(Started(f'127.0.0.1:{port}', os.getpid()))
  with contextlib.suppress(EOFError):  # How the pipe says that it was closed.
    await asyncio.to_thread(pipe.recv)
  await server.stop(None)
