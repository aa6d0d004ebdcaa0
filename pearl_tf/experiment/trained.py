"""A trained agent, of a run or published: what evaluation, pictures and export start from."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from tf_agents.trajectories import time_step as ts

from pearl_tf.agents.pearl import actor as pearl_actor
from pearl_tf.data import seeds, types
from pearl_tf.environments import gymnasium_adapter
from pearl_tf.evaluation import meta_testing
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import checkpoints, experiment, published, run_folder, task_split

LATEST = 'latest'
BEST = 'best'


class Trained:
  """A trained agent: acts, adapts and is meta-tested.

  Attributes:
    builder: the experiment, whose agent has the trained weights.
    name: of the checkpoint or of the published agent.
    env_steps: training transitions it was trained on.
    outputs: the folder in which programs write what they make of it: the run folder; of a published
      agent a folder of its name in the working directory.
    claim: the meta-test a published agent was published with, see `published.publish`; None of a
      run.
  """

  def __init__(
    self,
    builder: builder_lib.Builder,
    name: str,
    env_steps: int,
    outputs: pathlib.Path,
    claim: dict | None = None,
  ):
    """Keeps what the attributes say; see `load`."""
    self.builder = builder
    self.name = name
    self.env_steps = env_steps
    self.outputs = outputs
    self.claim = claim

  @property
  def exports(self) -> pathlib.Path:
    """Where its exports are kept by default."""
    return run_folder.RunFolder(self.outputs).exports

  @property
  def tasks(self) -> task_split.TaskSplit:
    """The tasks it was trained on, and those it has never met."""
    return self.builder.tasks

  def meta_test(
    self,
    tasks: Sequence[types.Task] | None = None,
    *,
    seed: int = 0,
    stochastic: bool = False,
    **protocol,
  ) -> meta_testing.MetaTestResult:
    """Meta-tests it.

    Args:
      tasks: on which; the test tasks by default.
      seed: of everything random.
      stochastic: samples actions instead of taking their means.
      **protocol: fields of `meta_testing.MetaTest` to be others than those of its configuration.

    Returns:
      All trajectories.

    Raises:
      ValueError: if the protocol is impossible.
    """
    number = self.builder.training.num_environments
    return dataclasses.replace(self.builder.meta_test, **protocol).run(
      self.tasks.test if tasks is None else tasks,
      self.builder.make_rollout(deterministic=not stochastic, num_environments=number),
      seed=seed,
    )

  def environment(self, task: types.Task) -> gymnasium_adapter.GymnasiumAdapter:
    """Returns the environment, set to a task, as TF-Agents knows it: actions are in [-1, 1]."""
    environment = self.builder.environments(1)[0]
    environment.set_task(task)
    return environment

  def policy(
    self, belief: types.Posterior | None = None, *, seed: int = 0
  ) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what acts on one hypothesis drawn from a belief.

    Args:
      belief: from `infer`; the prior by default.
      seed: draws the hypothesis.

    Returns:
      A function from an observation `[O]` to an action `[A] float32` in [-1, 1].
    """
    random = np.random.default_rng(seeds.sequence(seed, seeds.Stream.META_TEST))
    state, step_type = self._actor.initial_state(1), ts.StepType.FIRST
    if belief is not None:
      state = state._replace(posterior=types.Posterior(*(part[np.newaxis] for part in belief)))

    def act(observation: np.ndarray) -> np.ndarray:
      nonlocal state, step_type
      action, state = self._actor.act(
        np.asarray(observation, np.float32)[np.newaxis],
        np.array([step_type], np.int32),
        np.zeros(1, np.float32),
        state,
        random.integers(2**31, size=2, dtype=np.int32),
      )
      step_type = ts.StepType.MID
      return action[0]

    return act

  def play(
    self, task: types.Task, belief: types.Posterior | None = None, *, seed: int = 0
  ) -> types.Episode:
    """Plays one episode of a task on a hypothesis drawn from a belief.

    Args:
      task: what the environment is set to; the agent is not told.
      belief: from `infer`; the prior by default.
      seed: of everything random.

    Returns:
      The episode, its columns `[S, ...] float32`; actions are in [-1, 1].

    Raises:
      EnvironmentFault: if the environment breaks its contract.
    """
    environment, act = self.environment(task), self.policy(belief, seed=seed)
    environment.seed(seed)
    step = environment.begin_episode()
    rows = []
    while not step.is_last:
      observation = step.observation
      action = act(observation)
      step = environment.take_step(action)
      rows.append(
        types.Episode(
          observation=observation,
          action=action,
          reward=step.reward,
          context_reward=step.context_reward,
          discount=step.discount,
          next_observation=step.observation,
        )
      )
    return types.Episode(*(np.asarray(column, np.float32) for column in zip(*rows, strict=True)))

  def infer(self, episodes: Sequence[types.Episode]) -> types.Posterior:
    """Infers what the agent believes of a task after some episodes, or parts of them.

    Args:
      episodes: all of one task; of each the encoder is shown observation, action, context reward
        and, where it is configured so, the next observation.

    Returns:
      Mean and variance `[Z] float32`; the prior for no transition at all.
    """
    if not sum(len(episode.reward) for episode in episodes):
      return self._actor.prior()
    columns = zip(*episodes, strict=True)
    context = types.Episode(*(np.concatenate(column) for column in columns))
    return types.Posterior(*(part[0] for part in self._actor.infer([context])))

  @functools.cached_property
  def _actor(self) -> pearl_actor.PearlActor:
    return self.builder.make_actor(deterministic=True)


