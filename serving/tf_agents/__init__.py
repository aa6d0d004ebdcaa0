"""Served agents for programs of TF-Agents and of this project, which need TensorFlow."""
