"""Times collection beside the environment they step."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from pearl_tf.agents.pearl import replay_training
from pearl_tf.collect import collector, trial
from pearl_tf.data import seeds, types
from pearl_tf.environments import mujoco_meta_env
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment.benchmark import timing

_EPISODES_ALONE = 5


def collection(
  builder: builder_lib.Builder,
  process: replay_training.ReplayTraining,
  *,
  num_environments: int,
  **rounds,
) -> dict[str, Any]:
  """Times collection with a replay and without one, the bare environment and our adapter of it.

  Args:
    builder: the experiment.
    process: where the data goes: written, confirmed, and drained into the learner's cache.
    num_environments: environments stepped side by side, each on a task.
    **rounds: for `timing.take_turns`.

  Returns:
    Environment steps per second, what each costs beside the bare environment, what that costs
    beside the gymnasium environment it is built on (None if it is not), and the seconds of one
    configured iteration.
  """
  rollout = builder.make_rollout(deterministic=False, num_environments=num_environments)
  wide = builder.method.make_collector(
    builder.agent, builder.run, process.replay.writer, num_environments=num_environments
  )
  wide_tasks = _cycle(builder.tasks.train, num_environments)
  iteration_tasks = _cycle(builder.tasks.train, builder.method.schedule.tasks_per_iteration)
  phases = builder.method.schedule.visit_phases(
    builder.method.training.context_size, builder.method.training.context_sampling
  )
  seed = seeds.sequence(builder.seed, seeds.Stream.COLLECT)

  def roll_out() -> int:
    trials = [trial.Trial(task, phases) for task in wide_tasks]
    return rollout.run(trials, seed=seed, on_episode=lambda episode: None)

  def collect(collects: collector.Collector, tasks: list[types.Task]) -> int:
    collected = collects.visit(tasks, seed=seed, number=1)
    process.replay.drain()
    return collected.env_steps

  turns = timing.take_turns(
    {
      **environment_alone(builder),
      'rollout': roll_out,
      'collection': lambda: collect(wide, wide_tasks),
      'iteration': lambda: collect(process.collector, iteration_tasks),
    },
    **rounds,
  )
  beside_bare = ('adapter', 'rollout', 'collection')
  origin = turns.get('gymnasium')
  return {
    'num_environments': num_environments,
    'gymnasium_environment': origin and _published_class(builder).__name__,
    'bare_percent': origin and timing.extra_percent(turns['bare'], origin),
    **{f'{name}_steps_per_second': each.median_rate() for name, each in turns.items()},
    **{f'{name}_percent': timing.extra_percent(turns[name], turns['bare']) for name in beside_bare},
    'iteration_tasks': len(iteration_tasks),
    'iteration_env_steps': turns['iteration'].work[-1],
    'iteration_seconds': turns['iteration'].median_seconds(),
    'repeats': turns['bare'].number,
  }


def environment_alone(builder: builder_lib.Builder) -> dict[str, Callable[[], int]]:
  """Returns activities that step one environment with the same random actions.

  Args:
    builder: the experiment; its first environment is used.

  Returns:
    `bare`, the environment itself, on a task; `adapter`, our adapter of it; and `gymnasium`, the
    environment of gymnasium that it is built on, if it is on one. All return the steps they took:
    some whole episodes.
  """
  adapter = builder.environments(1)[0]
  environment, task = adapter.gymnasium_env, builder.tasks.train[0]
  episode_steps = builder.training.max_episode_steps
  random = np.random.default_rng(builder.seed)
  actions = random.uniform(
    -1, 1, [_EPISODES_ALONE * episode_steps, builder.domain.action_size]
  ).astype(np.float32)
  space = environment.action_space
  scaled = (space.low + (actions + 1) / 2 * (space.high - space.low)).astype(space.dtype)

  def stepping(alone: gymnasium.Env) -> int:
    ended = True
    for step, action in enumerate(scaled):
      if ended or step % episode_steps == 0:
        alone.reset(seed=builder.seed)
      _, _, terminated, truncated, _ = alone.step(action)
      ended = terminated or truncated
    return len(scaled)

  def bare() -> int:
    environment.get_wrapper_attr('set_task')(task)
    return stepping(environment)

  def adapted() -> int:
    adapter.set_task(task)
    ended = True
    for action in actions:
      if ended:
        adapter.seed(builder.seed)
        adapter.reset()
      ended = adapter.step(action).is_last()
    return len(actions)

  activities = {'bare': bare, 'adapter': adapted}
  published = _published_class(builder)
  if published is not None:
    origin = published(**environment.unwrapped.simulator_arguments)
    activities['gymnasium'] = lambda: stepping(origin)
  return activities


def _published_class(builder: builder_lib.Builder) -> type[gymnasium.Env] | None:
  """Returns the class of gymnasium's MuJoCo suite that the environment is built on."""
  environment = builder.environments(1)[0].gymnasium_env.unwrapped
  if not isinstance(environment, mujoco_meta_env.MujocoMetaEnv):
    return None
  return next(
    base
    for base in type(environment).__mro__
    if base.__module__.startswith('gymnasium.envs.mujoco')
  )


def _cycle(tasks: list[types.Task], number: int) -> list[types.Task]:
  return [tasks[index % len(tasks)] for index in range(number)]
