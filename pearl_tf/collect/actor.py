"""What a roll-out needs of a method: acting and adapting, with a state that it never looks into."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from pearl_tf.data import types


class Actor(Protocol):
  """Acts for any number of trials and adapts to what they have seen.

  What a trial carries (a belief, adapted parameters, a hidden state) is a nest of arrays
  `[B, ...]`, one row a trial. The roll-out keeps the rows and hands them out; a row depends on no
  other trial.
  """

  def initial_state(self, batch_size: int) -> Any:
    """Returns what trials carry before they have seen anything, a nest of `[B, ...]`."""

  def act(
    self,
    observation: np.ndarray,
    step_type: np.ndarray,
    reward: np.ndarray,
    state: Any,
    seed: np.ndarray,
  ) -> tuple[np.ndarray, Any]:
    """Chooses one action a trial.

    Args:
      observation: `[B, O] float32`.
      step_type: `[B] int32`, TF-Agents step types.
      reward: `[B] float32`, the context reward of the trial's last step, also if that was in the
        episode before; 0 before its first step.
      state: what the trials carry.
      seed: `[2] int32`.

    Returns:
      Actions `[B, A] float32` in [-1, 1], or beyond to be clipped, and what the trials carry now.
    """

  def adapt(
    self,
    state: Any,
    episodes_by_trial: Sequence[Sequence[types.Episode]],
    random: np.random.Generator,
  ) -> Any:
    """Adapts trials to their contexts, between episodes.

    Args:
      state: what the trials carry.
      episodes_by_trial: of each the episodes of its context, or a sub-sample of transitions.
      random: for whoever draws.

    Returns:
      What the trials carry now.
    """


class BelievingActor:
  """The part of an `Actor` that is the same for all whose state is a belief over a latent.

  Subclasses have `prior` (a `types.Posterior` `[Z]`), `infer` (contexts to beliefs) and `act`.
  """

  def initial_state(self, batch_size: int) -> types.PolicyState:
    prior = types.Posterior(*(np.tile(part, [batch_size, 1]) for part in self.prior()))
    return types.PolicyState(np.zeros_like(prior.mean), prior)

  def adapt(
    self,
    state: types.PolicyState,
    episodes_by_trial: Sequence[Sequence[types.Episode]],
    random: np.random.Generator,
  ) -> types.PolicyState:
    del random
    return state._replace(posterior=self.infer([joined(own) for own in episodes_by_trial]))


def joined(episodes: Sequence[types.Episode]) -> types.Episode:
  """Returns the transitions of some episodes in one."""
  return types.Episode(*(np.concatenate(columns) for columns in zip(*episodes, strict=True)))
