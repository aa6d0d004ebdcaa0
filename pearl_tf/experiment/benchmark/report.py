"""The records of a benchmark as a table for people and as JSON lines for programs."""

import json
from collections.abc import Sequence
from typing import Any

from rich import box, table

Record = dict[str, Any]
Row = tuple[str, str, str]


def json_lines(records: Sequence[Record]) -> str:
  """Returns one JSON object per line, in the order of the records."""
  return ''.join(json.dumps(record, allow_nan=False) + '\n' for record in records)


def format_table(records: Sequence[Record]) -> table.Table:
  """Returns the figures of a benchmark that people ask for; the JSON lines have all of them.

  Args:
    records: from `suite.Benchmark.run`.
  """
  parts = {record['part']: record for record in records}
  experiment = parts['experiment']
  shown = table.Table(
    title=f'{experiment["environment"]}: {_shapes(experiment)}',
    caption=_machine(parts['machine']),
    caption_justify='left',
    box=box.SIMPLE,
  )
  shown.add_column('what')
  shown.add_column('figure', justify='right', no_wrap=True)
  shown.add_column('how')
  for section in (_learning, _environments, _storage, _projection):
    for row in section(parts):
      shown.add_row(*row)
    shown.add_section()
  return shown


def _shapes(experiment: Record) -> str:
  return (
    f'{experiment["meta_batch_size"]} tasks x {experiment["batch_size"]} transitions + '
    f'{experiment["meta_batch_size"]} x {experiment["context_size"]} context'
  )


def _machine(machine: Record) -> str:
  return (
    f'{machine["cpu"]}, {machine["cores"]} cores ({", ".join(machine["instruction_sets"])}), '
    f'{machine["memory_gib"]:.0f} GiB, GPUs: {len(machine["gpus"])}, load at the start '
    f'{machine["load_average"]:.1f}; TensorFlow {machine["tensorflow"]}, '
    f'threads {machine["intra_op_threads"]} intra, '
    f'{machine["inter_op_threads"]} inter'
  )


def _learning(parts: dict[str, Record]) -> list[Row]:
  step, floor = parts['gradient_step'], parts['floor']
  rates = floor['gflop_per_second']
  shape = ' x '.join(map(str, floor['matmul_shape']))
  products = ', '.join(f'{name.replace("_", " ")} {rate:.0f}' for name, rate in rates.items())
  return [
    (
      'gradient step',
      f'{step["ms"]:.2f} ms',
      f'median of {step["repeats"]} x {step["steps_per_repeat"]} steps, min {step["ms_min"]:.2f}',
    ),
    (
      'the same on a fixed batch',
      f'{step["fixed_batch_ms"]:.2f} ms',
      f'in turns with it; min {step["fixed_batch_ms_min"]:.2f}',
    ),
    ('cost of replay sampling', _percent(step['sampling_percent']), 'median of paired ratios'),
    (
      'operations of a step',
      f'{floor["gflop"]:.2f} GFLOP',
      'counted from networks and batch, without waste',
    ),
    (
      'matmul rate',
      f'{floor["gflop_per_second_best"]:.0f} GFLOP/s',
      f'best at {shape}; medians: {products}',
    ),
    (
      'floor',
      f'{floor["floor_ms"]:.2f} ms',
      f'at the median rates; {floor["floor_ms_at_best"]:.2f} at the best',
    ),
    ('share of the floor reached', f'{100 * floor["share_of_floor"]:.0f} %', 'floor / step'),
  ]


def _environments(parts: dict[str, Record]) -> list[Row]:
  collection, evaluation = parts['collection'], parts['evaluation']
  number = collection['num_environments']
  origin = collection['gymnasium_environment']
  gymnasium_row = origin and (
    f"gymnasium's {origin}",
    _rate(collection['gymnasium_steps_per_second'], 'steps'),
    'one, random actions',
  )
  beside_origin = f'; {_percent(collection["bare_percent"])} longer than that' if origin else ''
  return [
    *([gymnasium_row] if gymnasium_row else []),
    (
      'environment alone',
      _rate(collection['bare_steps_per_second'], 'steps'),
      f'one, on a task, random actions{beside_origin}',
    ),
    (
      'with our adapter',
      _rate(collection['adapter_steps_per_second'], 'steps'),
      f'{_percent(collection["adapter_percent"])} longer than alone',
    ),
    (
      'rollout',
      _rate(collection['rollout_steps_per_second'], 'steps'),
      f'{number} environments, acting and inference; '
      f'{_percent(collection["rollout_percent"])} longer than alone',
    ),
    (
      'collection',
      _rate(collection['collection_steps_per_second'], 'steps'),
      f'{number} environments, into replay and cache; '
      f'{_percent(collection["collection_percent"])} longer than alone',
    ),
    (
      'collection as configured',
      _rate(collection['iteration_steps_per_second'], 'steps'),
      f'{collection["iteration_tasks"]} tasks per iteration',
    ),
    (
      'evaluation',
      _rate(evaluation['evaluation_steps_per_second'], 'steps'),
      f'{evaluation["tasks"]} test tasks on {evaluation["num_environments"]} environments; '
      f'{_percent(evaluation["evaluation_percent"])} longer than alone',
    ),
  ]


def _storage(parts: dict[str, Record]) -> list[Row]:
  replay, checkpoint = parts['replay'], parts['checkpoint']
  held = f'{replay["transitions"]:,} synthetic transitions'
  return [
    (
      'insertion',
      _rate(replay['insertion_transitions_per_second'], 'transitions'),
      f'episodes of {replay["episode_steps"]}, confirmed by the server',
    ),
    (
      'drain into the cache',
      _rate(replay['drain_transitions_per_second'], 'transitions'),
      f'{replay["transitions_in_cache"]:,} transitions in the cache',
    ),
    (
      'checkpoint',
      f'{checkpoint["save_seconds"]:.2f} s',
      f'{checkpoint["megabytes"]:.0f} MB at {held}',
    ),
    (
      'checkpoint of the best weights',
      f'{checkpoint["save_weights_seconds"]:.2f} s',
      f'median of {checkpoint["repeats"]}',
    ),
    ('restore', f'{parts["restore"]["restore_seconds"]:.2f} s', 'server, tables and variables'),
    ('peak memory', f'{parts["memory"]["peak_gib"]:.2f} GiB', f'of the process, at {held}'),
  ]


def _projection(parts: dict[str, Record]) -> list[Row]:
  projection = parts['projection']
  shares = ', '.join(f'{name} {share:.1f} %' for name, share in projection['percent'].items())
  return [
    (
      'collect, evaluate, checkpoint',
      f'{projection["beside_training_percent"]:.1f} %',
      f'of the wall clock (derived): {shares}',
    ),
    (
      'whole run',
      f'{projection["total_hours"]:.2f} h',
      f'(derived) {projection["iterations"]} iterations, {projection["env_steps"]:,} env steps, '
      f'evaluation every {projection["evaluation_interval"]}, checkpoint every '
      f'{projection["checkpoint_interval"]}',
    ),
  ]


def _rate(value: float, unit: str) -> str:
  return f'{value:,.0f} {unit}/s'


def _percent(value: float) -> str:
  return f'{value:.1f} %'
