"""All models of a server: looks for versions, has them loaded, lends them out, reloads the list."""

import asyncio
import pathlib
from collections.abc import Coroutine, Sequence

import grpc
from absl import logging

from serving import errors
from serving.model_server import loader, model_config, servable, served_model, versions

VersionStatus = served_model.VersionStatus


class ModelManager:
  """Serves what is in the models' folders; belongs to one event loop.

  The calls that requests make (`resolve`, `statuses`, `is_ready`) never wait.
  """

  def __init__(
    self,
    models: Sequence[model_config.ModelConfig],
    *,
    poll_seconds: float = 1.0,
    allow_version_labels_for_unavailable_models: bool = False,
    num_load_retries: int = 0,
    load_retry_seconds: float = 60.0,
    warm_up: bool = True,
    on_load: loader.LoadObserver | None = None,
  ):
    """Makes a manager that has loaded nothing yet.

    Args:
      models: What to serve.
      poll_seconds: Time between two looks at the folders; 0 to look only at start and at a reload.
      allow_version_labels_for_unavailable_models: Whether a new label may point to a version that
        is not available.
      num_load_retries: How often a failed load is tried again.
      load_retry_seconds: Time between two tries.
      warm_up: Whether to replay warm-up records.
      on_load: Told name, version, seconds and error, if any, after each attempt to load.

    Raises:
      ServingError: INVALID_ARGUMENT if `models` is empty or names one twice.
    """
    model_config.check_unique(models)
    if poll_seconds < 0:
      raise ValueError(f'poll_seconds must be >= 0, got {poll_seconds}')
    self._configs = tuple(models)
    self._poll_seconds = poll_seconds
    self._allow_unavailable = allow_version_labels_for_unavailable_models
    self._retries = {'num_retries': num_load_retries, 'retry_seconds': load_retry_seconds}
    self._loader = loader.Loader(warm_up=warm_up, on_load=on_load)
    self._models: dict[str, served_model.ServedModel] = {}
    self._removed: dict[str, served_model.ServedModel] = {}
    self._unreadable: dict[str, str] = {}
    self._generation = 0
    self._poll_task: asyncio.Task | None = None
    self._tasks: set[asyncio.Task] = set()

  async def start(self) -> None:
    """Loads the models and goes on looking for versions.

    Waits for ever for a model without any version, as TensorFlow Serving does.

    Raises:
      ServingError: UNKNOWN if a model has versions but none of them can be served,
        FAILED_PRECONDITION for a label of a version that is not available.
    """
    if self._poll_seconds:
      self._poll_task = self._spawn(self._poll_forever())
    await self._apply(self._configs)

  async def stop(self, *, grace_seconds: float = 5.0) -> None:
    """Frees all models.

    Args:
      grace_seconds: How long to wait for those that are still borrowed.
    """
    if self._poll_task is not None:
      self._poll_task.cancel()
    for model in self._models.values():
      model.remove()
    self._removed.update(self._models)
    self._models = {}
    unloads = [asyncio.ensure_future(_unload(model)) for model in self._removed.values()]
    if unloads:
      _, late = await asyncio.wait(unloads, timeout=grace_seconds)
      for unload in late:
        unload.cancel()
      if late:
        logging.warning('%d models were still in use after %g s', len(late), grace_seconds)
    self._loader.close()

  def resolve(
    self, name: str, version: int | None = None, label: str | None = None
  ) -> servable.Servable:
    """Returns the servable for a request, to be borrowed at once: `with manager.resolve(...) as s`.

    Args:
      name: Of the model.
      version: Its number.
      label: Instead of a number; without either, the largest number available is taken.

    Raises:
      ServingError: NOT_FOUND if it is not available, INVALID_ARGUMENT for an unknown label.
    """
    model = self._models.get(name)
    if label:
      version = model.labels.get(label) if model is not None else None
      if version is None:
        raise errors.invalid_argument(f'Unrecognized servable version label: {label}')
    found = model.find(version) if model is not None else None
    if found is None:
      request = f'Latest({name})' if version is None else f'Specific({name}, {version})'
      raise errors.not_found(f'Servable not found for request: {request}')
    return found

  def statuses(self, name: str, version: int | None = None) -> list[VersionStatus]:
    """Returns the state of one version or all, newest first, those that are gone included.

    Raises:
      ServingError: NOT_FOUND if there never was any.
    """
    model = self._models.get(name) or self._removed.get(name)
    found = model.statuses() if model is not None else []
    if not found:
      raise errors.not_found(f'Could not find any versions of model {name}')
    if version is None:
      return found
    found = [status for status in found if status.version == version]
    if not found:
      raise errors.not_found(f'Could not find version {version} of model {name}')
    return found

  def is_ready(self) -> bool:
    """Tells whether every model has a version to serve."""
    return bool(self._models) and all(model.is_available for model in self._models.values())

  def names(self) -> list[str]:
    """Returns the names of the models configured."""
    return list(self._models)

  async def reload(self, models: Sequence[model_config.ModelConfig]) -> None:
    """Replaces the list of models.

    Waits for the models that are new, not for new versions of the others. Unlike TensorFlow
    Serving, one that waits for a model without versions keeps no other from being applied.

    Args:
      models: The whole list; what it lacks is unloaded.

    Raises:
      ServingError: INVALID_ARGUMENT as the constructor, UNKNOWN if no version of a new model can be
        served, FAILED_PRECONDITION for a label of a version that is not available, ABORTED if a
        later list came while this one waited. In the last three cases the list is in force, its
        labels are not.
    """
    model_config.check_unique(models)
    await self._apply(tuple(models))

  async def poll(self) -> None:
    """Looks for versions now; loading goes on after it returns."""
    await asyncio.gather(*(self._look(model) for model in self._models.values()))

  async def _apply(self, configs: Sequence[model_config.ModelConfig]) -> None:
    self._generation += 1
    generation = self._generation
    new = self._replace(configs)
    await self.poll()
    await asyncio.gather(*(model.wait_settled() for model in new))
    if generation != self._generation:
      raise errors.ServingError(
        grpc.StatusCode.ABORTED, 'a later model config replaced this one before it was in force'
      )
    _check_available(new)
    self._set_labels()

  def _replace(self, configs: Sequence[model_config.ModelConfig]) -> list[served_model.ServedModel]:
    """Makes the list of models anew; returns those that were not in it before."""
    new, models = [], {}
    for config in configs:
      model = self._models.get(config.name)
      if model is None:
        model = served_model.ServedModel(config, self._loader, **self._retries)
        new.append(model)
        self._removed.pop(config.name, None)
      model.config = config
      models[config.name] = model
    for name in self._models.keys() - models.keys():
      model = self._removed[name] = self._models[name]
      model.remove()
      self._spawn(model.settle())
    self._models = models
    return new

  def _set_labels(self) -> None:
    for model in self._models.values():
      for label, version in model.config.labels.items():
        may_wait = self._allow_unavailable and label not in model.labels
        if model.find(version) is None and not may_wait:
          raise errors.failed_precondition(
            f'Request to assign label to version {version} of model {model.config.name}, which is '
            'not currently available for inference'
          )
    for model in self._models.values():
      model.labels = dict(model.config.labels)

  async def _poll_forever(self) -> None:
    while True:
      await asyncio.sleep(self._poll_seconds)
      await self.poll()

  async def _look(self, model: served_model.ServedModel) -> None:
    """Looks at the folder of one model and starts what that asks for."""
    base_path = model.config.base_path
    found = await asyncio.get_running_loop().run_in_executor(None, self._scan, base_path)
    # The configuration may have changed meanwhile.
    if found is None or model.is_removed or model.config.base_path != base_path:
      return
    model.want(versions.wanted(found, model.config.policy))
    if not model.is_settling:
      self._spawn(model.settle())

  def _scan(self, base_path: pathlib.Path) -> dict[int, pathlib.Path] | None:
    """Returns the versions; None if the folder cannot be read, and nothing should change."""
    key = str(base_path)
    try:
      found = versions.scan(base_path)
    except OSError as error:
      if self._unreadable.get(key) != str(error):  # Not at each poll.
        logging.warning('Could not find base path %s: %s', base_path, error)
      self._unreadable[key] = str(error)
      return None
    self._unreadable.pop(key, None)
    return found

  def _spawn(self, work: Coroutine) -> asyncio.Task:
    task = asyncio.get_running_loop().create_task(work)
    self._tasks.add(task)
    task.add_done_callback(self._done)
    return task

  def _done(self, task: asyncio.Task) -> None:
    self._tasks.discard(task)
    if not task.cancelled() and task.exception() is not None:
      logging.error('the model manager failed', exc_info=task.exception())


async def _unload(model: served_model.ServedModel) -> None:
  await model.settle()
  await model.wait_unloaded()


def _check_available(models: Sequence[served_model.ServedModel]) -> None:
  failed = [model for model in models if not model.is_available]
  if failed:
    details = ', '.join(
      f'{{name: {model.config.name} version: {status.version} error: {status.message}}}'
      for model in failed
      for status in model.statuses()[:1]
    )
    raise errors.ServingError(
      grpc.StatusCode.UNKNOWN, f'{len(failed)} servable(s) did not become available: {details}'
    )
