"""What MkDocs does beside its own: pages made from the source, and links that lead out of the site to the repository."""

import ast
import json
import os
import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
from notebook_pages import page_of
from public_names import public_names, rooms

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/vipack/vipack/blob/main"
BOOSTS = {"how-do-i.md": 4.0, "decisions": 0.1, "reference": 0.5, "gallery": 0.5}  # of pages in the search's results
CODE = re.compile(r"(<pre[^>]*>(?:<span></span>)?<code)(?=[\s>])")
EMPTY_HEAD = re.compile(r"<th([^>]*)></th>")
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
ROLE = re.compile(r":(?:py:)?(?:class|func|meth|attr|mod|data):<code>~?([^<]*)</code>")


def on_files(files, config):
    """Add the pages of the reference, the gallery and the decisions' index."""
    assets = {
        f"assets/{name}": (HERE / name).read_text(encoding="utf-8")
        for name in ("extra.css", "focus.js", "iframe-worker.js")
    }
    for name, text in {**reference(), **gallery(), **tutorials(), **decisions(), **assets}.items():
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
        if uri.startswith("tutorials/") and files.get_file_from_path(f"{uri.removesuffix('.py')}.md") is not None:
            return f"{opening}{target.removesuffix('.py')}.md{heading or ''}{closing}"  # the source of a tutorial is its page
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
    """Roles of docstrings as plain code; code that scrolls can be reached by the keyboard, and an empty cell heads nothing."""
    html = ROLE.sub(r"<code>\1</code>", html)
    return EMPTY_HEAD.sub(r"<td\1></td>", html)


def on_post_page(output, page, config):
    """The search has a name, and code that may scroll can be reached by the keyboard."""
    return CODE.sub(r'\1 tabindex="0"', output.replace('role="dialog">', 'role="dialog" aria-label="Search">'))


def on_post_template(output_content, template_name, config):
    """Names for the controls of the page of lost links, which has no script to name them."""
    if template_name != "404.html":
        return output_content
    named = output_content.replace('role="dialog">', 'role="dialog" aria-label="Search">')
    return re.sub(r'(<input class="md-toggle" data-md-toggle="(\w+)")', r'\1 aria-label="\2"', named)


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
    """A page an example, with its picture, its run time, what it prints, and its source; ``python docs/gallery/make.py`` made them."""
    folder = ROOT / "docs" / "gallery"
    runs = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
    pages, cards = {}, []
    for path in sorted((ROOT / "examples").glob("[0-9]*.py")):
        text = path.read_text(encoding="utf-8")
        doc = (ast.get_docstring(ast.parse(text)) or path.stem).split("\n\n")[0].replace("\n", " ")
        run = runs["examples"][path.stem]
        title, printed = run["title"], (folder / f"{path.stem}.txt").read_text(encoding="utf-8")
        picture = f"![{run['picture']}]({path.stem}.png)"
        pages[f"gallery/{path.stem}.md"] = (
            f"# {title}\n\n{doc}\n\n{picture}\n\n{run['picture']}.\n\n## Code\n\n```python\n{text}```\n\n"
            f"## What it prints\n\n`python examples/{path.name}` took {run['seconds']:.0f} s of processor time, compilers included, on {runs['machine']}.\n\n"
            f"```text\n{printed}```\n"
        )
        cards.append(
            f'<a class="card" href="{path.stem}.html"><img src="{path.stem}.png" alt="" loading="lazy">'
            f"<strong>{title}</strong><span>{doc}</span><small>{run['seconds']:.0f} s</small></a>"
        )
    pages["gallery/index.md"] = (
        "# Gallery\n\nScripts of less than 90 lines, one idea each, which end in a check. Pictures and outputs are those of a run on "
        f"{runs['machine']}, {runs['date']}.\n\n" + '<div class="cards">\n' + "\n".join(cards) + "\n</div>\n"
    )
    return pages


def tutorials():
    """A page a tutorial, from the notebook that was executed, the notebook itself, its pictures, and an index.

    Raises:
        FileNotFoundError: a tutorial has not been executed.
    """
    files, lines = {}, []
    for source in sorted((ROOT / "docs" / "tutorials").glob("*.py")):
        notebook = ROOT / "build" / "tutorials" / f"{source.stem}.ipynb"
        if not notebook.exists():
            raise FileNotFoundError(f"{notebook} is missing; `make site` executes the tutorials")
        content = json.loads(notebook.read_text(encoding="utf-8"))
        page, pictures = page_of(content, source.stem)
        files |= {
            f"tutorials/{source.stem}.md": page,
            f"tutorials/{notebook.name}": notebook.read_text(encoding="utf-8"),
        }
        files |= {f"tutorials/{name}": picture for name, picture in pictures.items()}
        title = page.splitlines()[0].lstrip("# ")
        lines.append(f"| [{title}]({source.stem}.md) | {content['metadata']['vipack']['seconds']:.0f} s |")
    files["tutorials/index.md"] = (
        "# Tutorials\n\nNotebooks, executed when this site was built; each page has its notebook to download and run.\n\n"
        "| tutorial | took |\n|---|---|\n" + "\n".join(lines) + "\n"
    )
    return files


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
