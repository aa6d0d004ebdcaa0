"""The benchmark of an experiment: gradient step, collection, memory, one record each.

The experiment is built as training would build it, by its own learning process, and its replay is
filled with noise. Every figure is taken in the run that reports it. What evaluation and checkpoints
cost, a run's own metrics say (`time/...`). How a report looks is the matter of `report`.
"""

import math
import os
import pathlib
import platform
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from pearl_tf.agents.pearl import replay_training
from pearl_tf.data import specs, types
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment.benchmark import environments, learning

Record = dict[str, Any]

# The instruction sets that decide how fast oneDNN multiplies.
_INSTRUCTION_SETS = ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16', 'asimd', 'sve', 'bf16')


def run(
  builder: builder_lib.Builder,
  *,
  seconds: float = 20.0,
  replay_transitions: int = 300_000,
  num_environments: int = 8,
  min_rounds: int = 3,
  announce: Callable[[str], None] = lambda text: None,
) -> list[Record]:
  """Measures every part.

  Args:
    builder: the experiment.
    seconds: how long each timed part goes on, once it has its fewest rounds.
    replay_transitions: transitions in the replay, at least; see `fill`.
    num_environments: environments of the collection that is reported.
    min_rounds: the fewest rounds of each timed part.
    announce: told which part begins, and how long it took.

  Returns:
    One record per part: plain data, `part` names it, and the names of the figures tell units.

  Raises:
    ValueError: if a number is not positive.
    EnvironmentFault: if an environment breaks its contract.
  """
  numbers = {
    'seconds': seconds,
    'replay_transitions': replay_transitions,
    'num_environments': num_environments,
    'min_rounds': min_rounds,
  }
  for name, number in numbers.items():
    if number <= 0:
      raise ValueError(f'{name} must be positive, got {number}')
  rounds = {'seconds': seconds, 'min_rounds': min_rounds}
  process = builder.make_process()
  parts = {
    'machine': describe_machine,
    'experiment': lambda: describe(builder),
    'replay': lambda: fill(builder, process, num_transitions=replay_transitions),
    'gradient_step': lambda: learning.gradient_step(builder, process, **rounds),
    'collection': lambda: environments.collection(
      builder, process, num_environments=num_environments, **rounds
    ),
    # Here, after all that training does and before what only a benchmark does.
    'memory': lambda: {'peak_gib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20},
    'floor': lambda: learning.floor(
      builder, process, step_ms=records['gradient_step']['ms'], **rounds
    ),
  }
  records: dict[str, Record] = {}
  try:
    for number, (name, measure) in enumerate(parts.items(), start=1):
      title = f'part {number} of {len(parts)}, {name.replace("_", " ")}'
      announce(f'{title} ...')
      started = time.perf_counter()
      records[name] = {'part': name, **measure()}
      announce(f'{title}: {time.perf_counter() - started:.1f} s')
  finally:
    process.close()
  return list(records.values())


def describe_machine() -> Record:
  """Returns processor, cores this process may use, memory, GPUs, load and TensorFlow's version."""
  information = pathlib.Path('/proc/cpuinfo')
  lines = information.read_text().splitlines() if information.is_file() else []
  entries = {key.strip(): value.strip() for key, _, value in (x.partition(':') for x in lines)}
  flags = set(entries.get('flags', entries.get('Features', '')).split())
  return {
    'cpu': entries.get('model name', platform.processor() or platform.machine()),
    'cores': len(os.sched_getaffinity(0)),
    'instruction_sets': [name for name in _INSTRUCTION_SETS if name in flags],
    'memory_gib': os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30,
    'gpus': [device.name for device in tf.config.list_physical_devices('GPU')],
    'load_average': os.getloadavg()[0],
    'tensorflow': tf.__version__,
  }


def describe(builder: builder_lib.Builder) -> Record:
  """Returns what is measured: names and shapes."""
  training = builder.method.training
  return {
    'environment': builder.environments(1)[0].name,
    'observation_size': builder.domain.observation_size,
    'action_size': builder.domain.action_size,
    'train_tasks': len(builder.tasks.train),
    'meta_batch_size': training.meta_batch_size,
    'context_size': training.context_size,
    'batch_size': training.batch_size,
    'seed': builder.seed,
  }


def fill(
  builder: builder_lib.Builder, process: replay_training.ReplayTraining, *, num_transitions: int
) -> Record:
  """Fills the replay with whole episodes of noise, the same number for every task.

  Args:
    builder: the experiment.
    process: where the transitions go, each into the context of its task too.
    num_transitions: how many at least.

  Returns:
    How many there are.
  """
  num_tasks, num_steps = len(builder.tasks.train), builder.training.max_episode_steps
  num_episodes = math.ceil(num_transitions / (num_tasks * num_steps))
  random = np.random.default_rng(builder.seed)
  for _ in range(num_episodes):
    for task in range(num_tasks):
      episode = _noise(random, builder.domain, num_steps)
      process.replay.writer.write(task, episode, in_context=True, visit=0)
    process.replay.writer.flush()
    process.replay.drain()
  return {'transitions': num_episodes * num_tasks * num_steps, 'episode_steps': num_steps}


def _noise(random: np.random.Generator, domain: specs.DomainSpec, num_steps: int) -> types.Episode:
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
