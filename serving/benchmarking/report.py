"""The records of a run as tables for people and as JSON lines for programs."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box, console, table

Record = dict[str, Any]
# By workload and number of clients: what each contender did, and the ratios.
Cells = Mapping[tuple[str, int], dict[str, Record]]
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
  cells: dict[tuple[str, int], dict[str, Record]] = {}
  for record in records:
    if record['part'] in ('calls', 'ratios'):
      cell = cells.setdefault((record['workload'], record['clients']), {})
      cell[record.get('contender', 'ratios')] = record
  return console.Group(
    _calls(cells, parts['machine']), _ratios(cells), _targets(records), _life(parts)
  )


def _calls(cells: Cells, machine: Record) -> table.Table:
  shown = table.Table(
    title='Calls per second: p50 / p99 / processor time per call in ms',
    caption=(
      f'{machine["cpu"]}, {machine["cores"]} cores shared by server and clients, load at the start '
      f'{machine["load_average"]:.1f}; TensorFlow {machine["tensorflow"]}, grpcio '
      f'{machine["grpcio"]}. Clients call without a pause. The bare session call runs in one '
      'thread, without clients.'
    ),
    caption_justify='left',
    box=box.SIMPLE,
  )
  headings = {
    'served': 'server',
    'unbatched': 'without batching',
    'echo': 'echo server',
    'bare': 'bare call',
  }
  _fill(shown, cells, headings, lambda cell, name: _rate(cell.get(name)))
  return shown


def _ratios(cells: Cells) -> table.Table:
  shown = table.Table(title='Ratios of the server to what took turns with it', box=box.SIMPLE)
  headings = {
    'rate_to_echo': 'rate / echo',
    'rate_to_unbatched': 'rate / without batching',
    'p50_to_echo': 'p50 / echo',
    'p50_to_bare': 'p50 / bare call',
  }
  _fill(shown, cells, headings, lambda cell, name: _ratio(cell['ratios'].get(name)))
  return shown


def _fill(
  shown: table.Table,
  cells: Cells,
  headings: Mapping[str, str],
  text: Callable[[dict[str, Record], str], str],
) -> None:
  """Adds a row for each cell and a column for each heading; a section for each call."""
  shown.add_column('call', no_wrap=True)
  for heading in ('clients', *headings.values()):
    shown.add_column(heading, justify='right', no_wrap=True)
  last = None
  for (workload, clients), cell in cells.items():
    if last not in (None, workload):
      shown.add_section()
    name = workload if workload != last else ''
    shown.add_row(name, str(clients), *(text(cell, column) for column in headings))
    last = workload


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
