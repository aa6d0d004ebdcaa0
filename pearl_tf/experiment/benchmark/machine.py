"""What a measurement was taken on: processor, threads, TensorFlow, load.

This module describes; it measures nothing but the memory the process has needed so far.
"""

import os
import pathlib
import platform
import resource
from typing import Any

import tensorflow as tf

# The instruction sets that decide how fast oneDNN multiplies.
_INSTRUCTION_SETS = (
  'avx2',
  'avx512f',
  'avx512_bf16',
  'avx512_fp16',
  'amx_tile',
  'amx_bf16',
  'asimd',
  'sve',
  'bf16',
)


def describe() -> dict[str, Any]:
  """Returns the machine as plain data.

  Returns:
    `cpu`, `cores` (those this process may use), `instruction_sets`, `memory_gib`, `gpus`,
    `load_average` (of the last minute, this process included), `tensorflow`, `intra_op_threads`,
    `inter_op_threads`.
  """
  model, flags = _processor()
  cores = len(os.sched_getaffinity(0))
  threading = tf.config.threading
  return {
    'cpu': model,
    'cores': cores,
    'instruction_sets': [name for name in _INSTRUCTION_SETS if name in flags],
    'memory_gib': os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30,
    'gpus': [device.name for device in tf.config.list_physical_devices('GPU')],
    'load_average': os.getloadavg()[0],
    'tensorflow': tf.__version__,
    'intra_op_threads': _threads(
      threading.get_intra_op_parallelism_threads(), 'TF_NUM_INTRAOP_THREADS', cores
    ),
    'inter_op_threads': _threads(
      threading.get_inter_op_parallelism_threads(), 'TF_NUM_INTEROP_THREADS', cores
    ),
  }


def peak_memory_gib() -> float:
  """Returns the most memory this process has ever held, in GiB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _processor() -> tuple[str, set[str]]:
  """Returns the name of the processor and its flags."""
  information = pathlib.Path('/proc/cpuinfo')
  lines = information.read_text().splitlines() if information.is_file() else []
  entries = {key.strip(): value.strip() for key, _, value in (x.partition(':') for x in lines)}
  flags = entries.get('flags', entries.get('Features', ''))
  return entries.get('model name', platform.processor() or platform.machine()), set(flags.split())


def _threads(configured: int, variable: str, cores: int) -> int:
  """Returns the number of threads TensorFlow takes: zero stands for one per core."""
  return configured or int(os.environ.get(variable, 0)) or cores
