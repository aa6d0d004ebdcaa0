"""Makes meta-tests up, for tests of what is computed and drawn from them."""

from collections.abc import Sequence

import numpy as np

from pearl_tf.data import types
from pearl_tf.evaluation import meta_testing

LATENT_SIZE = 3
NUM_PRIOR = 2


def meta_test_result(
  returns: Sequence[Sequence[Sequence[float]]], *, first_task: int = 0
) -> meta_testing.MetaTestResult:
  """Returns a meta-test of point robots with the given returns.

  Args:
    returns: By task, repeat and trajectory; repeats may differ in length.
    first_task: Index of the first task.

  Returns:
    Trajectories of four transitions each, that go straight to the goal of their task. The first two
    of each repeat are drawn from the prior, the others from a posterior that narrows.
  """
  generator = np.random.default_rng(0)
  trajectories = []
  for task_index, repeats in enumerate(returns, start=first_task):
    goal = generator.uniform(-1, 1, 2).astype(np.float32)
    task = types.Task(index=task_index, parameters=goal)
    for repeat, values in enumerate(repeats):
      for index, value in enumerate(values):
        trajectories.append(_trajectory(task, repeat, index, value, generator))
  num_steps = sum(trajectory.length for trajectory in trajectories)
  return meta_testing.MetaTestResult(trajectories=trajectories, env_steps=num_steps, seconds=1.5)


def _trajectory(
  task: types.Task, repeat: int, index: int, value: float, generator: np.random.Generator
) -> meta_testing.ScoredEpisode:
  adapted = index >= NUM_PRIOR
  mean = np.linspace(-1, 1, LATENT_SIZE) if adapted else np.zeros(LATENT_SIZE)
  variance = np.full(LATENT_SIZE, 1 / (1 + index) if adapted else 1.0)
  start = generator.uniform(-1, 1, 2)
  fractions = np.linspace(0, 1, 5)[:, np.newaxis]
  return meta_testing.ScoredEpisode(
    task=task,
    repeat=repeat,
    index=index,
    episode_return=value,
    dense_return=value - 1,
    length=4,
    adapted=adapted,
    latent=mean.astype(np.float32),
    posterior=types.Posterior(mean.astype(np.float32), variance.astype(np.float32)),
    observations=(start + fractions * (task.parameters - start)).astype(np.float32),
  )
