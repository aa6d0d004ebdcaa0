"""Makes the page of results and its figures from the curves kept in docs/results/data.

  python -m trainers.results             # writes docs/results/README.md and the figures
  python -m trainers.results --check     # fails where the page is another than the data give
  python -m trainers.results --add=runs/vel-0 --name=cheetah_vel    # keeps a run's curve first

A curve is data/<configuration>/seed<k>.jsonl; about.json beside it says what was run. What was only
tried, to compare settings, is of the page's study. No number of the page is typed by hand.
"""

import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from absl import app, flags

from pearl_tf.programs import program

_METRIC = 'test/final_return'
# What a curve keeps of a run's metrics.
_KEPT = (
  'iteration',
  'env_steps',
  'gradient_steps',
  _METRIC,
  'train/final_return',
  'test/success_rate',
  'test/standardized_error',
  'posterior/variance',
  'loss/kl',
  'q/mean',
  'policy/entropy_weight',
  'compute/bits',
)
_KEPT_OF_SUMMARY = ('gap_closed', 'oracle_return', 'returns_by_trajectory')
WINDOW = 5
_DIGITS = 4
_CONFIGS = pathlib.Path(__file__).parent / 'configs'


class Result(NamedTuple):
  """The curves of one configuration.

  Attributes:
    name: of the configuration.
    about: `order`, `title`, `command`, `note` and, where a curve is published, `reference`; in
      `beside` another configuration that its figure shows, too; in `domain` the name of the domain
      where that of the configuration does not begin with it. Of a trial of the study only `order`,
      `title`, `command` and `study`, what was changed.
    seeds: lines of each curve by seed.
    after_two: of a method that explores longer, by seed: what its last agent scores after two
      exploration episodes, from two_episodes_seed<k>.json, which `trainers.evaluate` wrote.
    gaps: of a demonstration, by seed: the part of the gap between prior and oracle that its last
      agent closes, from summary_seed<k>.json.
  """

  name: str
  about: dict[str, Any]
  seeds: dict[int, list[dict[str, Any]]]
  after_two: dict[int, float]
  gaps: dict[int, float]


def define_flags() -> None:
  """Defines the options; not on import, so that tests may import several programs at once."""
  flags.DEFINE_string('root', 'docs/results', 'Folder of the page; the data are in data/ below it.')
  flags.DEFINE_bool(
    'check', False, 'Write nothing; fail if the page is another than the data give.'
  )
  flags.DEFINE_string('add', None, 'Run folder whose thinned metrics are kept as a curve.')
  flags.DEFINE_string('name', None, 'With --add: configuration, the folder in data/.')


def add(root: pathlib.Path, run: str, name: str) -> pathlib.Path:
  """Keeps the thinned metrics of a run; returns the file.

  Args:
    root: folder of the page.
    run: run folder.
    name: configuration.
  """
  from pearl_tf.data import files
  from pearl_tf.experiment import metrics, run_folder

  seed = run_folder.RunFolder(run).seed
  path = root / 'data' / name / f'seed{seed}.jsonl'
  summary = pathlib.Path(run) / 'summary.json'
  if summary.is_file():
    kept = {key: json.loads(summary.read_text())[key] for key in _KEPT_OF_SUMMARY}
    files.write_text(path.with_name(f'summary_seed{seed}.json'), json.dumps(kept, indent=1) + '\n')
  lines = [thinned(record) for record in metrics.read(run) if record.get(_METRIC) is not None]
  files.write_text(path, ''.join(json.dumps(line) + '\n' for line in lines))
  return path


def thinned(record: dict[str, Any]) -> dict[str, Any]:
  """Returns what a curve keeps of a line of metrics, numbers rounded."""
  line = {name: record[name] for name in _KEPT if record.get(name) is not None}
  line['hours'] = record['time/total_hours']
  return {
    name: round(value, _DIGITS) if isinstance(value, float) else value
    for name, value in line.items()
  }


def load(root: pathlib.Path) -> list[Result]:
  """Returns all results, in the order of the page."""
  results = []
  for about in (root / 'data').glob('*/about.json'):
    seeds = {}
    for path in sorted(about.parent.glob('seed*.jsonl')):
      lines = path.read_text().splitlines()
      seeds[int(path.stem.removeprefix('seed'))] = [json.loads(line) for line in lines]
    after_two = _by_seed(about.parent, 'two_episodes_seed', 'final_return')
    gaps = _by_seed(about.parent, 'summary_seed', 'gap_closed')
    if seeds:
      told = json.loads(about.read_text())
      results.append(Result(about.parent.name, told, seeds, after_two, gaps))
  return sorted(results, key=lambda result: result.about['order'])


def _by_seed(folder: pathlib.Path, prefix: str, key: str) -> dict[int, float]:
  """Returns a number of each file `<prefix><seed>.json` of a folder."""
  return {
    int(path.stem.removeprefix(prefix)): json.loads(path.read_text())[key]
    for path in sorted(folder.glob(f'{prefix}*.json'))
  }


