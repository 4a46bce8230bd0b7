"""SVG files as parts of an HTML page: names of their own, colours of the page, a text alternative."""

import re

from markupsafe import Markup, escape

from actlab.report.drawing import GRID, INK, MUTED, PAPER

# A role's colour in a file to the page's variable, which has a light and a dark value.
ROLES = {INK: "var(--ink)", PAPER: "var(--paper)", GRID: "var(--grid)", MUTED: "var(--muted)"}


def inline(svg: str, name: str, alternative: str) -> Markup:
    """The `<svg>` element of a matplotlib file for use inside a page.

    Its ids are prefixed with `name`, because those of two figures on one page would clash; the colours of text, paper
    and grid follow the page; a reader that sees no pictures reads `alternative`.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # matplotlib draws the ids of groups that nothing refers to
    used = set(re.findall(r'href="#([^"]+)"', body)) | set(re.findall(r"url\(#([^)]+)\)", body))
    body = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    for colour, variable in ROLES.items():
        body = body.replace(colour, variable)
    # the page says which type, and how lines join
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    width = float(body.partition('viewBox="0 0 ')[2].partition(" ")[0])
    body = re.sub(r' width="[0-9.]+pt" height="[0-9.]+pt"', "", body, count=1)
    opening = f'<svg role="img" aria-label="{escape(alternative)}" style="max-width:{1.6 * width:.0f}px" '
    return Markup(body.replace("<svg ", opening, 1))
