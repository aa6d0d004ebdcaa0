"""An experiment as a value: what a configuration says, read once.

Two of them in one process do not mix: nothing that is built from one, however late, reads gin.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence

import gin
import gymnasium

from pearl_tf.agents import builder as agents_builder
from pearl_tf.agents import training
from pearl_tf.agents.pearl import builder as pearl_builder
from pearl_tf.environments import registry, tolerance
from pearl_tf.evaluation import meta_testing
from pearl_tf.experiment import bound, config, numerics, run_folder, task_split

MAX_SEED = 2**31 - 1


@gin.configurable(allowlist=['method'])
@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """A configuration and a seed.

  Attributes:
    text: the resolved gin text.
    seed: of everything random.
    environment_name: name of the task family.
    make_environment: makes one environment of the family.
    make_tolerance: makes the count of the episodes of a run, see `tolerance.Tolerance`.
    sample_task_split: see `task_split.sample_task_split`.
    method: makes agent and learning process; in gin the class that makes `method` itself.
    training: sizes of the run.
    meta_test: the protocol of evaluation.
    set_op_determinism: throws the switch of the process.
  """

  text: str
  seed: int
  environment_name: str
  make_environment: Callable[[], gymnasium.Env]
  make_tolerance: Callable[[], tolerance.Tolerance]
  sample_task_split: Callable[..., task_split.TaskSplit]
  method: agents_builder.AgentBuilder = pearl_builder.PearlBuilder
  training: training.Training
  meta_test: meta_testing.MetaTest
  set_op_determinism: Callable[[], None]


def load(
  gin_files: Sequence[str | os.PathLike], gin_bindings: Sequence[str] = (), *, seed: int = 0
) -> Experiment:
  """Returns the experiment of configuration files and bindings.

  Args:
    gin_files: paths, later ones override earlier ones.
    gin_bindings: single bindings, override the files.
    seed: of everything random.

  Raises:
    ConfigError: if the configuration cannot be parsed, a number in it is impossible, the
      environment is unknown, or a binding has no effect.
  """
  return _resolve(config.load(gin_files, gin_bindings), seed)


def of_run(folder: run_folder.RunFolder) -> Experiment:
  """Returns the experiment of a run folder.

  Raises:
    RunFolderError: if it is none.
    ConfigError: if its configuration cannot be used.
  """
  folder.require()
  return of_text(folder.config.read_text(), folder.seed)


def of_text(text: str, seed: int) -> Experiment:
  """Returns the experiment of a resolved configuration; raises `ConfigError` if it is unusable."""
  return _resolve(config.load_text(text), seed)


def _resolve(text: str, seed: int) -> Experiment:
  """Reads the configuration in force, whose text is `text`."""
  if not 0 <= seed <= MAX_SEED:
    raise config.ConfigError(f'the seed must be in [0, {MAX_SEED}], got {seed}')
  resolver = bound.Resolver()
  with config.as_config_error():
    make = resolver.bind(registry.make)
    arguments = dict(make.arguments)
    name = arguments.pop('name')
    found, registered = registry.constructor(name)
    arguments = resolver.bind(found).arguments | registered | arguments
    method = resolver.bind(Experiment).arguments['method']()
    experiment = Experiment(
      text=text,
      seed=seed,
      environment_name=name,
      make_environment=functools.partial(make.target, name, **arguments),
      make_tolerance=resolver.bind(tolerance.Tolerance),
      sample_task_split=resolver.bind(task_split.sample_task_split),
      method=method,
      training=resolver.bind(training.Training)(),
      meta_test=resolver.bind(meta_testing.MetaTest)(),
      set_op_determinism=resolver.bind(numerics.set_op_determinism),
    )
    resolver.check_all_read()
  return experiment
