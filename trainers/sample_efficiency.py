"""Compares the env steps that PEARL and the baselines need, from the curves in docs/results/data.

  python -m trainers.sample_efficiency      # writes docs/results/sample_efficiency.json, figures,
                                            # and the table of README.md

The rule is that of `pearl_tf.evaluation.sample_efficiency`. A domain is compared as soon as curves
of one of its baselines, such as data/cheetah_dir_promp, and of PEARL are there.
"""

import json
import pathlib
import sys
from typing import Any

from absl import app, flags

from pearl_tf.programs import program

_METHODS = {'promp': 'ProMP', 'maml': 'MAML', 'rl2': 'RL2'}
_PEARL = ('plus', 'sac')  # Variants; the one of the domain's own name is the authors'.
_CLAIM, _SEEDS = 20, 3
_BEGIN, _END = '<!-- sample efficiency: begin -->\n', '<!-- sample efficiency: end -->\n'


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string('root', 'docs/results', 'Folder of the page; the data are in data/ below it.')
  flags.DEFINE_string('readme', 'README.md', 'Page that holds the table.')


def compare(root: pathlib.Path, *, draw: bool = False) -> dict[str, Any]:
  """Compares the methods on every domain that has curves of PEARL and of a baseline.

  Args:
    root: folder with the data.
    draw: whether a figure of each domain is written into it.

  Raises:
    FileNotFoundError: if no domain has curves of both.
  """
  from pearl_tf.evaluation import sample_efficiency

  curves = {
    folder.name: [
      sample_efficiency.curve([json.loads(line) for line in path.read_text().splitlines()])
      for path in sorted(folder.glob('seed*.jsonl'))
    ]
    for folder in sorted((root / 'data').iterdir())
    if folder.is_dir() and any(folder.glob('seed*.jsonl'))
  }
  report = {}
  for domain in sorted(
    {name.rpartition('_')[0] for name in curves if name.endswith(tuple(_METHODS))}
  ):
    baselines = {m: curves[f'{domain}_{m}'] for m in _METHODS if f'{domain}_{m}' in curves}
    ours = {'PEARL': curves.get(domain)}
    ours |= {f'PEARL, {v}': curves.get(f'{domain}_{v}') for v in _PEARL}
    ours = {label: found for label, found in ours.items() if found}
    if not ours:
      continue
    report[domain] = {
      label: {m: sample_efficiency.compare(theirs, found) for m, theirs in baselines.items()}
      for label, found in ours.items()
    }
    if draw:
      figure = root / f'{domain}_sample_efficiency.png'
      named = {_METHODS[method]: found for method, found in baselines.items()}
      title = domain.replace('_', '-')
      sample_efficiency.figure(ours | named, figure, title=title)
  if not report:
    raise FileNotFoundError(
      f'{root / "data"} has curves of PEARL and of a baseline for no domain; keep one with '
      'trainers.results --add=RUN --name=cheetah_dir_promp'
    )
  return report


def table(report: dict[str, Any]) -> str:
  """Returns the comparison as a table of Markdown."""
  lines = [
    '| domain | PEARL | baseline | level | baseline env steps (hours) | PEARL env steps (hours) | '
    'ratio | still rising | seeds |',
    '| --- | --- | --- | --- | --- | --- | --- | --- | --- |',
  ]
  for domain, by_variant in report.items():
    for variant, by_method in by_variant.items():
      for method, row in by_method.items():
        cells = (
          domain,
          variant,
          _METHODS[method],
          f'{row["level"]:.0f}',
          _steps(row['baseline_env_steps'], row['baseline_hours'], row['seeds'][0]),
          _steps(row['pearl_env_steps'], row['pearl_hours'], row['seeds'][1]),
          _ratio(row),
          'yes' if row['still_rising'] else 'no',
          f'{row["seeds"][0]} and {row["seeds"][1]}',
        )
        lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines) + '\n'


def claim(report: dict[str, Any]) -> str:
  """Returns where the data show the paper's claim, 20 times fewer env steps at the least."""
  shown, not_shown = [], []
  for domain, by_variant in report.items():
    for method in dict.fromkeys(name for rows in by_variant.values() for name in rows):
      rows = [by_method[method] for by_method in by_variant.values()]
      is_shown = any(
        row['bound'] in ('between', '>')
        and row['ratio_low'] >= _CLAIM
        and row['seeds'][1] >= _SEEDS
        for row in rows
      )
      (shown if is_shown else not_shown).append(f'{_METHODS[method]} on {domain}')
  text = (
    f'At least {_CLAIM} times fewer env steps, by the lowest ratio and {_SEEDS} seeds of PEARL: '
    f'against {", ".join(shown) or "none"}.'
  )
  return f'{text} Not shown so far: {", ".join(not_shown)}.' if not_shown else text


def with_table(page: str, report: dict[str, Any]) -> str:
  """Returns a page with the table of a comparison in the place that is marked for it.

  Raises:
    ValueError: if no place is marked.
  """
  before, begin, rest = page.partition(_BEGIN)
  _, end, after = rest.partition(_END)
  if not end:
    raise ValueError(f'the page marks no place for the table with {_BEGIN!r} and {_END!r}')
  return f'{before}{begin}{table(report)}\n{claim(report)}\n{end}{after}'


def _steps(found: list[float] | None, hours: float | None, num_seeds: int) -> str:
  if found is None:
    return 'not reached' if num_seeds == 1 else 'not by all seeds'
  return f'{found[1]:,.0f} ({hours:.2f})'


def _ratio(row: dict[str, Any]) -> str:
  words = []
  if row['bound'] == 'between':
    high = '' if row['ratio_high'] is None else f' to {row["ratio_high"]:.1f}'
    words.append(f'{row["ratio"]:.1f} ({row["ratio_low"]:.1f}{high})')
  elif row['bound'] == '>':
    words.append(f'at least {row["ratio_low"]:.1f}')
  elif row['bound'] == '<':
    words.append(f'below {row["ratio"]:.1f}')
  if row['ratio_at_least'] is not None:
    words.append(f'at least {row["ratio_at_least"]:.1f} to reach {row["pearl_level"]:.0f}')
  return '; '.join(words) or 'unknown'


def main(argv: list[str]) -> None:
  """Writes the files and prints the table."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  from pearl_tf.data import files

  root = pathlib.Path(flags.FLAGS.root)
  readme = pathlib.Path(flags.FLAGS.readme)
  try:
    report = compare(root, draw=True)
    files.write_text(root / 'sample_efficiency.json', json.dumps(report, indent=1) + '\n')
    files.write_text(readme, with_table(readme.read_text(), report))
  except (FileNotFoundError, ValueError) as error:
    sys.exit(f'error: {error}')
  print(table(report))
  print(f'wrote {root / "sample_efficiency.json"}, {readme} and a figure of {", ".join(report)}')


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
