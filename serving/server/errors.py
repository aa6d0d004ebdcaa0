"""The one exception that a client of the server sees, as a gRPC code and a text."""

import grpc

_MAX_LENGTH = 1024
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


class ServingError(Exception):
  """A failed request or load.

  Attributes:
    code: grpc.StatusCode; never OK.
    message: text for the client, cut at 1024 characters as TensorFlow Serving does.
  """

  def __init__(self, code: grpc.StatusCode, message: str):
    super().__init__(code, message)
    if code is grpc.StatusCode.OK:
      raise ValueError(f'an error must not have the code OK; its message is {message!r}')
    if len(message) > _MAX_LENGTH:
      message = message[:_MAX_LENGTH] + '...TRUNCATED'
    self.code = code
    self.message = message

  def __str__(self) -> str:
    return f'{self.code.name}: {self.message}'


def from_exception(error: Exception) -> ServingError:
  """Returns the error that a client should see for any exception.

  Exceptions of TensorFlow keep their code and message; what nobody foresaw is INTERNAL.

  Args:
    error: a ServingError, a `tf.errors.OpError` (known by its `error_code`) or any other exception.
  """
  if isinstance(error, ServingError):
    return error
  number = getattr(error, 'error_code', None)
  if number in _BY_NUMBER and number != 0:
    return ServingError(_BY_NUMBER[number], str(getattr(error, 'message', error)))
  return ServingError(grpc.StatusCode.INTERNAL, f'{type(error).__name__}: {error}')


def invalid_argument(message: str) -> ServingError:
  """Returns an INVALID_ARGUMENT."""
  return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
  """Returns a NOT_FOUND."""
  return ServingError(grpc.StatusCode.NOT_FOUND, message)


def failed_precondition(message: str) -> ServingError:
  """Returns a FAILED_PRECONDITION."""
  return ServingError(grpc.StatusCode.FAILED_PRECONDITION, message)
