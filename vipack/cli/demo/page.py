"""The demo as one page that holds everything: it can be mailed, and opens without a server."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from vipack.cli.demo.part import Part
from vipack.cli.tables import html_table

__all__ = ["write_page"]

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.9rem; margin-bottom: .25rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .5rem; padding-top: 1.25rem; border-top: 1px solid #ddd; }
p.lead { color: #6b6b6b; margin-top: 0; }
p strong { color: #0072B2; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .8rem; }
th, td { text-align: right; padding: .3rem .34rem; border-bottom: 1px solid #e6e6e6; vertical-align: top; }
.text { text-align: left; }
.text:first-child { white-space: nowrap; }
th { font-weight: 600; border-bottom: 2px solid #999; }
.trust { color: #00785a; font-weight: 600; }
.corrected { color: #8f6200; font-weight: 600; }
.distrust { color: #b34a00; font-weight: 600; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; display: block; }
figcaption, footer { color: #6b6b6b; font-size: .88rem; }
footer { margin-top: 3rem; border-top: 1px solid #ddd; padding-top: 1rem; }
"""


def write_page(path: Path, parts: Sequence[Part], lead: str, note: str) -> None:
    """Write the page of `parts`, whose pictures have been written beside it.

    Args:
        lead: under the title.
        note: at the foot: versions, machine, seed.
    """
    sections = "\n".join(_section(i, part, path.parent) for i, part in enumerate(parts))
    path.write_text(
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>vipack demo</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>vipack demo</h1>
<p class="lead">{html.escape(lead)}</p>
{_overview(parts)}
<p><span class="trust">TRUST</span>: believe means and sds of the guide's draws. <span class="corrected">CORRECTED</span>: believe
those of draws resampled with their importance weights, which are shown then. <span class="distrust">DISTRUST</span>: believe
neither; a richer guide, another parametrisation or more steps may help. Tails and small probabilities, and the evidence, are not looked
at. k-hat says how heavy the tail of the weights is (below 0.7 it can be
corrected), ESS how many of the draws count.</p>
{sections}
<footer>{html.escape(note)}</footer>
</body>
</html>
""",
        encoding="utf-8",
    )


def _overview(parts: Sequence[Part]) -> str:
    rows = [
        f'<tr><td class="text"><a href="#part{i}">{html.escape(part.title)}</a></td>'
        f'<td class="text {part.verdict.lower()}">{part.verdict}</td>'
        f'<td class="text">{html.escape(part.answer)}</td><td>{part.seconds:.0f} s</td></tr>'
        for i, part in enumerate(parts)
    ]
    head = "".join(f'<th class="text">{name}</th>' for name in ("question", "verdict", "answer"))
    return f'<div class="scroll"><table><tr>{head}<th>time</th></tr>{"".join(rows)}</table></div>'


def _section(number: int, part: Part, folder: Path) -> str:
    verdict, why = part.verdict, part.trust.removeprefix(part.verdict)
    lines = [
        f'<h2 id="part{number}">{html.escape(part.title)}</h2>',
        f"<p>{html.escape(part.question)}</p>",
        f"<p><strong>What to see.</strong> {html.escape(part.see)}</p>",
        f'<p><strong>Whether to trust it.</strong> <span class="{part.verdict.lower()}">{verdict}</span>{html.escape(why)}</p>',
    ]
    lines += [f'<div class="scroll">{html_table(table)}</div>' for table in part.tables.values()]
    for name, picture in part.pictures.items():
        encoded = base64.b64encode((folder / f"{name}.png").read_bytes()).decode("ascii")
        caption = html.escape(picture.caption)
        width = round(80 * picture.figure.get_figwidth())
        image = f'<img alt="{caption}" width="{width}" src="data:image/png;base64,{encoded}">'
        lines.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return "\n".join(lines)