def load(
  root_dir: str | os.PathLike | None = None,
  checkpoint: str = LATEST,
  *,
  pretrained: str | os.PathLike | None = None,
) -> Trained:
  """Loads a trained agent from a run folder or by the name it is published under.

  Args:
    root_dir: the run folder.
    checkpoint: of the run folder, see `restore`.
    pretrained: instead of a run folder, the name of an agent that is shipped with the library, or
      the path of a folder that `trainers.publish` made.

  Returns:
    The agent.

  Raises:
    ValueError: if not exactly one of `root_dir` and `pretrained` is given.
    RunFolderError: if the folder is not a run folder.
    CheckpointError: if there is no such checkpoint, or it cannot be read.
    PublishedError: if there is no such published agent, or it cannot be read.
  """
  if (root_dir is None) == (pretrained is None):
    raise ValueError(
      f'give either a run folder or the name of a published agent, got root_dir={root_dir!r} and '
      f'pretrained={pretrained!r}'
    )
  if pretrained is None:
    builder, found = restore(root_dir, checkpoint)
    env_steps = checkpoints.progress(found).get('env_steps', 0)
    return Trained(builder, found.name, env_steps, run_folder.RunFolder(root_dir).root)
  folder = published.find(pretrained)
  builder = builder_lib.Builder(experiment.of_run(folder), folder)
  about = published.restore(folder, builder)
  name = folder.root.name
  return Trained(builder, name, about['env_steps'], pathlib.Path(name), about['meta_test'])


def restore(
  root_dir: str | os.PathLike, checkpoint: str = LATEST
) -> tuple[builder_lib.Builder, pathlib.Path]:
  """Rebuilds the experiment of a run folder with the weights of a checkpoint.

  Args:
    root_dir: the run folder.
    checkpoint: 'latest', 'best' (highest mean of five evaluations on
      training tasks so far), or the name of a folder in
      `checkpoints/` or its number, the gradient step.

  Returns:
    The builder, whose agent is restored, and the folder of the checkpoint.

  Raises:
    RunFolderError: if the folder is not a run folder.
    CheckpointError: if there is no such checkpoint, or it cannot be read.
  """
  folder = run_folder.RunFolder(root_dir)
  folder.require()
  found = _find(folder, checkpoint)
  builder = builder_lib.Builder(experiment.of_run(folder), folder)
  checkpoints.restore(found, {'agent': builder.agent}, partial=True)
  return builder, found


def _find(folder: run_folder.RunFolder, checkpoint: str) -> pathlib.Path:
  if checkpoint in (LATEST, BEST):
    found = checkpoints.Checkpoints(folder.checkpoints, prefix=checkpoint).latest()
  else:
    found = _named(folder, checkpoint)
  if found is None or not found.is_dir():
    present = sorted(path.name for path in folder.checkpoints.glob('[!.]*'))
    raise checkpoints.CheckpointError(
      f'{folder.root} has no checkpoint {checkpoint!r}; there are: {", ".join(present) or "none"}'
    )
  return found


def _named(folder: run_folder.RunFolder, checkpoint: str) -> pathlib.Path:
  """Returns the checkpoint of a name, or the one whose name ends in a number."""
  if checkpoint.isdecimal():
    numbers = [*folder.checkpoints.glob(f'{LATEST}-*'), *folder.checkpoints.glob(f'{BEST}-*')]
    found = [path for path in numbers if checkpoints.number_of(path) == int(checkpoint)]
    if found:  # All of one gradient step have the same agent.
      return found[0]
  return folder.checkpoints / checkpoint
