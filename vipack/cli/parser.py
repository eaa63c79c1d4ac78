"""What can be said on the command line. Nothing here imports torch."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from vipack import __version__
from vipack.cli.guide_names import GUIDE_NAMES, LADDER
from vipack.errors import UsageError
from vipack.hints import name_hint

__all__ = ["make_parser", "parse"]

_EXAMPLES = """examples:
  vipack demo
  vipack check models.py:regression --data table.csv
  vipack fit models.py:regression --guide fullrank --data table.csv --out results
  vipack compare models.py:regression --guides ladder,meanfield,fullrank --data table.csv
  vipack topics speeches.csv --field text --num-topics 20 --out topics --open
"""
_GUIDE = f"{LADDER}, {', '.join(GUIDE_NAMES)}, or FILE.py:NAME"
_DEFAULT = f"({LADDER}; with --steps, --lr or --particles, fullrank)"
# how it is called elsewhere
_OTHERWISE = {
    "--learning-rate": "--lr",
    "--num-steps": "--steps",
    "--iterations": "--steps",
    "--epochs": "--steps",
    "--num-particles": "--particles",
    "--num-samples": "--draws",
    "--samples": "--draws",
    "--output": "--out",
    "-o": "--out",
    "--guides": "--guide",
    "--random-seed": "--seed",
    "--columns-of": "--columns",
    "--topics": "--num-topics",
    "--k": "--num-topics",
    "-k": "--num-topics",
    "--n-topics": "--num-topics",
    "--text": "--field",
    "--column": "--field",
    "--stopwords": "--stop-words",
    "--ngram": "--ngrams",
    "--min-df": "--min-documents",
    "--max-df": "--max-fraction",
    "--metadata": "--covariates",
}


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print over several lines before it ends the process."""

    def error(self, message: str) -> NoReturn:
        match = re.search(r"invalid choice: '(.+?)' \(choose from (.+)\)", message)
        hint = name_hint(match[1], re.findall(r"[\w-]+", match[2])) if match else ""
        raise UsageError(f"{message}; {hint + ' ' if hint else ''}see {self.prog} --help.")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What a command line says.

    Raises:
        UsageError: it is none of vipack's; what was meant is said.
    """
    chosen, unknown = make_parser().parse_known_args(arguments)
    if unknown:
        word = unknown[0].partition("=")[0]
        meant = _OTHERWISE.get(word.replace("_", "-"))
        hint = f"did you mean {meant!r}?" if meant in chosen.options else name_hint(word, chosen.options)
        raise UsageError(
            f"unrecognized arguments: {' '.join(unknown)}; {hint + ' ' if hint else ''}see vipack {chosen.command} --help."
        )
    return chosen


def make_parser() -> argparse.ArgumentParser:
    """The parser of ``vipack``; the result's ``module`` is the command's, in ``vipack.cli``.

    Parsing raises:
        UsageError: words that are no command line of vipack's.
    """
    parser = _Parser(
        prog="vipack",
        description="Variational inference for Pyro models: fit fast, compare guides, know when to trust the answer.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vipack {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    _add_demo(commands)
    _add_check(commands)
    _add_fit(commands)
    _add_compare(commands)
    _add_topics(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "demo",
        help="fit three real problems and write a page about them",
        description="Compares guides on eight schools, finds topics in the docstrings of the standard library and draws "
        "new digits with a VAE, in a few minutes. Writes index.html, tables and pictures.",
    )
    command.add_argument("--out", metavar="DIR", default="demo-output", help="folder to write to (%(default)s)")
    command.add_argument("--quick", action="store_true", help="a few steps of each, to see that it runs")
    _add_common(command, "demo")


def _add_check(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "check",
        help="look for mistakes in a model, a guide and their data, before training",
        description="Prints the table of sites and shapes, and what is wrong. Ends with 0 if nothing is, else with 2.",
    )
    _add_program(command)
    command.add_argument("--guide", metavar="GUIDE", help=f"{_GUIDE} (fullrank)")
    _add_common(command, "checking")


def _add_fit(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "fit",
        help="train a guide, and write the fit, its draws, tables and plots",
        description="Writes fit.pt, summary.csv, posterior.nc (ArviZ), losses.png, posterior.png and diagnosis.txt.",
    )
    _add_program(command)
    command.add_argument("--guide", metavar="GUIDE", help=f"{_GUIDE} {_DEFAULT}")
    command.add_argument("--out", metavar="DIR", required=True, help="folder to write to")
    command.add_argument("--draws", metavar="N", type=_positive, default=1_000, help="in posterior.nc (%(default)s)")
    command.add_argument(
        "--raw",
        action="store_true",
        help="the guide's own draws, where the verdict is CORRECTED and resampled ones would be shown",
    )
    _add_training(command)
    _add_common(command, "fitting")


def _add_compare(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "compare",
        help="train several guides for one model and rank them",
        description="Prints one row a guide, best first; with --out writes compare.csv and compare.png as well.",
    )
    _add_program(command)
    command.add_argument(
        "--guides",
        metavar="A,B,...",
        required=True,
        help=f"{_GUIDE}; separated by commas; {LADDER} takes no heed of --steps, --lr and --particles",
    )
    command.add_argument("--out", metavar="DIR", help="folder to write to")
    _add_training(command)
    _add_common(command, "comparing")


def _add_topics(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "topics",
        help="find topics in texts, and write a page and tables about them",
        description="Reads texts, finds topics by latent Dirichlet allocation, and writes explorer.html (a page for any "
        "browser), topics.csv, top_words.csv (with 90% intervals), documents.csv, corpus.csv and model.pt.",
    )
    command.add_argument(
        "texts",
        metavar="TEXTS",
        help="a folder of .txt files, or a .csv, .tsv, .jsonl or .parquet file of one text a row",
    )
    command.add_argument("--num-topics", metavar="K", type=_positive, default=20, help="topics to find (%(default)s)")
    command.add_argument("--out", metavar="DIR", required=True, help="folder to write to")
    command.add_argument("--field", metavar="NAME", help="the column that holds the texts (text)")
    command.add_argument("--title", metavar="NAME", help="the column that holds titles (numbers of lines)")
    command.add_argument("--covariates", metavar="A,B,...", help="columns by which the page shows shares of topics")
    command.add_argument(
        "--prevalence",
        metavar="FORMULA",
        help='what shares of topics depend on, as "party + s(year)" of columns of the table; writes effects.csv with 90%% '
        "intervals, and fit.pt in place of model.pt",
    )
    command.add_argument(
        "--stop-words",
        "--language",
        metavar="LIST",
        default="english",
        help="words to leave out: languages (german or de), files of a word a line, or none; separated by commas "
        "(%(default)s)",
    )
    command.add_argument(
        "--ngrams", metavar="N", type=_positive, default=1, help="count runs of up to N words as well (%(default)s)"
    )
    command.add_argument(
        "--min-letters", metavar="N", type=_positive, default=3, help="shortest word that counts (%(default)s)"
    )
    command.add_argument(
        "--min-documents", metavar="N", type=_positive, default=2, help="leave out words of fewer texts (%(default)s)"
    )
    command.add_argument(
        "--max-fraction",
        metavar="X",
        type=_fraction,
        default=0.5,
        help="leave out words of more than this fraction of texts (%(default)s)",
    )
    command.add_argument("--max-words", metavar="N", type=_positive, help="keep the N most frequent words (all)")
    command.add_argument(
        "--encoding", metavar="NAME", default="utf-8", help="of the files, such as latin-1 (%(default)s)"
    )
    command.add_argument("--steps", metavar="N", type=_positive, help="passes over the texts (until converged)")
    command.add_argument(
        "--stream",
        action="store_true",
        help="for texts too many for memory: counts them once onto the disk, in --out, and learns from there by minibatches",
    )
    command.add_argument("--seed", metavar="N", type=int, default=0, help="decides everything random (%(default)s)")
    command.add_argument("--open", action="store_true", help="show the page in a browser")
    command.add_argument("--quiet", action="store_true", help="no messages on the way")
    _add_common(command, "topic_fitting")


def _add_program(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="FILE.py:MODEL", help="a Python file and the name of a Pyro model in it")
    command.add_argument(
        "--data",
        metavar="FILE",
        action="append",
        default=[],
        help="arguments of the model by name: .npz, .json (Stan's kind), .csv, .tsv; or one array, the model's first "
        "argument: .npy, .mtx, sparse .npz. Numbers are passed as --fixed. May be given again",
    )
    command.add_argument(
        "--columns",
        metavar="A,B=C,...",
        help="what to use of --data: argument A from the column A, argument B from the column C",
    )
    command.add_argument(
        "--fixed",
        metavar="X",
        action="append",
        default=[],
        help="what no batch cuts: NAME=VALUE, a file such as --data takes, or the NAME of an array in --data. May be "
        "given again",
    )
    command.add_argument("--batch-size", metavar="B", type=_positive, help="rows a step (all)")
    command.add_argument("--batch-plate", metavar="NAME", help="the plate that batches are rows of, if not plain")
    command.add_argument("--seed", metavar="N", type=int, default=0, help="decides everything random (%(default)s)")
    command.add_argument("--dtype", choices=["float32", "float64"], help="of parameters and data (float32)")


def _add_training(command: argparse.ArgumentParser) -> None:
    command.add_argument("--steps", metavar="N", type=_positive, help="gradient steps (until converged)")
    command.add_argument("--lr", metavar="X", type=_rate, help="learning rate of Adam (0.02)")
    command.add_argument("--particles", metavar="N", type=_positive, default=1, help="draws a step (%(default)s)")
    command.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_common(command: argparse.ArgumentParser, module: str) -> None:
    if module == "demo":
        command.add_argument("--seed", metavar="N", type=int, default=0, help="decides everything random (%(default)s)")
    command.add_argument("--debug", action="store_true", help="show tracebacks and all warnings")
    options = [name for action in command._actions for name in action.option_strings]
    command.set_defaults(module=module, options=options)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, found {text!r}")
    return int(text)


def _fraction(text: str) -> float:
    value = _rate(text)
    if value > 1.0:
        raise argparse.ArgumentTypeError(f"expected a fraction above 0 and up to 1, found {text!r}")
    return value


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number such as 0.01, found {text!r}")
    return value