def trailing_means(returns: Sequence[float]) -> list[float]:
  """Returns the means of each evaluation and the four before it, from the fifth evaluation on."""
  return [sum(returns[end - WINDOW : end]) / WINDOW for end in range(WINDOW, len(returns) + 1)]


def page(root: pathlib.Path, results: Sequence[Result]) -> str:
  """Returns the text of README.md."""
  return ''.join(_page(root, results))


def _page(root: pathlib.Path, results: Sequence[Result]) -> Iterator[str]:
  yield f"""# Results

Made by `python -m trainers.results` from the curves in [data](data); nothing here is typed by hand.
Return is the final return of [the algorithm page](../algorithm.md): the last trajectory of a
meta-test, averaged over repeats and test tasks. One evaluation is noisy, so what counts is the mean
of {WINDOW} evaluations in a row, for our curves and for the peer's alike. No curve was chosen among
seeds. The peer is `x35f/meta_rl` (PEARL on SAC with automatic entropy, one seed, an RTX 3080), see
[reference curves](../../pearl_tf/evaluation/reference_curves/README.md).

| configuration | seed | env steps | hours | best mean of {WINDOW} | last mean of {WINDOW} | \
peer's best within as many env steps |
|---|---|---|---|---|---|---|
"""
  results, study = _split(results)
  for result in results:
    for seed, lines in result.seeds.items():
      yield _row(result, seed, lines)
  yield """
Hours are wall clock of all processes of a run, on two cores of an AMD EPYC without a GPU that were
shared with other work: upper bounds, and no benchmark.
"""
  yield from _needs(results)
  yield from _meanings(root, results)
  yield from _study(study)
  for result in results:
    about = result.about
    yield f"""
## {about['title']}

```bash
{about['command']}
```

![Test return against env steps and hours]({result.name}.png)

{about['note']}
"""
    if result.after_two:
      scores = ', '.join(f'{score:.1f} (seed {seed})' for seed, score in result.after_two.items())
      yield f"""
After two exploration episodes, as many as PEARL has, the last agents score {scores}.
"""
    if result.gaps:
      yield f"""
Of the gap between the prior and an oracle that knows the task, the last trajectory of a meta-test
closes {_gaps(result)}. The standardised error of its belief, mean of the last {WINDOW} evaluations,
is {_errors(result)}; 1 is calibrated, more is too sure.
"""


def _split(results: Sequence[Result]) -> tuple[list[Result], list[Result]]:
  """Returns the results, and the trials of the study."""
  study = [result for result in results if 'study' in result.about]
  return [result for result in results if 'study' not in result.about], study


def _study(trials: Sequence[Result]) -> Iterator[str]:
  """Yields the table of what was tried to find settings."""
  if not trials:
    return
  yield f"""
## Study

What was tried to find the settings of the plus files and of the demo, each run stopped where it
could be told apart; curves in [data](data). Differences below the spread of seeds say nothing.

| domain | changed | seed | env steps | best mean of {WINDOW} | last mean of {WINDOW} | \
gap closed | standardised error |
|---|---|---|---|---|---|---|---|
"""
  for trial in trials:
    for seed, lines in trial.seeds.items():
      best, newest = _levels(lines)
      gap = '- | -'
      if seed in trial.gaps:
        gap = f'{trial.gaps[seed]:.0%} | {_standardized_error(lines)}'
      yield (
        f'| {trial.about["title"]} | {trial.about["study"]} | {seed} | '
        f'{lines[-1]["env_steps"] / 1000:.0f}k | {best} | {newest} | {gap} |\n'
      )


def _levels(lines: Sequence[dict[str, Any]]) -> tuple[str, str]:
  """Returns the best and the last mean of a curve; '-' where it is too short for one."""
  means = trailing_means([line[_METRIC] for line in lines])
  return (f'{max(means):.1f}', f'{means[-1]:.1f}') if means else ('-', '-')


def _gaps(result: Result) -> str:
  return ', '.join(f'{gap:.0%} (seed {seed})' for seed, gap in result.gaps.items())


def _errors(result: Result) -> str:
  return ', '.join(_standardized_error(result.seeds[seed]) for seed in result.gaps)


def _standardized_error(lines: Sequence[dict[str, Any]]) -> str:
  errors = [line['test/standardized_error'] for line in lines[-WINDOW:]]
  return f'{sum(errors) / len(errors):.1f}'


