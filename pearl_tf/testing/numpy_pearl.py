"""One training step of PEARL in NumPy, float64, with derivatives written by hand.

This module owns an independent answer to what a training step computes: it shares no formula with
the program, which leaves its derivatives to TensorFlow. The tests of the agent compare the two.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pearl_tf.data import types

MIN_VARIANCE = 1e-7
MIN_LOG_STD, MAX_LOG_STD = -20.0, 2.0
Weights = list[np.ndarray]


class Noise(NamedTuple):
  """Standard normal numbers of one step: `[T, Z]`, `[T, B, A]`, and for target critics again."""

  latent: np.ndarray
  action: np.ndarray
  next_action: np.ndarray


class Settings(NamedTuple):
  """The numbers of a training step; names as in `PearlAgent`."""

  kl_weight: float
  reward_scale: float
  gamma: float
  target_update_rate: float
  encoder_learning_rate: float
  critic_learning_rate: float
  actor_learning_rate: float
  value_learning_rate: float
  entropy_learning_rate: float
  actor_mean_weight: float
  actor_log_std_weight: float
  target_entropy: float
  use_next_observation: bool
  has_bottleneck: bool


def softplus(x: np.ndarray) -> np.ndarray:
  """Returns ln(1 + exp(x))."""
  return np.logaddexp(0.0, x)


def forward(weights: Weights, inputs: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
  """Returns outputs and the inputs of every layer of a ReLU network (kernel, bias, kernel, ...)."""
  tape = [inputs]
  for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
    tape.append(np.maximum(tape[-1] @ kernel + bias, 0.0))
  return tape[-1] @ weights[-2] + weights[-1], tape


def backward(
  weights: Weights, tape: list[np.ndarray], gradient: np.ndarray
) -> tuple[Weights, np.ndarray]:
  """Returns the gradients of the weights and of the inputs, given that of the outputs."""
  gradients = []
  for layer in reversed(range(len(tape))):
    features = tape[layer].reshape(-1, tape[layer].shape[-1])
    rows = gradient.reshape(-1, gradient.shape[-1])
    gradients = [features.T @ rows, rows.sum(axis=0), *gradients]
    gradient = gradient @ weights[2 * layer].T
    if layer > 0:
      gradient = gradient * (tape[layer] > 0)
  return gradients, gradient


class Adam:
  """Adam in the form of Kingma and Ba's section 2, whose epsilon is not corrected for bias."""

  def __init__(self, learning_rate: float):
    self.learning_rate = learning_rate
    self.num_steps = 0
    self.first: Weights = []
    self.second: Weights = []

  def step(self, weights: Weights, gradients: Weights) -> Weights:
    """Returns the weights after one step."""
    self.first = self.first or [np.zeros_like(g) for g in gradients]
    self.second = self.second or [np.zeros_like(g) for g in gradients]
    self.num_steps += 1
    self.first = [0.9 * m + 0.1 * g for m, g in zip(self.first, gradients, strict=True)]
    self.second = [0.999 * v + 0.001 * g**2 for v, g in zip(self.second, gradients, strict=True)]
    rate = self.learning_rate * np.sqrt(1 - 0.999**self.num_steps) / (1 - 0.9**self.num_steps)
    return [
      w - rate * m / (np.sqrt(v) + 1e-8)
      for w, m, v in zip(weights, self.first, self.second, strict=True)
    ]


class SampledAction(NamedTuple):
  """An action drawn from the actor and what its derivative needs."""

  action: np.ndarray
  log_prob: np.ndarray
  mean: np.ndarray
  log_std: np.ndarray
  is_inside: np.ndarray
  tape: list[np.ndarray]


