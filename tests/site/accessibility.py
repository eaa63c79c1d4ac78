"""axe-core over pages, light and dark: ``python -m tests.site.accessibility axe.min.js PAGE_OR_FOLDER ...`` lists what is wrong.

``npm install axe-core`` has axe.min.js. The command fails where anything is serious or critical.
"""

import collections
import sys
from pathlib import Path

from tests.site.chromium import Chromium

RUN = """axe.run(document, {resultTypes: ["violations"]}).then(result => result.violations.map(violation =>
    [violation.impact, violation.id, violation.nodes.map(node => node.html.slice(0, 120))]))"""


def violations(chromium: Chromium, page: Path, axe: str) -> list[tuple[str, str, list[str]]]:
    """Impact, rule and elements of each violation of a page."""
    chromium.open(page)
    chromium.value(f"{axe};0")
    return [(impact, rule, nodes) for impact, rule, nodes in chromium.value(RUN)]


def main(axe: Path, *targets: Path) -> int:
    """Print a line for each rule that is broken; the number of serious and critical ones."""
    pages = [page.resolve() for each in targets for page in (sorted(each.rglob("*.html")) if each.is_dir() else [each])]
    source = axe.read_text(encoding="utf-8")
    broken: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    with Chromium() as chromium:
        for dark in (False, True):
            chromium.resize(1280, dark=dark)
            for page in pages:
                for impact, rule, nodes in violations(chromium, page, source):
                    broken[impact, rule].append(f"{page.name}: {nodes[0]}")
    for (impact, rule), examples in sorted(broken.items()):
        print(f"{impact} {rule}: {len(examples)} times, as in", *examples[:3], sep="\n    ")
    serious = sum(len(examples) for (impact, _), examples in broken.items() if impact in ("serious", "critical"))
    print(f"{len(pages)} pages, light and dark: {serious} serious or critical violations")
    return serious


if __name__ == "__main__":
    sys.exit(bool(main(*map(Path, sys.argv[1:]))))
