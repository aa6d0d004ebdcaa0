"""Keeps the best agent of a run, by its returns on training tasks."""

import dataclasses

import numpy as np

from pearl_tf.agents import builder
from pearl_tf.experiment import checkpoints, run_folder
from pearl_tf.experiment import progress as progress_lib

PREFIX = 'best'
EVALUATIONS_OF_BEST = 5


class Best:
  """The checkpoint of the best agent so far."""

  def __init__(self, folder: run_folder.RunFolder, agent: builder.Agent):
    """Names the place; nothing is written yet.

    Args:
      folder: the run folder.
      agent: what is kept, as it is at each call.
    """
    self._agent = agent
    self._checkpoints = checkpoints.Checkpoints(folder.checkpoints, prefix=PREFIX, keep=1)
    self._checkpoints.remove_staged()

  def drop_after(self, gradient_steps: int, progress: progress_lib.Progress) -> None:
    """Forgets what was best after a checkpoint, of a future that is gone.

    It may have taken the place of what was best before.
    """
    self._checkpoints.drop_after(gradient_steps)
    if self._checkpoints.latest() is None:
      progress.best_return = None

  def keep(self, train_return: float, progress: progress_lib.Progress) -> bool:
    """Keeps the agent if the mean of its last evaluations on training tasks is the best so far.

    Not the highest evaluation on test tasks: of many noisy ones the highest is mostly luck, and
    what was chosen by the test tasks no longer says how well new tasks are solved.

    Args:
      train_return: of this evaluation.
      progress: takes the returns, and is saved with the agent.

    Returns:
      Whether it was kept.
    """
    progress.recent_returns = [*progress.recent_returns, train_return][-EVALUATIONS_OF_BEST:]
    mean_return = float(np.mean(progress.recent_returns))
    if progress.best_return is not None and mean_return <= progress.best_return:
      return False
    progress.best_return = mean_return
    gradient_steps = int(self._agent.train_step_counter.numpy())
    self._checkpoints.save(gradient_steps, {'agent': self._agent}, dataclasses.asdict(progress))
    return True