class NumpyPearl:
  """Networks, optimizers and the training step.

  `weights` maps 'encoder', 'critic1', 'critic2', 'actor' and either 'value' and 'target_value' or
  'target_critic1' and 'target_critic2' to their arrays; `log_entropy_weight` is None where the
  weight is fixed at 1.
  """

  def __init__(
    self,
    settings: Settings,
    weights: dict[str, Sequence[np.ndarray]],
    log_entropy_weight: float | None = None,
  ):
    self.settings = settings
    self.weights = {
      name: [np.asarray(array, np.float64) for array in arrays] for name, arrays in weights.items()
    }
    self.log_entropy_weight = log_entropy_weight
    rates = {
      'encoder': settings.encoder_learning_rate,
      'critic1': settings.critic_learning_rate,
      'critic2': settings.critic_learning_rate,
      'actor': settings.actor_learning_rate,
      'value': settings.value_learning_rate,
      'entropy': settings.entropy_learning_rate,
    }
    self.optimizers = {name: Adam(rate) for name, rate in rates.items()}

  def step(self, batch: types.MetaBatch, noise: Noise) -> dict[str, float]:
    """Takes one step in the order of the reference; returns the losses.

    Args:
      batch: masked context entries may be NaN.
      noise: the random numbers of this step.
    """
    batch = types.MetaBatch(
      batch.task,
      types.ContextBatch(*(np.asarray(column, np.float64) for column in batch.context)),
      types.Transition(*(np.asarray(column, np.float64) for column in batch.transitions)),
    )
    transitions = batch.transitions
    entropy_weight = 1.0 if self.log_entropy_weight is None else np.exp(self.log_entropy_weight)
    latents, losses = self._step_encoder_and_critics(batch, noise, entropy_weight)
    # The critics have moved; the value network and the actor have not.
    sampled = self._sample(transitions.observation, latents, noise.action)
    min_q, action_gradient = self._min_q(transitions.observation, sampled.action, latents)
    losses['actor'] = np.mean(entropy_weight * sampled.log_prob - min_q)
    self._step_actor(sampled, noise.action, action_gradient, entropy_weight)
    soft_value = min_q - entropy_weight * sampled.log_prob
    if 'value' in self.weights:
      losses['value'] = self._step_value(transitions.observation, latents, soft_value)
    self._move_targets()
    self._step_entropy_weight(sampled.log_prob)
    return losses

  def _step_encoder_and_critics(self, batch, noise, entropy_weight):
    settings, transitions = self.settings, batch.transitions
    latent, encoder_backward, kl = self._infer(batch.context, noise.latent)
    num_tasks, batch_size = transitions.reward.shape
    latents = np.repeat(latent[:, None], batch_size, axis=1)
    next_value = self._next_value(transitions.next_observation, latents, noise, entropy_weight)
    target = settings.reward_scale * transitions.reward
    target = target + settings.gamma * transitions.discount * next_value
    inputs = np.concatenate([transitions.observation, transitions.action, latents], axis=-1)
    latent_gradient, critic_loss = 0.0, 0.0
    for name in ('critic1', 'critic2'):
      value, tape = forward(self.weights[name], inputs)
      error = value[..., 0] - target
      critic_loss += np.mean(error**2)
      output_gradient = 2 * error[..., None] / (num_tasks * batch_size)
      gradients, input_gradient = backward(self.weights[name], tape, output_gradient)
      latent_gradient = latent_gradient + input_gradient[..., -latent.shape[-1] :].sum(axis=1)
      self.weights[name] = self.optimizers[name].step(self.weights[name], gradients)
    gradients = encoder_backward(latent_gradient)
    self.weights['encoder'] = self.optimizers['encoder'].step(self.weights['encoder'], gradients)
    return latents, {'critic': critic_loss, 'kl': kl}

  def _infer(self, context, noise):
    """Returns the sampled latent `[T, Z]`, what turns its gradient into the encoder's, the KL."""
    columns = [context.observation, context.action, context.reward[..., None]]
    if self.settings.use_next_observation:
      columns.append(context.next_observation)
    is_evidence = context.mask[..., None] > 0
    inputs = np.where(is_evidence, np.concatenate(columns, axis=-1), 0.0)
    outputs, tape = forward(self.weights['encoder'], inputs)
    if not self.settings.has_bottleneck:
      count = context.mask.sum(axis=1)[:, None]
      latent = np.where(is_evidence, outputs, 0.0).sum(axis=1) / count

      def mean_backward(gradient):
        spread = np.where(is_evidence, (gradient / count)[:, None], 0.0)
        return backward(self.weights['encoder'], tape, spread)[0]

      return latent, mean_backward, 0.0

    means, raw = np.split(outputs, 2, axis=-1)
    variances = np.maximum(softplus(raw), MIN_VARIANCE)
    variance = 1 / np.where(is_evidence, 1 / variances, 0.0).sum(axis=1)
    weighted = np.where(is_evidence, means / variances, 0.0).sum(axis=1)
    mean = variance * weighted
    latent = mean + np.sqrt(variance) * noise
    beta = self.settings.kl_weight
    kl = beta * 0.5 * np.sum(variance + mean**2 - 1 - np.log(variance))

    def gaussian_backward(gradient):
      to_mean = gradient + beta * mean
      to_variance = gradient * noise / (2 * np.sqrt(variance)) + beta * 0.5 * (1 - 1 / variance)
      to_variance = to_variance + to_mean * weighted
      to_weighted = (to_mean * variance)[:, None]
      to_precision = (-to_variance * variance**2)[:, None]
      to_means = np.where(is_evidence, to_weighted / variances, 0.0)
      to_variances = -(to_precision + to_weighted * means) / variances**2
      sigmoid = 1 / (1 + np.exp(-raw))
      to_raw = np.where(is_evidence & (softplus(raw) > MIN_VARIANCE), to_variances * sigmoid, 0.0)
      to_outputs = np.concatenate([to_means, to_raw], axis=-1)
      return backward(self.weights['encoder'], tape, to_outputs)[0]

    return latent, gaussian_backward, kl

  def _next_value(self, next_observation, latents, noise, entropy_weight):
    if 'value' in self.weights:
      inputs = np.concatenate([next_observation, latents], axis=-1)
      return forward(self.weights['target_value'], inputs)[0][..., 0]
    sampled = self._sample(next_observation, latents, noise.next_action)
    inputs = np.concatenate([next_observation, sampled.action, latents], axis=-1)
    names = ('target_critic1', 'target_critic2')
    values = [forward(self.weights[name], inputs)[0][..., 0] for name in names]
    return np.minimum(*values) - entropy_weight * sampled.log_prob

  def _sample(self, observation, latents, noise):
    inputs = np.concatenate([observation, latents], axis=-1)
    outputs, tape = forward(self.weights['actor'], inputs)
    mean, raw = np.split(outputs, 2, axis=-1)
    log_std = np.clip(raw, MIN_LOG_STD, MAX_LOG_STD)
    action = np.tanh(mean + np.exp(log_std) * noise)
    density = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - action**2)
    is_inside = (raw > MIN_LOG_STD) & (raw < MAX_LOG_STD)
    return SampledAction(action, density.sum(axis=-1), mean, log_std, is_inside, tape)

  def _min_q(self, observation, action, latents):
    """Returns the smaller critic `[T, B]` and its derivative by the action `[T, B, A]`."""
    inputs = np.concatenate([observation, action, latents], axis=-1)
    values, slopes = [], []
    start = observation.shape[-1]
    for name in ('critic1', 'critic2'):
      value, tape = forward(self.weights[name], inputs)
      _, slope = backward(self.weights[name], tape, np.ones_like(value))
      values.append(value)
      slopes.append(slope[..., start : start + action.shape[-1]])
    slope = np.where(values[0] < values[1], *slopes)
    return np.minimum(*values)[..., 0], slope

  def _step_actor(self, sampled, noise, action_gradient, entropy_weight):
    num_tasks, batch_size, action_size = sampled.action.shape
    rows = num_tasks * batch_size
    by_action = -action_gradient / rows
    by_draw = by_action * (1 - sampled.action**2) + 2 * entropy_weight * sampled.action / rows
    to_mean = by_draw + 2 * self.settings.actor_mean_weight * sampled.mean / (rows * action_size)
    to_log_std = by_draw * np.exp(sampled.log_std) * noise - entropy_weight / rows
    to_log_std = to_log_std + 2 * self.settings.actor_log_std_weight * sampled.log_std / (
      rows * action_size
    )
    to_outputs = np.concatenate([to_mean, to_log_std * sampled.is_inside], axis=-1)
    gradients, _ = backward(self.weights['actor'], sampled.tape, to_outputs)
    self.weights['actor'] = self.optimizers['actor'].step(self.weights['actor'], gradients)

  def _step_value(self, observation, latents, soft_value):
    inputs = np.concatenate([observation, latents], axis=-1)
    value, tape = forward(self.weights['value'], inputs)
    error = value[..., 0] - soft_value
    gradients, _ = backward(self.weights['value'], tape, 2 * error[..., None] / error.size)
    self.weights['value'] = self.optimizers['value'].step(self.weights['value'], gradients)
    return np.mean(error**2)

  def _move_targets(self):
    rate = self.settings.target_update_rate
    for name in [name for name in self.weights if name.startswith('target_')]:
      source = self.weights[name.removeprefix('target_')]
      self.weights[name] = [
        (1 - rate) * slow + rate * fast
        for slow, fast in zip(self.weights[name], source, strict=True)
      ]

  def _step_entropy_weight(self, log_prob):
    if self.log_entropy_weight is not None:
      gradient = -(np.mean(log_prob) + self.settings.target_entropy)
      (self.log_entropy_weight,) = self.optimizers['entropy'].step(
        [self.log_entropy_weight], [gradient]
      )
