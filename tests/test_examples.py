"""Every example runs, is short, and ends in a check."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest

import vipack as vi

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def test_the_examples_are_numbered_from_one():
    assert [path.name[:3] for path in EXAMPLES] == [f"{i:02}_" for i in range(1, len(EXAMPLES) + 1)]
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_ends_in_a_check(path):
    text = path.read_text()
    assert len(text.splitlines()) < 90
    assert ".diagnose(" in text.partition('if __name__ == "__main__":')[2]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_trains_without_a_warning(path, capsys):
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    example = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        spec.loader.exec_module(example)
        fit = example.main(num_steps=20)
        verdict = fit.diagnose(num_draws=50).verdict
    assert [str(warning.message) for warning in said] == []
    assert isinstance(fit, vi.Fit)
    assert fit.steps == 20
    assert np.isfinite(fit.losses).all()
    assert verdict.value in ("TRUST", "CORRECTED", "DISTRUST")
