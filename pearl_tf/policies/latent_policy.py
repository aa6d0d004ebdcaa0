"""The policy that acts on a sampled hypothesis of the task.

This module owns how a latent is redrawn and turned into an action. It never updates the belief:
that happens between episodes, in `pearl_tf.collect`. Drivers and rollouts call it.
"""

import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.trajectories import policy_step
from tf_agents.trajectories import time_step as ts

from pearl_tf.data import specs, types
from pearl_tf.inference import posterior
from pearl_tf.networks import actor, encoder


class LatentPolicy(tf_policy.TFPolicy):
  """Posterior sampling as a `TFPolicy`: one latent per episode, drawn from the carried belief.

  The belief travels in the policy state, so a driver that wishes to adapt replaces
  `policy_state.posterior` between episodes; the latent follows at the next first step. Nothing
  resets the belief: `automatic_state_reset` of the base class is off, because it would forget the
  task at every first step.
  """

  def __init__(
    self,
    domain: specs.DomainSpec,
    *,
    context_encoder: encoder.ContextEncoder,
    actor_network: actor.LatentActor,
    deterministic: bool = False,
    name: str = 'LatentPolicy',
  ):
    """Builds the policy.

    Args:
      domain: sizes of the domain.
      context_encoder: gives the prior belief of a fresh trial.
      actor_network: the network that acts.
      deterministic: act by the squashed mean (meta-test) instead of sampling (collection). The
        latent is sampled either way.
      name: name of the policy.
    """
    self._encoder = context_encoder
    self._actor = actor_network
    self._deterministic = deterministic
    super().__init__(
      time_step_spec=domain.time_step,
      action_spec=domain.action,
      policy_state_spec=specs.policy_state_spec(context_encoder.latent_size),
      clip=False,
      automatic_state_reset=False,
      name=name,
    )

  def _variables(self):
    return self._encoder.variables + self._actor.variables

  def _get_initial_state(self, batch_size):
    batch_shape = [] if batch_size is None else [batch_size]
    prior = self._encoder.prior(batch_shape)
    return types.PolicyState(latent=tf.zeros_like(prior.mean), posterior=prior)

  def _redraw(self, time_step: ts.TimeStep, policy_state: types.PolicyState, seed):
    drawn = posterior.sample(policy_state.posterior, seed=seed)
    is_first = time_step.is_first()[..., tf.newaxis]
    return policy_state._replace(latent=tf.where(is_first, drawn, policy_state.latent))

  def _action(self, time_step, policy_state, seed=None):
    """Returns a `PolicyStep` with actions `[B, A]` and the state with redrawn latents.

    Args:
      time_step: batched time step; only observation and step type matter.
      policy_state: `types.PolicyState` with leading dimension `[B]`.
      seed: `[2] int32` stateless seed for latent and action noise, or None.
    """
    latent_seed, action_seed = (None, None)
    if seed is not None:
      latent_seed, action_seed = tf.unstack(tf.random.split(seed, 2))
    policy_state = self._redraw(time_step, policy_state, latent_seed)
    parameters, _ = self._actor((time_step.observation, policy_state.latent))
    if self._deterministic:
      action = actor.mean_action(parameters)
    else:
      action = actor.distribution(parameters).sample(seed=action_seed)
    return policy_step.PolicyStep(action, policy_state, ())

  def _distribution(self, time_step, policy_state):
    policy_state = self._redraw(time_step, policy_state, seed=None)
    parameters, _ = self._actor((time_step.observation, policy_state.latent))
    return policy_step.PolicyStep(actor.distribution(parameters), policy_state, ())
