"""A trial: one agent's stay with one task, from the prior to whatever it came to believe.

This module owns the progress through the phases, the context gathered so far and when the belief
must be inferred anew. It acts on nothing: the roll-out feeds it finished episodes.
"""

from collections.abc import Sequence

import numpy as np

from pearl_tf.collect import actor, schedule
from pearl_tf.data import sampling_scheme, types


class Trial:
  """Progress of one task through its phases.

  Attributes:
    task: the task.
    phase: the current `schedule.Phase`, None when the trial is over.
    episodes_in_phase: finished episodes of the current phase.
    adapted: whether the belief in force came from the context (False: the prior).
    needs_inference: whether the belief must be inferred before the next episode; not again from the
      same episodes, unless a new sub-sample of them is drawn.
  """

  def __init__(self, task: types.Task, phases: Sequence[schedule.Phase]):
    """Starts before the first episode.

    Args:
      task: the task.
      phases: run in order; those of zero steps are skipped.
    """
    self.task = task
    self._phases = [phase for phase in phases if phase.num_steps > 0]
    self._context: list[types.Episode] = []
    self._start_phase()

  def _start_phase(self) -> None:
    self.phase = self._phases.pop(0) if self._phases else None
    self.episodes_in_phase = 0
    self._steps_in_phase = 0
    self._num_inferred = 0  # Episodes of the context that the belief in force came from.
    self._update_belief_rule()

  def _update_belief_rule(self) -> None:
    phase = self.phase
    self.adapted = (
      phase is not None
      and phase.num_prior_episodes is not None
      and self.episodes_in_phase >= phase.num_prior_episodes
      and bool(self._context)
    )
    self.needs_inference = self.adapted and (
      phase.context_size is not None or len(self._context) > self._num_inferred
    )
    if self.needs_inference:
      self._num_inferred = len(self._context)

  def finish_episode(self, episode: types.Episode) -> bool:
    """Takes a finished episode into account.

    Args:
      episode: the `S` transitions just collected.

    Returns:
      Whether a new phase began, so that the belief returns to the prior.
    """
    if self.phase.in_context:
      self._context.append(episode)
    self.episodes_in_phase += 1
    self._steps_in_phase += len(episode.reward)
    if self._steps_in_phase >= self.phase.num_steps:
      self._start_phase()
      return True
    self._update_belief_rule()
    return False

  def context(self, random: np.random.Generator) -> list[types.Episode]:
    """Returns what to adapt to, by the rule of the current phase.

    Args:
      random: draws the sub-sample where the phase asks for one.

    Returns:
      All episodes of the context in order, or one of `context_size` transitions, drawn with
      replacement by the phase's `context_sampling`.
    """
    size = self.phase.context_size
    if size is None:
      return list(self._context)
    if self.phase.context_sampling == sampling_scheme.TRAJECTORIES:
      # As many as are needed if all have one transition; the rest is cut off.
      chosen = random.integers(len(self._context), size=size)
      lengths = np.cumsum([len(self._context[i].reward) for i in chosen])
      needed = int(np.searchsorted(lengths, size)) + 1
      drawn = actor.joined([self._context[i] for i in chosen[:needed]])
      return [types.Episode(*(column[:size] for column in drawn))]
    everything = actor.joined(self._context)
    rows = random.integers(len(everything.reward), size=size)
    return [types.Episode(*(column[rows] for column in everything))]
