"""What `import pearl_tf` offers: the few calls that a notebook needs, see docs/library.md."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pearl_tf.evaluation import adaptation_plot, meta_testing, plots
from pearl_tf.experiment import local_loop, metrics, published, run_folder, trained

if TYPE_CHECKING:
  from matplotlib import figure as mpl_figure

published_names = published.names


def load(name: str | os.PathLike, checkpoint: str = trained.LATEST) -> trained.Trained:
  """Loads a trained agent.

  Args:
    name: a run folder, or a published agent: its name, see `published_names`, or its folder.
    checkpoint: of a run folder: 'latest', 'best', or name or number of one.

  Raises:
    CheckpointError: if the run folder has no such checkpoint, or it cannot be read.
    PublishedError: if this is neither a run folder nor a published agent.
  """
  if run_folder.RunFolder(name).checkpoints.is_dir():
    return trained.load(name, checkpoint)
  return trained.load(pretrained=name)


def train(
  root_dir: str | os.PathLike,
  gin_files: Sequence[str | os.PathLike],
  gin_bindings: Sequence[str] = (),
  *,
  seed: int = 0,
  callbacks: Sequence[local_loop.Callback] = (),
) -> bool:
  """Trains into a run folder, or goes on where it stopped; see `local_loop.train`."""
  return local_loop.train(
    root_dir, gin_files=gin_files, gin_bindings=gin_bindings, seed=seed, callbacks=callbacks
  )


def plot_learning_curve(
  runs: Mapping[str, str | os.PathLike], output: str | os.PathLike | None = None, **options
) -> mpl_figure.Figure:
  """Draws the learning curves of runs.

  Args:
    runs: run folders or files of metrics by label.
    output: the PNG to write.
    **options: see `plots.learning_curve`.
  """
  curves = [plots.curve_from_metrics(label, metrics.read(run)) for label, run in runs.items()]
  return plots.learning_curve(curves, output, **options)


def plot_returns(
  results: Mapping[str, meta_testing.MetaTestResult],
  output: str | os.PathLike | None = None,
  **options,
) -> mpl_figure.Figure:
  """Draws returns by trajectory of meta-tests by label; see `plots.returns_by_trajectory`."""
  return plots.returns_by_trajectory(results, output, **options)


def plot_adaptation(
  result: meta_testing.MetaTestResult, output: str | os.PathLike | None = None, **options
) -> mpl_figure.Figure:
  """Draws the paths of a meta-test in the plane, and beliefs; see `adaptation_plot.adaptation`."""
  return adaptation_plot.adaptation(result.trajectories, output, **options)
