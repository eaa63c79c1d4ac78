"""What MkDocs does beside its own: pages made from the source, and links that lead out of the site to the repository."""

import ast
import os
import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
from public_names import public_names, rooms

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/vipack/vipack/blob/main"
BOOSTS = {"how-do-i.md": 4.0, "decisions": 0.1, "reference": 0.5, "gallery": 0.5}  # of pages in the search's results
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
ROLE = re.compile(r":(?:py:)?(?:class|func|meth|attr|mod|data):<code>~?([^<]*)</code>")


def on_files(files, config):
    """Add the pages of the reference, the gallery and the decisions' index."""
    assets = {f"assets/{name}": (HERE / name).read_text(encoding="utf-8") for name in ("extra.css", "iframe-worker.js")}
    for name, text in {**reference(), **gallery(), **decisions(), **assets}.items():
        files.append(File.generated(config, name, content=text))
    for entry in config.nav:
        for title, folder in entry.items():
            if isinstance(folder, str) and folder.endswith("/"):
                entry[title] = sorted(
                    (
                        file.src_uri
                        for file in files
                        if file.src_uri.startswith(folder) and file.src_uri.endswith(".md")
                    ),
                    key=lambda uri: (not uri.endswith("/index.md"), uri),
                )
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to what is no page lead to the repository, and a folder's to its index."""
    folder = Path(page.file.src_uri).parent
    page.meta.setdefault("search", {"boost": BOOSTS.get(page.file.src_uri, BOOSTS.get(folder.name, 1.0))})

    def out(match):
        opening, target, heading, closing = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match.group(0)
        uri = os.path.normpath(folder / target).replace(os.sep, "/")
        if files.get_file_from_path(uri) is not None:
            return match.group(0)
        if files.get_file_from_path(f"{uri}/index.md") is not None:
            return f"{opening}{target.rstrip('/')}/index.md{heading or ''}{closing}"
        path = Path(os.path.normpath(ROOT / "docs" / folder / target))
        if path.exists():
            return f"{opening}{REPOSITORY}/{path.relative_to(ROOT).as_posix()}{heading or ''}{closing}"
        return match.group(0)

    return LINK.sub(out, markdown)


def on_page_content(html, page, config, files):
    """Roles of docstrings as plain code."""
    return ROLE.sub(r"<code>\1</code>", html)


def reference():
    """A page a room, with an entry for each of its public names.

    Raises:
        LookupError: a name has no docstring.
    """
    pages, table = {}, []
    for room in rooms():
        names = public_names(room)
        if not names:
            continue
        without = [each.name for each in names if not each.docstring]
        if without:
            raise LookupError(f"{room}: no docstring of {', '.join(without)}")
        page = room.replace(".", "-")
        entries = "\n\n".join(f"::: {each.home}" for each in names)
        doc = ast.get_docstring(ast.parse(source_of(room))) or ""
        pages[f"reference/{page}.md"] = f"# {room}\n\n{doc.splitlines()[0] if doc else ''}\n\n{entries}\n"
        table.append(f"| [`{room}`]({page}.md) | {', '.join(f'`{each.name}`' for each in names)} |")
    pages["reference/index.md"] = "# Reference\n\n| module | names |\n|---|---|\n" + "\n".join(table) + "\n"
    return pages


def gallery():
    """A page an example, with its source."""
    pages, table = {}, []
    for path in sorted((ROOT / "examples").glob("[0-9]*.py")):
        text = path.read_text(encoding="utf-8")
        doc = (ast.get_docstring(ast.parse(text)) or path.stem).split("\n\n")[0].replace("\n", " ")
        title = path.stem[3:].replace("_", " ").capitalize()
        pages[f"gallery/{path.stem}.md"] = (
            f"# {title}\n\n{doc}\n\n```python\n{text}```\n\n`python examples/{path.name}` runs it.\n"
        )
        table.append(f"| [{title}]({path.stem}.md) | {doc} |")
    pages["gallery/index.md"] = (
        "# Gallery\n\nScripts of less than 90 lines, one idea each, which end in a check.\n\n| example | |\n|---|---|\n"
        + "\n".join(table)
        + "\n"
    )
    return pages


def decisions():
    """An index of the decisions."""
    lines = []
    for path in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        lines.append(f"- [{title}]({path.name})")
    text = "# Decisions\n\nWhat was chosen, why, and what was rejected.\n\n" + "\n".join(lines) + "\n"
    return {"decisions/index.md": text}


def source_of(module):
    base = ROOT.joinpath(*module.split("."))
    return (base / "__init__.py" if base.is_dir() else base.with_suffix(".py")).read_text(encoding="utf-8")
