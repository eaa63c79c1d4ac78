"""What `python -m benchmarks.texts` compares: the same words are counted, and here no slower and in less memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import texts


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    texts.write_texts(path, 60)
    return path


def test_the_texts_are_the_same_each_time(made_up, tmp_path):
    texts.write_texts(tmp_path / "again.jsonl", 60)
    assert (tmp_path / "again.jsonl").read_bytes() == made_up.read_bytes()
    assert len(made_up.read_text(encoding="utf-8").splitlines()) == 60


def test_both_tools_count_nearly_the_same_words(made_up, capsys):
    rows = []
    for tool in texts.TOOLS:
        texts.measure(tool, made_up, "text")
        rows.append(json.loads(capsys.readouterr().out))
    one, other = rows
    assert one["documents"] == other["documents"] == 60
    # They have other English stop words; few of these are among made-up words.
    assert abs(one["words"] - other["words"]) <= 10
    assert abs(one["tokens"] - other["tokens"]) < 0.05 * one["tokens"]


@pytest.mark.slow
def test_counting_is_no_slower_and_takes_less_memory_than_scikit_learn(tmp_path):
    path = tmp_path / "texts.jsonl"
    command = [sys.executable, "-m", "benchmarks.texts", "--root", path, "--tool"]
    root = Path(texts.__file__).parents[1]
    texts.write_texts(path, 10_000)
    one, other = (
        min((_figures([*command, tool], root) for _ in range(3)), key=lambda run: run["cpu"]) for tool in texts.TOOLS
    )
    assert other["cpu"] < 1.2 * one["cpu"]
    assert other["mb"] < 0.75 * one["mb"]


def _figures(command, root):
    return json.loads(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)
