"""Published agents: what acts and adapts of a trained agent, small enough to be shipped.

A folder of a published agent has `config.gin`, `run.json` and `tasks.json` of the run it comes
from, the weights of policy and encoder (a TensorFlow checkpoint named `weights`), and
`published.json`: how long it was trained and the meta-test it was published with. Those that are
shipped with the library are in `pearl_tf/pretrained/`.
"""

import json
import os
import pathlib
import re
import shutil
from typing import Any

import tensorflow as tf

from pearl_tf.data import files
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import run_folder

SHIPPED = pathlib.Path(__file__).parents[1] / 'pretrained'
ABOUT = 'published.json'
_WEIGHTS = 'weights'
_NAME = re.compile(r'\w[\w.-]*')


class PublishedError(RuntimeError):
  """A published agent cannot be found, read or made; the message says which and what to do."""


def names() -> list[str]:
  """Returns the names of the agents that are shipped with the library."""
  return sorted(path.parent.name for path in SHIPPED.glob(f'*/{ABOUT}'))


def find(name: str | os.PathLike) -> run_folder.RunFolder:
  """Returns the folder of a published agent.

  Args:
    name: of one that is shipped, or the path of a folder.

  Raises:
    PublishedError: if there is none.
  """
  candidates = (pathlib.Path(name), SHIPPED / name)
  found = next((path for path in candidates if (path / ABOUT).is_file()), None)
  if found is None:
    raise PublishedError(
      f'there is no published agent {os.fspath(name)!r}; shipped are: '
      f'{", ".join(names()) or "none"}. A path must be that of a folder which trainers.publish made'
    )
  folder = run_folder.RunFolder(found.resolve())
  folder.require()
  return folder


def publish(
  builder: builder_lib.Builder,
  root_dir: str | os.PathLike,
  directory: str | os.PathLike,
  about: dict[str, Any],
) -> pathlib.Path:
  """Makes the folder of a published agent, in place of an older one of that name.

  Args:
    builder: the experiment of a run folder, its agent restored.
    root_dir: that run folder.
    directory: the folder to make; its name is the agent's.
    about: `env_steps`, and as `meta_test` the summary of a meta-test of this agent
      (`evaluation.report.summarize`) without its tasks; plain data.

  Returns:
    The folder.

  Raises:
    PublishedError: if the name is no name, or there is a folder that is no published agent.
    FileError: if it cannot be written.
  """
  target = files.local_path(directory, 'directory')
  if not _NAME.fullmatch(target.name):
    raise PublishedError(f'{target.name!r} cannot name an agent: use letters, digits, - and _')
  if target.exists() and not (target / ABOUT).is_file():
    raise PublishedError(f'{target} is there and holds no published agent; choose another name')
  source, staged = (
    run_folder.RunFolder(root_dir),
    run_folder.RunFolder(target.parent / f'.staged-{target.name}'),
  )
  with files.explained(target):
    shutil.rmtree(staged.root, ignore_errors=True)
    staged.root.mkdir(parents=True)
    for origin, copy in ((source.run, staged.run), (source.tasks, staged.tasks)):
      shutil.copyfile(origin, copy)
    staged.config.write_text(builder.experiment.text)
    tf.train.Checkpoint(**_parts(builder)).write(str(staged.root / _WEIGHTS))
    about = about | {'gradient_steps': int(builder.agent.train_step_counter.numpy())}
    (staged.root / ABOUT).write_text(json.dumps(about, indent=1))
    files.sync_tree(staged.root)
    shutil.rmtree(target, ignore_errors=True)
    staged.root.rename(target)
    files.sync_folder(target.parent)
  return target


def restore(folder: run_folder.RunFolder, builder: builder_lib.Builder) -> dict[str, Any]:
  """Reads the weights of a published agent into the agent of its experiment.

  Args:
    folder: as `find` returns it.
    builder: of its experiment.

  Returns:
    What `publish` was told about it, and `gradient_steps`.

  Raises:
    PublishedError: if it cannot be read.
  """
  try:
    about = json.loads((folder.root / ABOUT).read_text())
    weights = str(folder.root / _WEIGHTS)
    status = tf.train.Checkpoint(**_parts(builder)).read(weights)
    status.assert_existing_objects_matched().expect_partial()
    builder.agent.train_step_counter.assign(about['gradient_steps'])
    return {'env_steps': about['env_steps'], 'meta_test': about['meta_test']}
  except (OSError, ValueError, KeyError, IndexError, AssertionError, tf.errors.OpError) as error:
    raise PublishedError(
      f'the published agent {folder.root} is damaged ({error}); install it again, or make it again '
      'from its run with trainers.publish'
    ) from error


def _parts(builder: builder_lib.Builder) -> dict[str, tf.Module]:
  """Returns what acts and adapts; of a method without an encoder that is all of the agent."""
  agent = builder.agent
  if hasattr(agent, 'encoder'):
    return {'encoder': agent.encoder, 'actor': agent.actor}
  return {'agent': agent}
