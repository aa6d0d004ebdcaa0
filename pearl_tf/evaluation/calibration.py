"""Whether beliefs of a point robot are as sure as they may be: where they lead, against the goal.

A latent means nothing by itself; where the policy would end up under it can be compared with the
task.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tf_agents.trajectories import time_step as ts

from pearl_tf.collect import actor
from pearl_tf.data import types
from pearl_tf.environments import point_robot
from pearl_tf.evaluation import meta_testing

NUM_SAMPLES = 96
# A policy that leads to one place, whatever the belief, is sure of a step's hundredth at most.
_MIN_STD = 0.01 * point_robot.MAX_STEP


class Calibration(NamedTuple):
  """Beliefs as places.

  Attributes:
    errors: `[K, 2]`, by axis, of the mean place that samples of a belief lead to.
    stds: `[K, 2]`, of these places.
  """

  errors: np.ndarray
  stds: np.ndarray

  @property
  def standardized_error(self) -> float:
    """Root mean square of errors in units of the stds: 1 if calibrated, more if too sure."""
    return float(np.sqrt(np.mean((self.errors / np.maximum(self.stds, _MIN_STD)) ** 2)))


def calibrate(
  acting: actor.BelievingActor,
  result: meta_testing.MetaTestResult,
  *,
  num_steps: int,
  random: np.random.Generator,
) -> Calibration:
  """Compares the beliefs that the last trajectories of a meta-test were acted on with their goals.

  Args:
    acting: the compiled policy.
    result: of tasks in the plane, whose first two parameters are the goal.
    num_steps: how many steps the robot walks, from the origin.
    random: draws the samples.
  """
  last = {(one.task.index, one.repeat): one for one in result.trajectories}.values()
  places = destinations(
    acting,
    [one.posterior for one in last],
    np.zeros(2, np.float32),
    num_steps=num_steps,
    random=random,
  )
  goals = np.stack([one.task.parameters[:2] for one in last])
  return Calibration(errors=places.mean(axis=1) - goals, stds=places.std(axis=1, ddof=1))


def destinations(
  acting: actor.BelievingActor,
  beliefs: Sequence[types.Posterior],
  start: np.ndarray,
  *,
  num_steps: int,
  random: np.random.Generator,
) -> np.ndarray:
  """Finds where the policy leads under samples of beliefs.

  The same standard normal numbers are used for all beliefs, so that a sample moves smoothly from
  one belief to the next.

  Args:
    acting: the compiled policy.
    beliefs: `K` beliefs `[Z]`.
    start: `[2]`, where the robot starts.
    num_steps: how many steps it walks.
    random: draws the samples.

  Returns:
    `[K, NUM_SAMPLES, 2] float32`, positions.
  """
  mean = np.stack([belief.mean for belief in beliefs])[:, None]
  std = np.sqrt(np.stack([belief.variance for belief in beliefs]))[:, None]
  noise = random.standard_normal((1, NUM_SAMPLES, mean.shape[-1]), np.float32)
  latent = (mean + std * noise).reshape(-1, mean.shape[-1])
  unused = types.Posterior(np.zeros_like(latent), np.ones_like(latent))
  position = np.tile(np.asarray(start, np.float32), (len(latent), 1))
  # Any but the first, at which a policy would draw latents of its own.
  step_type = np.full(len(latent), ts.StepType.MID, np.int32)
  no_reward = np.zeros(len(latent), np.float32)
  for _ in range(num_steps):
    seed = random.integers(np.iinfo(np.int32).max, size=2, dtype=np.int32)
    state = types.PolicyState(latent, unused)
    action, _ = acting.act(position, step_type, no_reward, state, seed)
    position = position + point_robot.MAX_STEP * np.clip(action, -1, 1)
  return position.reshape(len(beliefs), NUM_SAMPLES, 2)
