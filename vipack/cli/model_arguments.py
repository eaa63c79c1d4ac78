"""What the command line gives, matched with the arguments that a model takes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vipack.cli.data_files import as_value, is_data_file, read_data_file
from vipack.errors import UsageError

__all__ = ["ModelArguments", "read_arguments"]


@dataclass(frozen=True)
class ModelArguments:
    """``data`` and ``fixed`` as :func:`vipack.fit` takes them."""

    data: Any
    fixed: dict[str, Any]


def read_arguments(
    model: Callable[..., Any], data_files: Sequence[str], columns: str | None, fixed: Sequence[str]
) -> ModelArguments:
    """The model's arguments from files and from NAME=VALUE.

    Args:
        columns: which named arrays of the data files to use, and for which arguments: ``"x,y=weight"``.
        fixed: NAME=VALUE, files, or names of arrays of the data files.

    Raises:
        UsageError: a name that the model does not take, that is missing, or that is given twice.
        DataError: a file cannot be read.
    """
    parameters = _parameters(model)
    values: dict[str, Any] = {}
    for file in data_files:
        content = read_data_file(file)
        if not isinstance(content, Mapping):
            content = {_first_argument(file, parameters): content}
        for name, value in content.items():
            if name in values:
                raise UsageError(f"--data {file}: {name!r} is in an earlier file too; give it once.")
            values[name] = value
    if columns is not None:
        values = _chosen(values, columns)
    data = {name: value for name, value in values.items() if _is_array(value)}
    constants = {name: value for name, value in values.items() if not _is_array(value)}
    for item in fixed:
        for name, value in _fixed_values(item, data).items():
            if name in constants or (name in data and name != item):
                raise UsageError(f"--fixed {item}: {name!r} is given twice; give it once.")
            constants[name] = value
            data.pop(name, None)
    _check_names(parameters, [*data, *constants], "--columns" if data_files else "--fixed")
    return ModelArguments(data or (), constants)


def _parameters(model: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """None where they cannot be known."""
    try:
        return dict(inspect.signature(model).parameters)
    except (TypeError, ValueError):
        return None


def _first_argument(file: str, parameters: Mapping[str, inspect.Parameter] | None) -> str:
    named = [p.name for p in (parameters or {}).values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if not named:
        raise UsageError(f"--data {file}: holds one array without a name, and the model has no named argument for it.")
    return named[0]


def _chosen(values: Mapping[str, Any], columns: str) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for item in columns.split(","):
        argument, _, column = (name.strip() for name in item.partition("="))
        column = column or argument
        if column not in values:
            raise UsageError(f"--columns: no {column!r} in --data; there are {', '.join(values) or 'no names'}.")
        if argument in chosen:
            raise UsageError(f"--columns: argument {argument!r} is given twice; give it once.")
        chosen[argument] = values[column]
    return chosen


def _fixed_values(item: str, data: Mapping[str, Any]) -> dict[str, Any]:
    name, equals, text = item.partition("=")
    if equals and name.isidentifier():
        return {name: as_value(f"--fixed {name}", _parsed(text))}
    if item in data:
        return {item: data[item]}
    if is_data_file(item):
        content = read_data_file(item)
        if not isinstance(content, Mapping):
            raise UsageError(
                f"--fixed {item}: holds one array without a name; write it as .npz with the argument's name."
            )
        return dict(content)
    raise UsageError(
        f"--fixed {item}: expected NAME=VALUE, a file, or the name of an array in --data "
        f"({', '.join(data) or 'it has none'})."
    )


def _parsed(text: str) -> Any:
    """A number, list, true, false or null as JSON has them; other words are text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape")


def _check_names(parameters: Mapping[str, inspect.Parameter] | None, given: Sequence[str], option: str) -> None:
    if parameters is None:
        return
    takes = [p.name for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    listed = f"its arguments are {', '.join(takes)}" if takes else "it takes none"
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        unknown = [name for name in given if name not in takes]
        if unknown:
            cure = "choose what to use with --columns" if option == "--columns" else "correct the name"
            raise UsageError(f"the model has no argument {', '.join(map(repr, unknown))}: {listed}; {cure}.")
    missing = [name for name in takes if name not in given and parameters[name].default is inspect.Parameter.empty]
    if missing:
        raise UsageError(
            f"the model's argument {', '.join(map(repr, missing))} is in neither --data nor --fixed ({listed}); give it."
        )
