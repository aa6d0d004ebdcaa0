"""Methods of a gRPC service: errors turned into statuses, and a description for reflection.

Instead of the generated code of the `tensorflow-serving-api` wheel. Its `*_service_pb2.py` cannot
be imported with protobuf 4, so that reflection would not know the services; and with its
`add_..._to_server` grpc.aio answers UNKNOWN and logs a traceback for bytes that are no message,
where TF Serving answers INTERNAL without a text.
"""

import dataclasses
import operator
from collections.abc import Awaitable, Callable, Mapping

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message
from grpc import aio

from serving import errors


@dataclasses.dataclass(frozen=True)
class Rpc:
  """A method from one message to one message.

  Attributes:
    answer: the implementation; it may raise `ServingError`.
    request: type of the request.
    response: type of the answer.
  """

  answer: Callable[[message.Message, aio.ServicerContext], Awaitable[message.Message]]
  request: type[message.Message]
  response: type[message.Message]


def service(name: str, rpcs: Mapping[str, Rpc], *, file: str) -> grpc.GenericRpcHandler:
  """Returns the handler of a service, and lets reflection know it.

  Args:
    name: the service's full name.
    rpcs: its methods by name.
    file: name of the .proto file that defines it.
  """
  _describe(name, rpcs, file)
  return grpc.method_handlers_generic_handler(
    name, {method: _unary(rpc) for method, rpc in rpcs.items()}
  )


def _describe(name: str, rpcs: Mapping[str, Rpc], file: str) -> None:
  """Adds the service to protobuf's pool of descriptors, unless it is there."""
  pool = descriptor_pool.Default()
  try:
    pool.FindFileContainingSymbol(name)
    return
  except KeyError:
    pass
  package, _, short_name = name.rpartition('.')
  description = descriptor_pb2.FileDescriptorProto(name=file, package=package, syntax='proto3')
  described = description.service.add(name=short_name)
  dependencies = set()
  for method, rpc in rpcs.items():
    kinds = (rpc.request.DESCRIPTOR, rpc.response.DESCRIPTOR)
    dependencies.update(kind.file.name for kind in kinds)
    types = [f'.{kind.full_name}' for kind in kinds]
    described.method.add(name=method, input_type=types[0], output_type=types[1])
  description.dependency.extend(sorted(dependencies))
  pool.Add(description)


def _unary(rpc: Rpc) -> grpc.RpcMethodHandler:
  def parse(content: bytes) -> message.Message | None:
    try:
      return rpc.request.FromString(content)
    except message.DecodeError:
      return None

  async def answer(
    request: message.Message | None, context: aio.ServicerContext
  ) -> message.Message:
    if request is None:
      await context.abort(grpc.StatusCode.INTERNAL, '')
    try:
      return await rpc.answer(request, context)
    except errors.ServingError as error:
      await context.abort(error.code, error.message)

  return grpc.unary_unary_rpc_method_handler(
    answer,
    request_deserializer=parse,
    response_serializer=operator.methodcaller('SerializeToString'),
  )
