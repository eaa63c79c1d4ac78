"""Pages from notebooks that were executed: Markdown, with outputs as text, tables and pictures."""

import base64
import re

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def page_of(notebook: dict, name: str) -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures by the names of their files."""
    blocks, pictures = [], {}
    for cell in notebook["cells"]:
        source = text_of(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(source)
            continue
        blocks.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode(text_of(data["image/png"]))
                blocks.append(f"![{described(source)}]({picture})")
            elif "text/html" in data:
                blocks.append(f'<div class="output" tabindex="0">\n{text_of(data["text/html"]).strip()}\n</div>')
            else:
                text = ANSI.sub("", text_of(data.get("text/plain", output.get("text", "")))).rstrip()
                blocks += [f"```text\n{text}\n```"] if text else []
    title, *rest = blocks[0].split("\n", 1)
    download = f"[Download the notebook]({name}.ipynb)"
    return "\n\n".join([title, download, *rest, *blocks[1:]]) + "\n", pictures


def described(source: str) -> str:
    """A picture in words, for who cannot see it: the call that drew it."""
    call = re.search(r"vi\.[\w.]+", source)
    return f"Picture by {call.group(0)}" if call else "Picture drawn by the code above"


def text_of(source: str | list[str]) -> str:
    """Notebooks have texts in one piece or by lines."""
    return source if isinstance(source, str) else "".join(source)
