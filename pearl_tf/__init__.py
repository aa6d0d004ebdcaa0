"""PEARL: probabilistic-context meta-reinforcement learning on TensorFlow and TF-Agents.

What a notebook needs is here by name (see docs/library.md) and imported when first used, so that
importing the package itself costs nothing.
"""

import importlib

from pearl_tf.version import __version__

_LIBRARY = (
  'load',
  'plot_adaptation',
  'plot_learning_curve',
  'plot_returns',
  'published_names',
  'train',
)

__all__ = ['__version__', *_LIBRARY]


def __getattr__(name: str):
  if name not in _LIBRARY:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module('pearl_tf.experiment.library'), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *_LIBRARY})
