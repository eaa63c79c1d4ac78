"""Runs the adapter on saved arrays with ArviZ 1.x and reports what came out; a script, for an interpreter without torch.

    arviz1_adapter.py GROUPS.npz IMPORTANCE.py OUT.npz ["arviz-base"]

GROUPS.npz holds `layout`, a JSON of group -> variable -> [dims, sampled, labels], and the arrays as "group|variable". The report
is JSON on the standard output; the container's values go to OUT.npz. With "arviz-base", which Python 3.11 has, a module
stands in for ArviZ 1.x, which is a face of arviz-base and arviz-stats.
"""

import importlib.util
import json
import sys
import types
import warnings
from pathlib import Path

import numpy as np


def cut(smoothed: np.ndarray) -> np.ndarray:
    """Normalised log weights whose k-hat is 0.7 or more, as vipack leaves them; see vipack/importance.py."""
    low = np.minimum(smoothed - np.logaddexp.reduce(smoothed), -0.5 * np.log(len(smoothed)))
    return low - np.logaddexp.reduce(low)


def main(groups_file: str, importance_file: str, out_file: str, stand_in: str = "") -> None:
    if stand_in:
        sys.modules["arviz"] = types.ModuleType("arviz")
        sys.modules["arviz"].__version__ = f"1 ({stand_in})"
    import arviz
    from arviz_base import from_dict
    from arviz_stats import loo, summary
    from arviz_stats.base import array_stats

    from vipack.export.arviz import inference_data
    from vipack.export.variables import Variable

    saved = np.load(groups_file)
    layout = json.loads(str(saved["layout"]))
    groups = {
        group: {
            name: Variable(saved[f"{group}|{name}"], tuple(dims), sampled, {d: np.array(v) for d, v in labels.items()})
            for name, (dims, sampled, labels) in names.items()
        }
        for group, names in layout.items()
    }
    tree = inference_data(groups, {"inference_library": "vipack"})
    own = from_dict(
        {group: {name: v.values for name, v in variables.items()} for group, variables in groups.items()},
        dims={name: list(v.dims) for variables in groups.values() for name, v in variables.items()},
        coords={dim: v.labels[dim] for variables in groups.values() for v in variables.values() for dim in v.labels},
    )
    log_weights = groups["sample_stats"]["log_weight"].values[0].astype(np.float64)
    smoothed, khat = array_stats.psislw(-log_weights)  # 1.x takes log likelihoods
    importance = load(importance_file).importance
    ours = importance(log_weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        report = {
            "arviz": arviz.__version__,
            "container": f"{type(tree).__module__.split('.')[0]}.{type(tree).__name__}",
            "attrs": dict(tree.attrs),
            "labels": {"school": tree["prior"]["school"].values.tolist()},
            "dims": {g: {n: list(v.dims) for n, v in tree[g].data_vars.items()} for g in tree.children},
            "as_from_dict": {g: tree[g].to_dataset().drop_attrs().equals(own[g].to_dataset()) for g in tree.children},
            "elpd_loo": float(loo(tree).elpd),
            "summary": list(summary(tree).index),
            "khat": [float(khat), ours.khat],
            "smoothed_differ_by": float(
                np.abs((cut(smoothed) if khat >= 0.7 else np.asarray(smoothed)) - ours.log_weights).max()
            ),
            "ess": ours.ess,
            "khat_of_few": importance(log_weights[:20]).khat,
            "khat_of_even_tail": importance(np.minimum(log_weights, np.median(log_weights))).khat,
            "imported": sorted({"torch", "pyro"} & set(sys.modules)),
        }
    values = {f"{g}|{n}": v.values for g in tree.children for n, v in tree[g].data_vars.items()}
    np.savez(out_file, **values)
    print(json.dumps(report))


def load(path: str) -> types.ModuleType:
    """The module at `path`, without the packages above it, which need torch."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look the module up
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(*sys.argv[1:])
