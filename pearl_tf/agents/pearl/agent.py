"""PEARL as a TF-Agents agent: variables, optimizers and one training step.

This module owns which loss changes which variables, and in which order (the reference's order,
`docs/algorithm.md`). It takes a `types.MetaBatch` and knows nothing of replay or environments.
"""

import functools
import math
import pathlib
from collections.abc import Callable, Sequence

import gin
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.networks import network

from pearl_tf.agents import optimizers, replicas
from pearl_tf.agents.pearl import entropy, losses, targets
from pearl_tf.data import specs, types
from pearl_tf.inference import posterior as posterior_lib
from pearl_tf.networks import actor, critic, encoder, layers
from pearl_tf.policies import latent_policy


def _per_transition(latent: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
  """Repeats one latent per task `[T, Z]` over the `B` transitions of `like` `[T, B, ...]`."""
  num_transitions = tf.shape(like)[1]
  repeated = tf.broadcast_to(
    latent[:, tf.newaxis], [tf.shape(latent)[0], num_transitions, tf.shape(latent)[1]]
  )
  repeated.set_shape([like.shape[0], like.shape[1], latent.shape[1]])
  return repeated


@gin.configurable(denylist=['domain', 'train_step_counter', 'seed', 'name'])
class PearlAgent(tf_agent.TFAgent):
  """Soft actor-critic with a probabilistic context encoder (paper, algorithm 1).

  Gradients go where the reference sends them: the encoder learns from the critics' loss and from
  the KL to the prior, never from the actor or the value function, which see a stopped latent; the
  actor learns through the critics' input and never changes their weights.

  All randomness of a training step is a function of `seed` and the step counter, so a restored
  agent continues exactly as the one that was interrupted.
  """

  def __init__(
    self,
    domain: specs.DomainSpec,
    *,
    train_step_counter: tf.Variable,
    seed: int,
    encoder_class: Callable[..., encoder.ContextEncoder] = encoder.GaussianEncoder,
    actor_class: Callable[..., network.Network] = actor.LatentActor,
    critic_class: Callable[..., network.Network] = critic.LatentCritic,
    target_class: Callable[..., targets.Target] = targets.ValueTarget,
    entropy_weight_class: Callable[..., tf.Module] = entropy.FixedEntropyWeight,
    kl_weight: float = 0.1,
    reward_scale: float = 5.0,
    gamma: float = 0.99,
    target_update_rate: float = 0.005,
    encoder_learning_rate: float = 3e-4,
    critic_learning_rate: float = 3e-4,
    actor_learning_rate: float = 3e-4,
    actor_mean_weight: float = 1e-3,
    actor_log_std_weight: float = 1e-3,
    compute_type: str = 'float32',
    name: str = 'PearlAgent',
  ):
    """Builds networks, optimizers and both policies.

    Args:
      domain: sizes of the domain.
      train_step_counter: `int64` variable, incremented once per training step.
      seed: seeds the initial weights and the noise of every training step.
      encoder_class: `GaussianEncoder` (paper), `LinearGaussianEncoder` (transitions triangulate),
        `DeterministicEncoder` (no bottleneck) or `RecurrentEncoder` (in time order).
      actor_class: pi(a | s, z), built and called as `LatentActor`.
      critic_class: Q(s, a, z), built twice and called as `LatentCritic`.
      target_class: `ValueTarget` (reference) or `CriticTarget` (later SAC).
      entropy_weight_class: `FixedEntropyWeight` (reference) or `AutomaticEntropyWeight`.
      kl_weight: weight of the KL *summed over tasks*; unused without a bottleneck.
      reward_scale: multiplies rewards in the critics' targets.
      gamma: discount factor.
      target_update_rate: Polyak rate of target networks per training step.
      encoder_learning_rate: of Adam on the encoder.
      critic_learning_rate: of Adam on each critic.
      actor_learning_rate: of Adam on the actor.
      actor_mean_weight: regularisation of the pre-squashing mean.
      actor_log_std_weight: regularisation of the log standard deviation.
      compute_type: what hidden layers multiply in during training steps: 'float32', 'bfloat16', or
        'auto' for bfloat16 where the processor multiplies it. Acting, inference and exports compute
        in float32, variables and losses are float32 in any case.
      name: name of the agent.

    Raises:
      ValueError: if a number is out of its range.
    """
    _check_ranges(
      kl_weight=(kl_weight, 0.0, None),
      reward_scale=(reward_scale, 0.0, None),
      gamma=(gamma, 0.0, 1.0),
      target_update_rate=(target_update_rate, 0.0, 1.0),
      actor_mean_weight=(actor_mean_weight, 0.0, None),
      actor_log_std_weight=(actor_log_std_weight, 0.0, None),
    )
    if target_update_rate == 0:
      raise ValueError(
        'PearlAgent.target_update_rate must be positive, got 0.0: targets stand still'
      )
    self._kl_weight = kl_weight
    self._reward_scale = reward_scale
    self._gamma = gamma
    self._actor_mean_weight = actor_mean_weight
    self._actor_log_std_weight = actor_log_std_weight
    self._seed = tf.constant([seed, 0], tf.int32)
    self._compute_dtype = _compute_dtype(compute_type)

    weight_seed = 1000 * seed
    self._encoder = encoder_class(specs.context_spec(domain), seed=weight_seed + 100)
    latent_spec = tf.TensorSpec([self._encoder.latent_size], tf.float32, 'latent')
    critic_spec = (domain.observation, domain.action, latent_spec)
    self._critics = (
      critic_class(critic_spec, seed=weight_seed + 200, name='Critic1'),
      critic_class(critic_spec, seed=weight_seed + 300, name='Critic2'),
    )
    self._actor = actor_class(
      (domain.observation, latent_spec), action_size=domain.action_size, seed=weight_seed + 400
    )
    for part in (self._encoder, *self._critics, self._actor):
      part.create_variables()
    self._backup = target_class(  # The name that older checkpoints know.
      domain,
      latent_size=self._encoder.latent_size,
      actor_network=self._actor,
      critics=self._critics,
      target_update_rate=target_update_rate,
      seed=weight_seed + 500,
    )
    self._entropy_weight = entropy_weight_class(domain.action_size)
    self._inference_optimizer = optimizers.adam(
      encoder_learning_rate,
      self._encoder.trainable_variables,
      name='PearlAgent.encoder_learning_rate',
    )
    self._critic_optimizer = optimizers.adam(
      critic_learning_rate, self._critic_variables, name='PearlAgent.critic_learning_rate'
    )
    self._actor_optimizer = optimizers.adam(
      actor_learning_rate,
      self._actor.trainable_variables,
      name='PearlAgent.actor_learning_rate',
    )

    def make_policy(deterministic: bool) -> latent_policy.LatentPolicy:
      return latent_policy.LatentPolicy(
        domain,
        context_encoder=self._encoder,
        actor_network=self._actor,
        deterministic=deterministic,
      )

    super().__init__(
      domain.time_step,
      domain.action,
      policy=make_policy(deterministic=True),
      collect_policy=make_policy(deterministic=False),
      train_sequence_length=None,
      training_data_spec=specs.meta_batch_spec(domain),
      train_step_counter=train_step_counter,
    )

  @property
  def encoder(self) -> encoder.ContextEncoder:
    """The context encoder, q(z | c)."""
    return self._encoder

  @property
  def actor(self) -> network.Network:
    """The policy network, pi(a | s, z)."""
    return self._actor

  @property
  def critics(self) -> tuple[network.Network, network.Network]:
    """Both state-action value networks."""
    return self._critics

  @property
  def target(self) -> targets.Target:
    """The owner of the target networks."""
    return self._backup

  @property
  def entropy_weight(self) -> tf.Module:
    """The owner of the entropy weight."""
    return self._entropy_weight

  @property
  def _critic_variables(self) -> Sequence[tf.Variable]:
    return self._critics[0].trainable_variables + self._critics[1].trainable_variables

  def infer_posterior(self, context: types.ContextBatch) -> types.Posterior:
    """Returns q(z | c) `[T, Z]` for a context `[T, N]`; the prior where the mask is all zero."""
    return self._encoder.infer_posterior(context)

  def _train(self, experience: types.MetaBatch, weights=None) -> tf_agent.LossInfo:
    """Takes one step on every variable group, computing as `compute_type` says.

    In a replica of a `tf.distribute` strategy, `experience` is its share of the tasks and the step
    that of the whole batch, see `pearl_tf.agents.replicas`.

    Args:
      experience: `types.MetaBatch` with context `[T, N]` and transitions `[T, B]`.
      weights: unused; transitions are drawn uniformly.

    Returns:
      `LossInfo` whose loss is the sum of critic, KL and actor loss and whose extra is a dictionary
      of scalars for the log.
    """
    del weights
    with layers.hidden_dtype(self._compute_dtype):
      return self._take_step(experience)

  def _take_step(self, experience: types.MetaBatch) -> tf_agent.LossInfo:
    step = tf.cast(self.train_step_counter, tf.int32)
    seed = tf.random.experimental.stateless_fold_in(self._seed, step, alg='philox')
    latent_seed, target_seed, action_seed = tf.unstack(tf.random.split(seed, 3, alg='philox'))
    transitions = experience.transitions
    entropy_weight = self._entropy_weight.value()

    latent, critic_scalars = self._train_inference_and_critics(
      experience.context, transitions, entropy_weight, latent_seed, target_seed
    )
    # Neither actor nor value function may shape the latent space (reference behaviour).
    latent = tf.stop_gradient(latent)
    log_prob, soft_value, actor_scalars = self._train_actor(
      transitions.observation, latent, entropy_weight, action_seed
    )
    target_scalars = self._backup.update(transitions.observation, latent, soft_value)
    self._entropy_weight.update(log_prob)
    self.train_step_counter.assign_add(1)
    scalars = replicas.mean(critic_scalars | actor_scalars | target_scalars)
    scalars['compute/bits'] = tf.constant(8.0 * self._compute_dtype.size)
    loss = scalars['loss/critic'] + scalars['loss/kl'] + scalars['loss/actor']
    return tf_agent.LossInfo(loss=loss, extra=scalars)

  def _train_inference_and_critics(
    self,
    context: types.ContextBatch,
    transitions: types.Transition,
    entropy_weight: tf.Tensor,
    latent_seed: tf.Tensor,
    target_seed: tf.Tensor,
  ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Steps encoder and critics; returns the latents `[T, B, Z]` and scalars."""
    with tf.GradientTape() as tape:
      belief = self.infer_posterior(context)
      latent = _per_transition(
        replicas.draw(functools.partial(posterior_lib.sample, seed=latent_seed), belief),
        transitions.observation,
      )
      next_value = self._backup.next_value(
        transitions.next_observation,
        tf.stop_gradient(latent),  # Targets are constants for the encoder.
        entropy_weight=entropy_weight,
        seed=target_seed,
      )
      target = losses.td_target(
        transitions.reward,
        transitions.discount,
        next_value,
        reward_scale=self._reward_scale,
        gamma=self._gamma,
      )
      q1, q2 = self._q_values(transitions.observation, transitions.action, latent)
      critic_loss = losses.critic_loss(q1, q2, target)
      has_bottleneck = self._encoder.has_bottleneck
      kl_loss = losses.kl_loss(belief, self._kl_weight) if has_bottleneck else tf.constant(0.0)
      loss = replicas.share_of_mean(critic_loss) + kl_loss  # The KL is a sum over tasks.
    encoder_variables = self._encoder.trainable_variables
    gradients = tape.gradient(loss, [encoder_variables, self._critic_variables])
    self._inference_optimizer.apply_gradients(zip(gradients[0], encoder_variables, strict=True))
    self._critic_optimizer.apply_gradients(zip(gradients[1], self._critic_variables, strict=True))
    return latent, {
      'loss/critic': critic_loss,
      'loss/kl': replicas.total(kl_loss),
      'posterior/mean_abs': tf.reduce_mean(tf.abs(belief.mean)),
      'posterior/variance': tf.reduce_mean(belief.variance),
      'q/mean': tf.reduce_mean(q1),
      'q/std': replicas.std(q1),
      'q/target_mean': tf.reduce_mean(target),
    }

  def _train_actor(
    self,
    observation: tf.Tensor,
    latent: tf.Tensor,
    entropy_weight: tf.Tensor,
    seed: tf.Tensor,
  ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
    """Steps the actor; returns log densities `[T, B]`, soft values `[T, B]` and scalars."""
    with tf.GradientTape() as tape:
      parameters, _ = self._actor((observation, latent))
      action, log_prob = replicas.draw(
        functools.partial(actor.sample_and_log_prob, seed=seed), parameters
      )
      min_q = tf.minimum(*self._q_values(observation, action, latent))
      actor_loss = losses.actor_loss(min_q, log_prob, entropy_weight)
      loss = actor_loss + losses.actor_regularization(
        parameters,
        mean_weight=self._actor_mean_weight,
        log_std_weight=self._actor_log_std_weight,
      )
      loss = replicas.share_of_mean(loss)
    optimizers.apply(self._actor_optimizer, tape, loss, self._actor.trainable_variables)
    return (
      log_prob,
      losses.soft_value(min_q, log_prob, entropy_weight),
      {
        'loss/actor': actor_loss,
        'policy/entropy': -tf.reduce_mean(log_prob),
        'policy/mean_abs': tf.reduce_mean(tf.abs(parameters.mean)),
        'policy/log_std': tf.reduce_mean(parameters.log_std),
        'policy/entropy_weight': entropy_weight,
      },
    )

  def _q_values(
    self, observation: tf.Tensor, action: tf.Tensor, latent: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    q1, q2 = (q((observation, action, latent))[0] for q in self._critics)
    return q1, q2


def _compute_dtype(compute_type: str) -> tf.DType:
  """Returns the type that `PearlAgent.compute_type` asks for on this machine."""
  if compute_type == 'auto':
    # A GPU of any age multiplies float32; what a CPU can do stands in its flags.
    flags = pathlib.Path('/proc/cpuinfo')
    has_bfloat16 = flags.exists() and not {'avx512_bf16', 'amx_bf16'}.isdisjoint(
      flags.read_text().split()
    )
    return (
      tf.bfloat16 if has_bfloat16 and not tf.config.list_physical_devices('GPU') else tf.float32
    )
  if compute_type not in ('float32', 'bfloat16'):
    raise ValueError(
      f"PearlAgent.compute_type must be 'float32', 'bfloat16' or 'auto', got {compute_type!r}"
    )
  return tf.as_dtype(compute_type)


def _check_ranges(**ranges: tuple[float, float, float | None]) -> None:
  """Raises ValueError for the first value that is outside of its closed interval or not finite."""
  for name, (value, low, high) in ranges.items():
    if not math.isfinite(value) or value < low or (high is not None and value > high):
      interval = f'at least {low}' if high is None else f'in [{low}, {high}]'
      raise ValueError(f'PearlAgent.{name} must be {interval}, got {value}')
