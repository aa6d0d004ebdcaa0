"""What the server is to reach on two cores, as ratios to floors measured in the same run."""

from collections.abc import Iterator, Sequence
from typing import Any

Record = dict[str, Any]

# Workload, clients, figure, bound and whether it is the least or the most.
_RATIOS = (
  ('act', 32, 'rate_to_echo', 0.45, 'at least'),
  ('act', 32, 'rate_to_unbatched', 3.0, 'at least'),
  ('update T=200', 1, 'p50_to_bare', 1.5, 'at most'),
)
# One of the two will do.
_LATENCY_CELL = ('act', 1)
_MAX_LATENCY_MS = 1.3
_MAX_LATENCY_TO_ECHO = 3.0


def judge(records: Sequence[Record]) -> list[Record]:
  """Compares records of a run with the targets; what was not measured is left out.

  Returns:
    For each target: `workload`, `clients`, `figure`, `value`, `target` (a text) and `met`.
  """
  ratios = {
    (record['workload'], record['clients']): record
    for record in records
    if record['part'] == 'ratios'
  }
  found = []
  for workload, clients, figure, bound, kind in _RATIOS:
    if (workload, clients) in ratios:
      value = ratios[workload, clients][figure]
      met = value >= bound if kind == 'at least' else value <= bound
      found.append(_record(workload, clients, figure, value, f'{kind} {bound:g}', met))
  if _LATENCY_CELL in ratios:
    found += _judge_latency(ratios[_LATENCY_CELL], records)
  return found


def _judge_latency(ratios: Record, records: Sequence[Record]) -> Iterator[Record]:
  latency = next(
    record['p50_ms']
    for record in records
    if record['part'] == 'calls'
    and record['contender'] == 'served'
    and (record['workload'], record['clients']) == _LATENCY_CELL
  )
  to_echo = ratios['p50_to_echo']
  met = latency <= _MAX_LATENCY_MS or to_echo <= _MAX_LATENCY_TO_ECHO
  yield _record(*_LATENCY_CELL, 'p50_ms', latency, f'at most {_MAX_LATENCY_MS:g}, or the next', met)
  yield _record(*_LATENCY_CELL, 'p50_to_echo', to_echo, f'at most {_MAX_LATENCY_TO_ECHO:g}', met)


def _record(
  workload: str, clients: int, figure: str, value: float, target: str, met: bool
) -> Record:
  return {
    'part': 'target',
    'workload': workload,
    'clients': clients,
    'figure': figure,
    'value': value,
    'target': target,
    'met': met,
  }
