"""What a reader has in a notebook: tables for results, pictures for figures, and nothing on the way of errors."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "site"))
from notebook_pages import page_of, text_of
from notebooks import execute, notebook_of

sys.path.pop(0)

SOURCE = """# %% [markdown]
# # A notebook
#
# Of a normal mean.

# %%
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi


def model(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


y = torch.linspace(0.0, 2.0, 20)

# %%
vi.check(model, AutoNormal, data=y)

# %%
fit = vi.fit(model, AutoNormal, data=y, steps=300, engine="eager")
fit

# %%
fit.diagnose(500)

# %%
vi.compare({"a": fit, "b": fit}, num_draws=200)

# %%
vi.plots.losses(fit).figure

# %%
print(fit.stopped)
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    return execute(notebook_of(SOURCE), tmp_path_factory.mktemp("notebook"))


@pytest.fixture(scope="module")
def outputs(notebook):
    return [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_cells_are_text_and_code(notebook):
    assert [cell["cell_type"] for cell in notebook["cells"]] == ["markdown"] + 7 * ["code"]
    assert text_of(notebook["cells"][0]["source"]) == "# A notebook\n\nOf a normal mean."


def test_results_show_as_tables(outputs):
    for each in outputs[1:5]:
        assert [set(output["data"]) for output in each] == [{"text/html", "text/plain"}]


def test_figures_show_as_pictures_without_pyplot(outputs):
    assert [set(output["data"]) for output in outputs[5]] == [{"image/png", "text/plain"}]


def test_nothing_is_written_to_stderr(outputs):
    streams = [output for each in outputs for output in each if output["output_type"] == "stream"]
    assert [stream["name"] for stream in streams] == ["stdout"]
    assert "300 steps" in text_of(streams[0]["text"])


def test_a_page_is_made_of_it(notebook):
    page, pictures = page_of(notebook, "mean")
    assert page.startswith("# A notebook\n\n[Download the notebook](mean.ipynb)\n\n\nOf a normal mean.")
    assert "![Picture by vi.plots.losses](mean-1.png)" in page
    assert pictures["mean-1.png"].startswith(b"\x89PNG")
    assert page.count('<div class="output" tabindex="0">') == 4
