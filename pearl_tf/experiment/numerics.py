"""How TensorFlow computes: precision of matrix products and determinism of operations.

Both are switches of the whole process, thrown before the first network is built.
"""

import os
import pathlib

import gin
import tensorflow as tf

FLOAT32 = 'float32'
BFLOAT16 = 'bfloat16'
_ENVIRONMENT_VARIABLE = 'TF_SET_ONEDNN_FPMATH_MODE'


@gin.configurable
def set_matmul_precision(precision: str = FLOAT32) -> None:
  """Chooses how oneDNN multiplies float32 matrices.

  With 'bfloat16', batch matmuls round their inputs to bf16 and accumulate in float32; tensors,
  variables and everything else stay float32. It takes effect on CPUs with AMX; elsewhere oneDNN
  ignores it (`hardware_supports_bfloat16`). oneDNN reads the choice once, at the first product, so
  call this before any network is built.

  Args:
    precision: 'float32' or 'bfloat16'.

  Raises:
    ValueError: if `precision` is neither.
  """
  if precision not in (FLOAT32, BFLOAT16):
    raise ValueError(
      f'set_matmul_precision.precision must be {FLOAT32!r} or {BFLOAT16!r}, got {precision!r}'
    )
  if precision == BFLOAT16:
    os.environ[_ENVIRONMENT_VARIABLE] = 'BF16'
  else:
    os.environ.pop(_ENVIRONMENT_VARIABLE, None)


@gin.configurable
def set_op_determinism(enabled: bool = False) -> None:
  """Makes every TensorFlow operation deterministic, at some cost in speed.

  Args:
    enabled: with True, a resumed run reports exactly the metrics of an uninterrupted one.
  """
  if enabled:
    tf.config.experimental.enable_op_determinism()
    # From then on TensorFlow refuses unseeded draws. All of ours carry a seed; TF-Agents makes up
    # an example input without one whenever it builds a network, and only its shape matters.
    tf.random.set_seed(0)


def hardware_supports_bfloat16() -> bool:
  """Returns whether this CPU has the AMX units that make 'bfloat16' differ from 'float32'."""
  cpu_information = pathlib.Path('/proc/cpuinfo')
  return cpu_information.exists() and 'amx_bf16' in cpu_information.read_text()