def _needs(results: Sequence[Result]) -> Iterator[str]:
  """Yields what each shipped configuration takes to its end."""
  from pearl_tf.experiment import builder as builder_lib
  from pearl_tf.experiment import experiment
  from pearl_tf.replay import cache, packing

  yield """
## What a run takes

To the last iteration of each shipped configuration. Replay is the size of its transitions in memory
at the end, and of each of the checkpoints kept (two by default); the process itself takes about
1 GB more. Hours are at the pace of the curve above, where there is one. A run says the same in its
first line.

| configuration | env steps | gradient steps | replay | hours |
|---|---|---|---|---|
"""
  pace = {
    result.name: max(
      lines[-1]['hours'] / lines[-1]['gradient_steps'] for lines in result.seeds.values()
    )
    for result in results
  }
  for path in sorted(_CONFIGS.glob('[!m]*.gin')):  # Meta-World is an extra of its own.
    built = builder_lib.Builder(experiment.load([path]))
    method, run = built.method, built.run
    env_steps = method.expected_env_steps(run)
    steps = run.training.num_iterations * method.training.gradient_steps_per_iteration
    rows = min(env_steps, method.training.replay_capacity or cache.MAX_CAPACITY)
    size = 4 * rows * packing.PackedLayout(*run.domain).width
    hours = f'{steps * pace[path.stem]:.0f}' if path.stem in pace else '-'
    yield f'| `{path.name}` | {env_steps:,} | {steps:,} | {size / 1e6:,.0f} MB | {hours} |\n'


def _meanings(root: pathlib.Path, results: Sequence[Result]) -> Iterator[str]:
  """Yields what a return has to be compared with, from what `trainers.returns` measured."""
  path = root / 'data' / 'returns.json'
  if not path.is_file():
    return
  yield f"""
## What a return means

Of an episode that stands still, and of one that acts at random, on the test tasks (mean and
standard error; `python -m trainers.returns` measures both and draws the frames). Beside them the
highest last mean of {WINDOW} above.

| domain | standing still | at random | trained |
|---|---|---|---|
"""
  measured = json.loads(path.read_text())
  for domain, returns in measured.items():
    numbers = [f'{returns[kind]["mean"]} ± {returns[kind]["error"]}' for kind in returns]
    yield f'| {domain} | {" | ".join(numbers)} | {_best_level(domain, results)} |\n'
  for domain in measured:
    if (root / f'frames_{domain}.jpg').is_file():
      yield f'\n### {domain}\n\n![Frames of an episode](frames_{domain}.jpg)\n'


def _best_level(domain: str, results: Sequence[Result]) -> str:
  """Returns the best last mean of the curves of a domain."""
  levels = []
  for result in results:
    if result.about.get('domain', result.name).startswith(domain):
      for lines in result.seeds.values():
        means = trailing_means([line[_METRIC] for line in lines])
        levels += [(means[-1], result.about['title'], lines[-1]['env_steps'])] if means else []
  if not levels:
    return 'no curve yet'
  level, title, env_steps = max(levels)
  return f'{level:.1f} ({title}, {env_steps / 1000:,.0f}k env steps)'


def _row(result: Result, seed: int, lines: Sequence[dict[str, Any]]) -> str:
  best, newest = _levels(lines)
  last = lines[-1]
  peer = _peer(result.about.get('reference'), last['env_steps'])
  return (
    f'| {result.about["title"]} | {seed} | {last["env_steps"] / 1000:.0f}k | {last["hours"]:.2f} | '
    f'**{best}** | {newest} | {peer} |\n'
  )


def _peer(domain: str | None, env_steps: int) -> str:
  from pearl_tf.evaluation.reference_curves import reference

  if domain is None:
    return '-'
  curve = reference.load(domain)[0]
  means = trailing_means(curve.test_return[curve.env_steps <= env_steps].tolist())
  return f'{max(means):.1f}' if means else '-'


def draw(root: pathlib.Path, results: Sequence[Result]) -> None:
  """Draws a figure for each configuration, all seeds of it in one, and what it names `beside`."""
  from pearl_tf.evaluation import plots

  results, _ = _split(results)
  for result in results:
    curves = [
      plots.curve_from_metrics(
        shown.about['title'], [line | {'time/total_hours': line['hours']} for line in lines]
      )
      for shown in results
      if shown.name in (result.name, result.about.get('beside'))
      for lines in shown.seeds.values()
    ]
    plots.learning_curve(
      curves, root / f'{result.name}.png', reference=result.about.get('reference')
    )


def main(argv: Sequence[str]) -> None:
  """Adds, writes or checks."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; every option starts with --')
  from pearl_tf.data import files

  options = flags.FLAGS
  root = pathlib.Path(options.root)
  if options.add is not None:
    if options.name is None:
      raise app.UsageError('--add needs --name, the configuration')
    print(f'kept as {add(root, options.add, options.name)}')
  results = load(root)
  text, path = page(root, results), root / 'README.md'
  if options.check:
    if path.read_text() != text:
      sys.exit(f'error: {path} is another than the data give: run python -m trainers.results')
    print(f'{path} follows from the data')
    return
  files.write_text(path, text)
  draw(root, results)
  print(f'wrote {path} and its figures')


def run() -> None:
  """Entry point of the console script."""
  define_flags()
  program.run(main)


if __name__ == '__main__':
  run()
