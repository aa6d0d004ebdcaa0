"""The demonstration on point robots: trains, meta-tests on unseen tasks, measures and draws.

This module owns what the demonstration measures and draws; `trainers.demo` prints it, and
`serving.demo` goes on from its run folder. It is the one experiment whose oracle is known.
"""

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pearl_tf.data import files, seeds
from pearl_tf.evaluation import adaptation_plot, meta_testing, plots, report
from pearl_tf.experiment import local_loop, metrics, run_folder, trained

SUMMARY = 'summary.json'
_REPEATS = 10


class Outcome(NamedTuple):
  """What came of it.

  Attributes:
    summary: `prior_return`, `final_return`, `oracle_return`, `gap_closed`, `returns_by_trajectory`
      and `seconds`; the content of `summary.json`.
    files: what was written, the run folder first.
  """

  summary: dict[str, float | list[float]]
  files: list[pathlib.Path]


def run(
  root_dir: str | os.PathLike,
  *,
  gin_files: Sequence[str],
  gin_bindings: Sequence[str] = (),
  seed: int = 0,
) -> Outcome | None:
  """Trains into a run folder, or goes on where it stopped, then meta-tests.

  Args:
    root_dir: the run folder.
    gin_files: configuration of a family of point robots.
    gin_bindings: single bindings, override the files.
    seed: the run's seed.

  Returns:
    The outcome; None if a signal stopped the training.

  Raises:
    Exception: those of `local_loop.train`.
  """
  started = time.monotonic()
  finished = local_loop.train(root_dir, gin_files=gin_files, gin_bindings=gin_bindings, seed=seed)
  if not finished:
    return None
  builder, _ = trained.restore(root_dir)
  result = dataclasses.replace(builder.meta_test, num_repeats=_REPEATS).run(
    builder.tasks.test,
    builder.make_rollout(deterministic=True, num_environments=len(builder.tasks.test) * _REPEATS),
    seed=seeds.sequence(seed, seeds.Stream.META_TEST),
  )
  folder = run_folder.RunFolder(root_dir)
  family = builder.environments(1)[0].gymnasium_env.unwrapped
  oracle_return = float(
    np.mean(
      [family.oracle_return(t.task, t.observations[0], t.length) for t in result.trajectories]
    )
  )
  summary = _summarize(result, oracle_return, time.monotonic() - started)
  write_summary(folder.root, summary)
  figures = _draw(folder, result, oracle_return)
  return Outcome(summary, [folder.root, folder.root / SUMMARY, *figures])


def write_summary(root: pathlib.Path, summary: dict) -> None:
  """Writes `summary.json` of a run folder.

  Args:
    root: the run folder.
    summary: what JSON can hold.
  """
  files.write_text(root / SUMMARY, json.dumps(summary, indent=1))


def _summarize(
  result: meta_testing.MetaTestResult, oracle_return: float, seconds: float
) -> dict[str, float | list[float]]:
  returns = report.returns_by_trajectory(result)
  prior_return, final_return = float(returns[0]), float(returns[-1])
  return {
    'prior_return': prior_return,
    'final_return': final_return,
    'oracle_return': oracle_return,
    'gap_closed': (final_return - prior_return) / (oracle_return - prior_return),
    'returns_by_trajectory': [float(value) for value in returns],
    'seconds': seconds,
  }


def _draw(
  folder: run_folder.RunFolder, result: meta_testing.MetaTestResult, oracle_return: float
) -> list[pathlib.Path]:
  names = ('learning_curve.png', 'posterior_sampling.png', 'returns_by_trajectory.png')
  curve, adaptation, returns = (folder.figures / name for name in names)
  plots.learning_curve(
    [plots.curve_from_metrics('point robot', metrics.read(folder.root))],
    curve,
    title='PEARL on the point robot',
  )
  adaptation_plot.adaptation(result.trajectories, adaptation)
  plots.returns_by_trajectory(
    {'PEARL': result},
    returns,
    oracle_return=oracle_return,
    prior_return=float(np.mean([t.episode_return for t in result.trajectories if t.index == 0])),
  )
  return [curve, adaptation, returns]
