"""The demo as one page that holds everything: it can be mailed, and opens without a server."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from vipack.cli.demo.section import Picture, Section
from vipack.cli.text_tables import html_table
from vipack.plots.html_page import html_page, save_page

__all__ = ["write_page"]

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.9rem; margin-bottom: .25rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .5rem; padding-top: 1.25rem; border-top: 1px solid #ddd; }
p, figcaption, li { overflow-wrap: anywhere; }
p.lead { color: #6b6b6b; margin-top: 0; }
p strong { color: #0072B2; }
p.headline { font-size: 1.15rem; font-weight: 600; margin: .25rem 0; }
p.judged { color: #555; font-size: .9rem; margin: .25rem 0 1rem; }
ul.sections { list-style: none; padding: 0; }
ul.sections li { margin: .9rem 0; padding-left: .9rem; border-left: 3px solid #ddd; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .8rem; }
th, td { text-align: right; padding: .3rem .45rem; border-bottom: 1px solid #e6e6e6; vertical-align: top; }
.text { text-align: left; }
.text:first-child { white-space: nowrap; }
th { font-weight: 600; border-bottom: 2px solid #999; }
.trust, .corrected, .distrust { white-space: nowrap; }
.trust { color: #00785a; font-weight: 600; }
.corrected { color: #8f6200; font-weight: 600; }
.distrust { color: #b34a00; font-weight: 600; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; display: block; }
figcaption, footer { color: #6b6b6b; font-size: .88rem; }
footer { margin-top: 3rem; border-top: 1px solid #ddd; padding-top: 1rem; }
@media (max-width: 40rem) {
  body { margin-top: 1.25rem; padding: 0 .9rem; }
  h1 { font-size: 1.5rem; }
  h2 { font-size: 1.2rem; margin-top: 2rem; }
  .text:first-child { white-space: normal; }
  th, td { padding: .3rem .25rem; }
  table { font-size: .74rem; }
  td.text { overflow-wrap: anywhere; }
  td.text:first-child, td.trust, td.corrected, td.distrust { overflow-wrap: normal; }
  figure.wide { overflow-x: auto; }
  figure.wide img { max-width: none; width: 44rem; }
}
"""


def write_page(path: Path, sections: Sequence[Section], speed: Picture, lead: str, note: str) -> None:
    """Write the page of `sections`, whose pictures have been written beside it.

    Args:
        speed: steps a second, beside Pyro's; likewise written, as ``speed.png``.
        lead: under the title.
        note: at the foot: versions, machine, seed.
    """
    written = "\n".join(_section(i, section, path.parent) for i, section in enumerate(sections))
    body = f"""<h1>vipack demo</h1>
<p class="lead">{html.escape(lead)}</p>
{_overview(sections)}
{_figure("speed", speed, path.parent)}
<p>Every fit is judged, and the verdict says what of it to believe. <span class="trust">TRUST</span>: means and sds of the guide's
draws. <span class="corrected">CORRECTED</span>: those of draws resampled with their importance weights, which are shown then.
<span class="distrust">DISTRUST</span>: neither; a richer guide, another parametrisation or more steps may help. Tails and the
evidence are certified where the verdict says so. k-hat says how heavy the tail of the weights is (below 0.7 it can be corrected),
ESS how many of the draws count.</p>
{written}
<footer>{html.escape(note)}</footer>"""
    save_page(path, html_page("vipack demo", body, style=_STYLE))


def _overview(sections: Sequence[Section]) -> str:
    items = [
        f'<li><a href="#section{i}">{html.escape(section.title)}</a> <small>({section.seconds:.0f} s)</small><br>'
        f"{html.escape(section.headline)}</li>"
        for i, section in enumerate(sections)
    ]
    return f'<ul class="sections">{"".join(items)}</ul>'


def _section(number: int, section: Section, folder: Path) -> str:
    verdict = f'<span class="{section.verdict.lower()}">{section.verdict}</span>'
    lines = [
        f'<h2 id="section{number}">{html.escape(section.title)}</h2>',
        f'<p class="headline">{html.escape(section.headline)}</p>',
        f'<p class="judged">{verdict} {html.escape(section.judged)}</p>',
        f"<p>{html.escape(section.question)}</p>",
        f"<p><strong>What to see.</strong> {html.escape(section.see)}</p>",
        f"<p><strong>Whether to trust it.</strong> {html.escape(section.trust)}</p>",
    ]
    for name, table in section.tables.items():
        shown = table[list(section.columns[name])] if name in section.columns else table
        lines.append(f'<div class="scroll">{html_table(shown)}</div>')
    lines += [_figure(name, picture, folder) for name, picture in section.pictures.items()]
    return "\n".join(lines)


def _figure(name: str, picture: Picture, folder: Path) -> str:
    encoded = base64.b64encode((folder / f"{name}.png").read_bytes()).decode("ascii")
    caption = html.escape(picture.caption)
    width = round(80 * picture.figure.get_figwidth())
    image = f'<img alt="{caption}" width="{width}" src="data:image/png;base64,{encoded}">'
    kind = ' class="wide"' if width > 560 else ""  # a phone scrolls it sideways, where it can be read
    return f"<figure{kind}>{image}<figcaption>{caption}</figcaption></figure>"
