"""Whether a SavedModel is fit to be served, judged from its `saved_model.pb` alone.

Cheap, as it builds no graph and starts no session: servers call it before they load a model. That
a model passes does not prove that its signatures run; `golden_run` does.
"""

import pathlib

from serving.verification import graph_index, op_rules, signature_rules


def problems(version_dir: str | pathlib.Path) -> list[str]:
  """Finds what keeps a stock server from loading, calling or batching a model.

  Args:
    version_dir: folder with `saved_model.pb`.

  Returns:
    One line for each problem, with the remedy; an empty list means that none was found.
  """
  try:
    index = graph_index.GraphIndex(graph_index.read(version_dir))
  except graph_index.UnreadableModelError as error:
    return [str(error)]
  return signature_rules.problems(index) + op_rules.problems(index)
