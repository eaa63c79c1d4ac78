"""Templates to pages: text is escaped, a name that is missing is an error, and the page fetches nothing."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import jinja2

from vipack.plots.html_page import html_page

__all__ = ["render"]

_VERDICTS = ("TRUST", "CORRECTED", "DISTRUST")


def render(title: str, template: str, *, package: str = "", **content: Any) -> str:
    """The text of a page of its own.

    Args:
        template: the name of a file in the folder of templates.
        package: whose folder ``templates`` it is in, before this one's.
        content: what the template names.
    """
    body = _environment(package).get_template(template).render(title=title, **content)
    return html_page(title, body, style=_style())


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    packages = [package, "vipack.report"] if package else ["vipack.report"]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(each) for each in packages]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["verdicts"] = _VERDICTS
    return environment


def _style() -> str:
    return resources.files("vipack.report").joinpath("templates", "page.css").read_text(encoding="utf-8")
