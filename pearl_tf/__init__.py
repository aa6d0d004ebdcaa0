"""PEARL: probabilistic-context meta-reinforcement learning on TensorFlow and TF-Agents."""

from pearl_tf.version import __version__

__all__ = ['__version__']
