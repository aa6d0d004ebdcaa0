"""The records of a run as tables for people and as JSON lines for programs."""

import json
from collections.abc import Sequence
from typing import Any

from rich import box, console, table

Record = dict[str, Any]
_FIGURES = {
  'rate_to_echo': "rate / echo server's",
  'rate_to_unbatched': 'rate / without batching',
  'p50_to_bare': "p50 / bare session call's",
  'p50_to_echo': "p50 / echo server's",
  'p50_ms': 'p50, ms',
}


def json_lines(records: Sequence[Record]) -> str:
  """Returns one JSON object per line, in the order of the records."""
  return ''.join(json.dumps(record, allow_nan=False) + '\n' for record in records)


def tables(records: Sequence[Record]) -> console.Group:
  """Returns the figures that people ask for.

  Args:
    records: of `suite.Benchmark.run`.
  """
  parts = {record['part']: record for record in records}
  return console.Group(_calls(records, parts['machine']), _targets(records), _life(parts))


def _calls(records: Sequence[Record], machine: Record) -> table.Table:
  shown = table.Table(
    title='Calls per second, and p50 / p99 / processor time per call in ms',
    caption=(
      f'{machine["cpu"]}, {machine["cores"]} cores shared by server and clients, load at the start '
      f'{machine["load_average"]:.1f}; TensorFlow {machine["tensorflow"]}, grpcio '
      f'{machine["grpcio"]}. Clients call without a pause. The bare '
      'session call runs in one thread, without clients.'
    ),
    caption_justify='left',
    box=box.SIMPLE,
  )
  shown.add_column('call', no_wrap=True)
  for heading in ('clients', 'server', 'no batching', 'echo', 'bare call'):
    shown.add_column(heading, justify='right', no_wrap=True)
  for heading in ('rate/echo', 'rate/no batching', 'p50/echo', 'p50/bare'):
    shown.add_column(heading, justify='right')
  cells: dict[tuple[str, int], dict[str, Record]] = {}
  for record in records:
    if record['part'] in ('calls', 'ratios'):
      cell = cells.setdefault((record['workload'], record['clients']), {})
      cell[record.get('contender', 'ratios')] = record
  last = None
  for (workload, clients), cell in cells.items():
    if workload != last and last is not None:
      shown.add_section()
    ratios = cell['ratios']
    shown.add_row(
      workload if workload != last else '',
      str(clients),
      *(_rate(cell.get(name)) for name in ('served', 'unbatched', 'echo', 'bare')),
      *(
        _ratio(ratios.get(name))
        for name in ('rate_to_echo', 'rate_to_unbatched', 'p50_to_echo', 'p50_to_bare')
      ),
    )
    last = workload
  return shown


def _targets(records: Sequence[Record]) -> table.Table:
  shown = table.Table(title='Targets, for two cores without other load', box=box.SIMPLE)
  for heading in ('call', 'clients', 'figure'):
    shown.add_column(heading)
  for heading in ('measured', 'target'):
    shown.add_column(heading, justify='right')
  shown.add_column('met')
  for record in records:
    if record['part'] == 'target':
      shown.add_row(
        record['workload'],
        str(record['clients']),
        _FIGURES[record['figure']],
        f'{record["value"]:.2f}',
        record['target'],
        'yes' if record['met'] else 'no',
      )
  return shown


def _life(parts: dict[str, Record]) -> table.Table:
  start, reload, memory = parts['start_up'], parts['hot_reload'], parts['memory_mib']
  shown = table.Table(title='Life of the server', box=box.SIMPLE)
  shown.add_column('what')
  shown.add_column('figure', justify='right', no_wrap=True)
  shown.add_column('how')
  shown.add_row(
    'start-up',
    f'{start["seconds"]:.1f} s',
    f'process start to ready; without batching {start["unbatched_seconds"]:.1f}',
  )
  shown.add_row(
    'hot reload',
    f'{reload["seconds"]:.1f} s',
    f'published to answering, median of {reload["reloads"]}, max {reload["seconds_max"]:.1f}; it '
    'looks for versions once a second',
  )
  shown.add_row(
    'slowest call meanwhile',
    f'{reload["slowest_call_ms"]:.0f} ms',
    'of one client; no call failed',
  )
  shown.add_row(
    'resident memory',
    f'{memory["after_start"]:.0f} MiB',
    f'after start-up; after all calls {memory["after_load"]:.0f}, after the reloads '
    f'{memory["after_reloads"]:.0f}',
  )
  return shown


def _rate(record: Record | None) -> str:
  if record is None:
    return ''
  milliseconds = (
    f'{record["p50_ms"]:.2f} / {record["p99_ms"]:.1f} / {record["cpu_ms_per_call"]:.2f}'
  )
  return f'{record["calls_per_second"]:,.0f}: {milliseconds}'


def _ratio(value: float | None) -> str:
  return '' if value is None else f'{value:.2f}'
