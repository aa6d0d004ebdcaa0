"""The records of a benchmark as a table for people."""

from collections.abc import Sequence
from typing import Any

from rich import box, table

Record = dict[str, Any]


def format_table(records: Sequence[Record]) -> table.Table:
  """Returns the figures of a benchmark that people ask for; the JSON lines have all of them.

  Args:
    records: from `suite.run`.
  """
  parts = {record['part']: record for record in records}
  experiment, machine = parts['experiment'], parts['machine']
  shown = table.Table(
    title=f'{experiment["environment"]}: {experiment["meta_batch_size"]} tasks x '
    f'{experiment["batch_size"]} transitions + {experiment["meta_batch_size"]} x '
    f'{experiment["context_size"]} context',
    caption=f'{machine["cpu"]}, {machine["cores"]} cores '
    f'({", ".join(machine["instruction_sets"])}), {machine["memory_gib"]:.0f} GiB, '
    f'GPUs: {len(machine["gpus"])}, load at the start {machine["load_average"]:.1f}; '
    f'TensorFlow {machine["tensorflow"]}',
    caption_justify='left',
    box=box.SIMPLE,
  )
  shown.add_column('what')
  shown.add_column('figure', justify='right', no_wrap=True)
  shown.add_column('how')
  for row in (*_learning(parts), *_environments(parts['collection'])):
    shown.add_row(*row)
  held = f'of the process, at {parts["replay"]["transitions"]:,} transitions of noise'
  shown.add_row('peak memory', f'{parts["memory"]["peak_gib"]:.2f} GiB', held)
  return shown


def _learning(parts: dict[str, Record]) -> list[tuple[str, str, str]]:
  step, floor = parts['gradient_step'], parts['floor']
  shape = ' x '.join(map(str, floor['matmul_shape']))
  repeats = f'median of {step["repeats"]} x {step["steps_per_repeat"]} steps'
  return [
    ('gradient step', f'{step["ms"]:.2f} ms', f'{repeats}, min {step["ms_min"]:.2f}'),
    (
      'the same on a fixed batch',
      f'{step["fixed_batch_ms"]:.2f} ms',
      f'in turns with it; min {step["fixed_batch_ms_min"]:.2f}',
    ),
    ('cost of replay sampling', _percent(step['sampling_percent']), 'median of paired ratios'),
    (
      'floor',
      f'{floor["floor_ms"]:.2f} ms',
      f'{floor["gflop"]:.2f} GFLOP at {floor["gflop_per_second"]:.0f} GFLOP/s ({shape})',
    ),
    ('share of the floor reached', f'{100 * floor["share_of_floor"]:.0f} %', 'floor / step'),
  ]


def _environments(collection: Record) -> list[tuple[str, str, str]]:
  number, origin = collection['num_environments'], collection['gymnasium_environment']

  def row(name: str, what: str, how: str, *, beside: str = '') -> tuple[str, str, str]:
    longer = f'; {_percent(collection[f"{name}_percent"])} longer than {beside}' if beside else ''
    return what, f'{collection[f"{name}_steps_per_second"]:,.0f} steps/s', f'{how}{longer}'

  return [
    *([row('gymnasium', f"gymnasium's {origin}", 'one, random actions')] if origin else []),
    row(
      'bare',
      'environment alone',
      'one, on a task, random actions',
      beside='that' if origin else '',
    ),
    row('adapter', 'with our adapter', 'one, on a task, random actions', beside='alone'),
    row('rollout', 'rollout', f'{number} environments, acting and inference', beside='alone'),
    row('collection', 'collection', f'{number} environments, into the replay', beside='alone'),
    row(
      'iteration',
      'collection as configured',
      f'{collection["iteration_tasks"]} tasks per iteration',
    ),
  ]


def _percent(value: float) -> str:
  return f'{value:.1f} %'
