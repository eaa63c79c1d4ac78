"""Command lines that cannot be run: exit code 2 and one line, which names the thing and the cure."""

import pytest

from vipack.cli import main

FIT = ["fit", "--out", "out", "--quiet", "--steps", "3"]
XY = ["--data", "xy.csv"]

# what is wrong: the command line, and words of the line that it meets
BAD = {
    "no command": ([], ["COMMAND", "vipack --help"]),
    "unknown command": (["train"], ["'train'", "fit", "vipack --help"]),
    "unknown option": (["check", "models.py:line", "--colour", "red"], ["--colour red", "vipack"]),
    "no model": (["check"], ["FILE.py:MODEL", "vipack check --help"]),
    "no output folder": (["fit", "models.py:line"], ["--out", "vipack fit --help"]),
    "steps no number": ([*FIT, "models.py:line", "--steps", "many"], ["--steps", "positive whole number", "'many'"]),
    "steps zero": ([*FIT, "models.py:line", "--steps", "0"], ["--steps", "positive whole number", "'0'"]),
    "rate negative": ([*FIT, "models.py:line", "--lr", "-1"], ["--lr", "positive number", "'-1'"]),
    "seed negative": (["check", "models.py:line", *XY, "--seed", "-1"], ["seed", "-1"]),
    "unknown dtype": (["check", "models.py:line", "--dtype", "float16"], ["--dtype", "float16", "float64"]),
    "model without a name": (["check", "models.py"], ["'models.py'", "FILE.py:NAME", "models.py:model"]),
    "model not in a Python file": (["check", "notes.txt:line"], ["'notes.txt:line'", "FILE.py:NAME"]),
    "model file missing": (["check", "nowhere.py:line"], ["nowhere.py", "no such file", "give the path"]),
    "model missing": (["check", "models.py:curve"], ["'curve'", "line", "schools"]),
    "model no function": (["check", "models.py:NUMBER"], ["int", "expected a function"]),
    "model a class": (["check", "models.py:Class"], ["is a class", "model = Class()"]),
    "file with a syntax error": (["check", "broken.py:model"], ["broken.py line 2", "syntax", "correct the file"]),
    "file with a missing import": (["check", "missing_import.py:model"], ["line 3", "no_such_package", "install"]),
    "file that raises": (["check", "raises.py:model"], ["raises.py line 2", "KeyError", "'width'"]),
    "file that exits": (["check", "script.py:model"], ["script.py line 6", "__main__"]),
    "unknown guide": (["check", "models.py:line", *XY, "--guide", "meanfeild"], ["meanfeild", "meanfield", "FILE.py"]),
    "guide missing": (["check", "models.py:line", *XY, "--guide", "models.py:q"], ["'q'", "line_guide"]),
    "guide without a name": (["check", "models.py:line", *XY, "--guide", "models.py:"], ["FILE.py:NAME"]),
    "data file missing": (["check", "models.py:line", "--data", "z.csv"], ["z.csv", "no such file", "give the path"]),
    "data a folder": (["check", "models.py:line", "--data", "folder.csv"], ["folder.csv", "folder"]),
    "data of unknown kind": (["check", "models.py:line", "--data", "notes.txt"], ["notes.txt", ".csv", ".npz"]),
    "data empty": (["check", "models.py:line", "--data", "empty.csv"], ["empty.csv", "No columns", "write it again"]),
    "data without rows": (
        [*FIT, "models.py:line", "--data", "no_rows.csv"],
        ["no_rows.csv", "no rows", "at least one"],
    ),
    "data damaged": (["check", "models.py:line", "--data", "damaged.npz"], ["damaged.npz", "write it again"]),
    "data hostile": (["check", "models.py:line", "--data", "hostile.npy"], ["hostile.npy", "pickle"]),
    "json a list": (["check", "models.py:line", "--data", "list.json"], ["list.json", "expected an object"]),
    "json cut off": (["check", "models.py:line", "--data", "cut_off.json"], ["cut_off.json", "write it again"]),
    "json ragged": (["check", "models.py:line", "--data", "ragged.json"], ["'x'", "unequal lengths", "pad"]),
    "json nested": (["check", "models.py:line", "--data", "nested.json"], ["'x'", "object", "names of their own"]),
    "json of words": (["check", "models.py:line", "--data", "words.json"], ["'x'", "not a list of numbers"]),
    "columns that the model lacks": (
        ["check", "models.py:line", "--data", "table.csv"],
        ["'weight', 'name'", "x, y, spread", "--columns"],
    ),
    "column of text": (
        [*FIT, "models.py:line", "--data", "table.csv", "--columns", "x,y=name"],
        ["'y'", "not numeric", "encode"],
    ),
    "column missing": (["check", "models.py:line", *XY, "--columns", "x,z"], ["--columns", "'z'", "x, y"]),
    "column twice": (["check", "models.py:line", *XY, "--columns", "x,x=y"], ["'x'", "twice"]),
    "name in two files": (["check", "models.py:line", *XY, "--data", "xy.npz"], ["xy.npz", "'x'", "once"]),
    "argument missing": (["check", "models.py:line", "--data", "x.npy"], ["'y'", "--data", "--fixed"]),
    "no data": (["check", "models.py:line"], ["'x', 'y'", "--data"]),
    "fixed unknown": (["check", "models.py:line", *XY, "--fixed", "width=2"], ["'width'", "x, y, spread", "--columns"]),
    "fixed without a value": (["check", "models.py:line", *XY, "--fixed", "width"], ["NAME=VALUE", "x, y"]),
    "fixed twice": (
        ["check", "models.py:line", "--data", "xy.npz", "--fixed", "spread=1"],
        ["spread=1", "given twice", "once"],
    ),
    "fixed in data": (["check", "models.py:line", *XY, "--fixed", "x=1"], ["'x'", "given twice"]),
    "fixed file missing": (["check", "models.py:line", *XY, "--fixed", "z.json"], ["z.json", "no such file"]),
    "batch too large": ([*FIT, "models.py:line", *XY, "--batch-size", "41"], ["batch_size", "41", "40 rows"]),
    "unknown batch plate": (
        [*FIT, "models.py:line", *XY, "--batch-size", "10", "--batch-plate", "col"],
        ["'col'", "'row'"],
    ),
    "unequal rows": (
        [*FIT, "models.py:line", "--data", "unequal.npz", "--batch-size", "10"],
        ["40", "30", "same number of rows"],
    ),
    "missing values": ([*FIT, "models.py:line", "--data", "nan.npz"], ["'y'", "NaN", "remove"]),
    "forgotten obs": ([*FIT, "models.py:forgetful", *XY], ["'y'", "obs=y"]),
    "site missing in the guide": ([*FIT, "models.py:line", *XY, "--guide", "models.py:wrong_guide"], ["'noise'"]),
    "output a file": (["fit", "models.py:line", *XY, "--out", "notes.txt"], ["--out notes.txt", "file", "folder"]),
    "output under a file": (["fit", "models.py:line", *XY, "--out", "notes.txt/a"], ["--out notes.txt/a", "folder"]),
    "guide named twice": (["compare", "models.py:line", *XY, "--guides", "iaf,iaf"], ["'iaf'", "twice", "commas"]),
    "guide name empty": (["compare", "models.py:line", *XY, "--guides", "iaf,"], ["empty", "commas"]),
    "guide misspelt": ([*FIT, "models.py:line", *XY, "--guide", "fulrank"], ["'fulrank'", "did you mean 'fullrank'?"]),
    "model misspelt": ([*FIT, "models.py:lime"], ["no 'lime'", "did you mean 'line'?"]),
    "file misspelt": ([*FIT, "model.py:line"], ["model.py", "did you mean 'models.py'?"]),
    "option misspelt": ([*FIT, "models.py:line", "--stpes", "3"], ["--stpes", "did you mean '--steps'?"]),
    "option of another library": (
        [*FIT, "models.py:line", "--learning-rate=3"],
        ["--learning-rate", "did you mean '--lr'?"],
    ),
    "command misspelt": (["fti", "models.py:line"], ["'fti'", "did you mean 'fit'?"]),
    "ladder told how to train": (
        [*FIT, "models.py:line", *XY, "--guide", "ladder", "--steps", "3"],
        ["ladder", "--steps", "leave"],
    ),
    "one guide unknown": (["compare", "models.py:line", *XY, "--guides", "iaf,best"], ["'best'", "fullrank"]),
    "one guide cannot be fitted": (
        ["compare", "models.py:line", *XY, "--guides", "models.py:wrong_guide", "--quiet", "--steps", "3"],
        ["models.py:wrong_guide", "'noise'"],
    ),
    "demo into a file": (["demo", "--out", "notes.txt"], ["--out notes.txt", "file", "folder"]),
}


@pytest.fixture(autouse=True)
def _a_folder_with_a_file_s_name(here):
    (here / "folder.csv").mkdir(exist_ok=True)


@pytest.mark.parametrize("name", BAD)
def test_bad_command_line_ends_with_2_and_one_line(name, capsys):
    arguments, words = BAD[name]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("vipack: error: ")
    assert said.count("\n") == 1, said
    assert "Traceback" not in said
    for word in words:
        assert word in said, f"{word!r} is not in: {said}"


def test_a_bad_program_is_shown_with_its_table_and_ends_with_2(capsys):
    assert main(["check", "models.py:forgetful", *XY]) == 2
    said = capsys.readouterr()
    assert "slope" in said.out
    assert "obs=y" in said.out
    assert said.err == "vipack: error: models.py:forgetful has 1 error; see above.\n"


def test_nothing_is_written_for_a_bad_program(here):
    assert main(["fit", "models.py:forgetful", *XY, "--out", "never", "--quiet"]) == 2
    assert not list((here / "never").glob("*"))


def test_debug_lets_the_traceback_through():
    with pytest.raises(Exception, match="no such file"):
        main(["check", "nowhere.py:line", "--debug"])
