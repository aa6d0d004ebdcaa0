"""What a measurement was taken on."""

import os
import pathlib
import platform
from typing import Any

import grpc
import tensorflow as tf


def describe() -> dict[str, Any]:
  """Returns the machine as plain data; the load is that of the minute before."""
  return {
    'cpu': _processor(),
    'cores': len(os.sched_getaffinity(0)),
    'memory_gib': os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30,
    'load_average': os.getloadavg()[0],
    'python': platform.python_version(),
    'tensorflow': tf.__version__,
    'grpcio': grpc.__version__,
  }


def _processor() -> str:
  information = pathlib.Path('/proc/cpuinfo')
  lines = information.read_text().splitlines() if information.is_file() else []
  names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
  return next(names, platform.processor() or platform.machine())
