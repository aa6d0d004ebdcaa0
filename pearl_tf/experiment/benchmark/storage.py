"""Times what keeps the data: insertion, the learner's drain, checkpoints and the way back."""

import math
import pathlib
import time
from typing import Any

import numpy as np

from pearl_tf.agents.pearl import replay_training
from pearl_tf.data import specs, types
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import checkpoints
from pearl_tf.experiment.benchmark import timing

# About what an iteration collects: the writer's flushes weigh as they do in training.
_EPISODES_PER_ROUND = 50
_NUM_SAVES = 3


def fill(
  builder: builder_lib.Builder, process: replay_training.ReplayTraining, *, num_transitions: int
) -> dict[str, Any]:
  """Fills a replay with noise, task after task, and times the writer and the learner's drain.

  Args:
    builder: the experiment.
    process: where the transitions go, each into the context of its task too.
    num_transitions: how many at least; there are two rounds of whole episodes in any case.

  Returns:
    Rates of the median round after the first, which opens the stream and traces the drain.
  """
  num_tasks, num_steps = len(builder.tasks.train), builder.training.max_episode_steps
  num_episodes = num_tasks * math.ceil(_EPISODES_PER_ROUND / num_tasks)
  num_rounds = max(2, math.ceil(num_transitions / (num_episodes * num_steps)))
  random = np.random.default_rng(builder.seed)
  inserted, drained = timing.Turns([], []), timing.Turns([], [])
  for index in range(num_rounds):
    episodes = [
      synthetic_episode(random, builder.domain, num_steps=num_steps) for _ in range(num_episodes)
    ]
    started = time.perf_counter()
    for number, episode in enumerate(episodes):
      process.replay.writer.write(number % num_tasks, episode, in_context=True, visit=0)
    process.replay.writer.flush()
    written = time.perf_counter()
    num_drained = process.replay.drain()
    if index:
      inserted.add(seconds=written - started, work=num_episodes * num_steps)
      drained.add(seconds=time.perf_counter() - written, work=num_drained)
  return {
    'transitions': num_rounds * num_episodes * num_steps,
    'transitions_in_cache': process.replay.cache.num_rows,
    'episode_steps': num_steps,
    'insertion_transitions_per_second': inserted.median_rate(),
    'drain_transitions_per_second': drained.median_rate(),
    'repeats': inserted.number,
  }


def synthetic_episode(
  random: np.random.Generator, domain: specs.DomainSpec, *, num_steps: int
) -> types.Episode:
  """Returns an episode of noise: as hard to compress as a replay can be.

  Args:
    random: source of the noise.
    domain: sizes of the domain.
    num_steps: `S`.
  """
  observation = random.standard_normal([num_steps + 1, domain.observation_size], np.float32)
  reward = random.standard_normal(num_steps, np.float32)
  return types.Episode(
    observation=observation[:-1],
    action=random.uniform(-1, 1, [num_steps, domain.action_size]).astype(np.float32),
    reward=reward,
    context_reward=reward,
    discount=np.ones(num_steps, np.float32),
    next_observation=observation[1:],
  )


def save(
  builder: builder_lib.Builder, process: replay_training.ReplayTraining, directory: pathlib.Path
) -> tuple[pathlib.Path, dict[str, Any]]:
  """Times what training saves: everything, and the weights of the best agent so far.

  Args:
    builder: the experiment.
    process: saved as it is.
    directory: where the checkpoints go.

  Returns:
    The last checkpoint, and the medians.
  """
  variables = {'agent': builder.agent} | process.variables()
  progress = {'process': process.state()}
  latest = checkpoints.Checkpoints(directory, prefix='latest', keep=2)
  best = checkpoints.Checkpoints(directory, prefix='best', keep=1)
  whole, weights = timing.Turns([], []), timing.Turns([], [])
  for number in range(_NUM_SAVES):
    started = time.perf_counter()
    saved = latest.save(number, variables, progress)
    whole.add(seconds=time.perf_counter() - started, work=1)
    started = time.perf_counter()
    best.save(number, {'agent': builder.agent}, progress)
    weights.add(seconds=time.perf_counter() - started, work=1)
  size = sum(path.stat().st_size for path in saved.rglob('*') if path.is_file())
  return saved, {
    'save_seconds': whole.median_seconds(),
    'save_weights_seconds': weights.median_seconds(),
    'megabytes': size / 1e6,
    'repeats': whole.number,
  }


def restore(
  builder: builder_lib.Builder, saved: pathlib.Path
) -> tuple[replay_training.ReplayTraining, dict[str, Any]]:
  """Times the way back: every variable, and the tables filled again.

  Args:
    builder: the experiment; its agent is restored.
    saved: from `save`.

  Returns:
    The learning process, to be closed by the caller, and how long it took.
  """
  started = time.perf_counter()
  process = builder.make_process()
  try:
    checkpoints.restore(saved, {'agent': builder.agent} | process.variables())
    process.restore({})
  except BaseException:
    process.close()
    raise
  return process, {'restore_seconds': time.perf_counter() - started}
