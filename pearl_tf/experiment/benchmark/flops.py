"""How many floating-point operations a training step needs, counted from its networks and batch.

Counted are the products of the fully connected layers, an addition and a multiplication each one
operation, and only those whose result changes a variable: no gradient for the weights of critics
the actor looks through, nor for inputs that nothing learns from. Everything else a step does
(activations, biases, Adam, sampling) is no matrix product and takes time without being counted.
"""

import itertools
from typing import NamedTuple

from tf_agents.networks import network

from pearl_tf.agents.pearl import agent as pearl_agent
from pearl_tf.agents.pearl import targets
from pearl_tf.networks import critic


class Flops(NamedTuple):
  """Operations by the product they belong to, for an input `[n, i]` and a kernel `[i, o]`.

  Attributes:
    forward: of inputs and kernels, `[n, i] x [i, o]`.
    input_gradient: of output gradients and kernels, `[n, o] x [o, i]`.
    kernel_gradient: of inputs and output gradients, `[i, n] x [n, o]`.
  """

  forward: int
  input_gradient: int
  kernel_gradient: int

  @property
  def total(self) -> int:
    """All of them."""
    return sum(self)


def layer_widths(fully_connected: network.Network) -> list[int]:
  """Returns the widths of a network from its input to its output.

  Args:
    fully_connected: a network that is one chain of fully connected layers.

  Raises:
    ValueError: if it is not.
  """
  kernels = [v.shape.as_list() for v in fully_connected.variables if v.shape.rank == 2]
  chained = all(a[1] == b[0] for a, b in itertools.pairwise(kernels))
  if not kernels or not chained:
    raise ValueError(
      f'{fully_connected.name} is not a chain of fully connected layers, so its operations cannot '
      f'be counted; its kernels are {kernels}'
    )
  return [kernels[0][0]] + [kernel[1] for kernel in kernels]


def chain(
  widths: list[int], rows: int, *, learned_inputs: int | None, learns_kernels: bool
) -> Flops:
  """Counts one pass through a network, and back where anything learns from it.

  Args:
    widths: from `layer_widths`.
    rows: how many inputs pass through it.
    learned_inputs: how many of an input's entries need a gradient; None for a pass without a way
      back.
    learns_kernels: whether the network itself learns from this pass.
  """
  products = [i * o for i, o in itertools.pairwise(widths)]
  forward = 2 * rows * sum(products)
  if learned_inputs is None:
    return Flops(forward, 0, 0)
  input_gradient = 2 * rows * (sum(products[1:]) + learned_inputs * widths[1])
  return Flops(forward, input_gradient, forward if learns_kernels else 0)


def training_step(
  agent: pearl_agent.PearlAgent, *, meta_batch_size: int, context_size: int, batch_size: int
) -> Flops:
  """Counts one step of `PearlAgent.train`.

  Args:
    agent: the agent, whose networks are built.
    meta_batch_size: `T`.
    context_size: `N`.
    batch_size: `B`.

  Raises:
    ValueError: if a network is not a chain of fully connected layers.
    TypeError: if the agent's target is one this module does not know.
  """
  rows = meta_batch_size * batch_size
  latent_size = agent.encoder.latent_size
  action_size = agent.action_spec.shape[0]
  encoder, actor = layer_widths(agent.encoder), layer_widths(agent.actor)
  passes = [
    chain(encoder, meta_batch_size * context_size, learned_inputs=0, learns_kernels=True),
    chain(actor, rows, learned_inputs=0, learns_kernels=True),
  ]
  for q in map(layer_widths, agent.critics):
    # Once at the stored actions, where the latent learns; once at the actor's, where these learn.
    passes.append(chain(q, rows, learned_inputs=latent_size, learns_kernels=True))
    passes.append(chain(q, rows, learned_inputs=action_size, learns_kernels=False))
  return add(passes + _target(agent, rows))


def add(counts: list[Flops]) -> Flops:
  """Returns the sum by kind of product."""
  return Flops(*(sum(parts) for parts in zip(*counts, strict=True)))


def _target(agent: pearl_agent.PearlAgent, rows: int) -> list[Flops]:
  if isinstance(agent.target, targets.ValueTarget):
    value = next(part for part in agent.target.submodules if isinstance(part, critic.LatentValue))
    widths = layer_widths(value)
    return [
      chain(widths, rows, learned_inputs=0, learns_kernels=True),
      chain(widths, rows, learned_inputs=None, learns_kernels=False),
    ]
  if isinstance(agent.target, targets.CriticTarget):
    return [
      chain(layer_widths(part), rows, learned_inputs=None, learns_kernels=False)
      for part in (agent.actor, *agent.critics)
    ]
  raise TypeError(
    f'the operations of {type(agent.target).__name__} cannot be counted: only ValueTarget and '
    'CriticTarget are known'
  )
