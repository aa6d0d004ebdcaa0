"""The evaluations of a run while it trains: meta-tests on test tasks and on some training tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pearl_tf.data import seeds
from pearl_tf.environments import meta_env
from pearl_tf.evaluation import adaptation_plot, calibration, meta_testing, plots, report
from pearl_tf.experiment import builder as builder_lib

if TYPE_CHECKING:
  from matplotlib import figure as mpl_figure


class Evaluation:
  """Meta-tests the agent of an experiment, as it is at each call."""

  def __init__(self, builder: builder_lib.Builder):
    """Makes the environments.

    Args:
      builder: the experiment.
    """
    self._builder = builder
    num_trials = max(len(builder.tasks.test), len(builder.tasks.train))
    self._rollout = builder.make_rollout(
      deterministic=True,
      num_environments=min(builder.training.num_environments, 4 * num_trials),
    )
    self._acting = builder.make_actor(deterministic=True)
    self._newest: meta_testing.MetaTestResult | None = None
    self._calibration: calibration.Calibration | None = None

  def run(self, iteration: int) -> dict[str, float]:
    """Meta-tests on the test tasks and on as many random training tasks.

    Args:
      iteration: finished iterations, which the randomness follows.

    Returns:
      Metrics `test/...` and `train/...`.
    """
    tasks, seed = self._builder.tasks, self._builder.seed
    random = np.random.default_rng(seeds.sequence(seed, seeds.Stream.EVALUATE_TRAIN, iteration))
    number = min(len(tasks.test), len(tasks.train))
    chosen = random.choice(len(tasks.train), size=number, replace=False)
    test, train = (
      self._builder.meta_test.run(
        subset, self._rollout, seed=seeds.sequence(seed, stream, iteration)
      )
      for stream, subset in (
        (seeds.Stream.EVALUATE_TEST, tasks.test),
        (seeds.Stream.EVALUATE_TRAIN, [tasks.train[index] for index in chosen]),
      )
    )
    self._newest = test
    values = _values('test', test) | _values('train', train)
    if self._is_of_beliefs_in_the_plane():
      self._calibration = calibration.calibrate(
        self._acting,
        test,
        num_steps=self._builder.training.max_episode_steps,
        random=np.random.default_rng(seeds.sequence(seed, seeds.Stream.CALIBRATION, iteration)),
      )
      values['test/standardized_error'] = self._calibration.standardized_error
    return values

  def _is_of_beliefs_in_the_plane(self) -> bool:
    environment = self._builder.environments(1)[0].gymnasium_env
    has_belief = self._newest.trajectories[0].posterior is not None
    return has_belief and meta_env.attribute(environment, 'is_plane', False)

  def figures(self) -> dict[str, mpl_figure.Figure]:
    """Draws the newest meta-test on the test tasks; names as in TensorBoard."""
    drawn = {
      'test/returns_by_trajectory': plots.returns_by_trajectory({'test tasks': self._newest})
    }
    if self._is_of_beliefs_in_the_plane():
      drawn['test/calibration'] = plots.calibration(self._calibration)
      drawn['test/adaptation'] = adaptation_plot.adaptation(self._newest.trajectories)
    return drawn


def _values(name: str, result: meta_testing.MetaTestResult) -> dict[str, float]:
  """Returns the metrics of one meta-test."""
  values = {
    f'{name}/final_return': float(np.mean(list(report.final_returns(result).values()))),
    f'{name}/return_by_trajectory': report.returns_by_trajectory(result),
  }
  success_rates = report.success_rates(result)
  if success_rates is not None:
    values[f'{name}/success_rate'] = float(np.mean(list(success_rates.values())))
  return values
