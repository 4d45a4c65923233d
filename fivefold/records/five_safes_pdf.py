"""The evidence pack as PDF: the same page as the HTML, laid out by reportlab (the extra `fivefold[report]`).

The page's own few tags are read (headings, paragraphs, definitions, tables); the letters are those of DejaVu Sans, which
matplotlib brings along, because a PDF's built-in fonts have no ε.
"""

from __future__ import annotations

import io
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from fivefold.errors import PackageProblem

MARKS = {"yes": "✓ ", "no": "✗ ", "open": "… "}


class _Blocks(HTMLParser):
    """The page as blocks: ("h1" | "h2" | "p" | "caption", text), ("table", rows), ("pairs", rows)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[tuple[str, Any]] = []
        self._rows: list[list[str]] = []
        self._text: str | None = None

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("h1", "h2", "p", "caption", "td", "th", "dt", "dd"):
            self._text = MARKS.get(dict(attributes).get("class") or "", "")
        elif tag in ("table", "dl"):
            self._rows = []
        elif tag in ("tr", "div"):
            self._rows.append([])

    def handle_endtag(self, tag: str) -> None:
        text, plain = (self._text or "").strip(), tag in ("h1", "h2", "p", "caption")
        if plain:
            self.blocks.append((tag, text))
        elif tag in ("td", "th", "dt", "dd") and self._rows:
            self._rows[-1].append(text)
        elif tag in ("table", "dl"):
            rows = [row for row in self._rows if row]
            if rows:
                self.blocks.append(("table" if tag == "table" else "pairs", rows))
        if plain or tag in ("td", "th", "dt", "dd"):
            self._text = None

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text += data


def pdf_of(page: str, title: str) -> bytes:
    """The PDF of an evidence page; the same page gives the same bytes. Raises `PackageProblem` without reportlab."""
    try:
        from reportlab.lib import colors
        from reportlab.lib.pagesizes import A4
        from reportlab.lib.styles import ParagraphStyle
        from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle
    except ImportError as error:
        raise PackageProblem(
            "a PDF needs reportlab", help="pip install 'fivefold[report]', or print the HTML page from a browser."
        ) from error
    normal, bold = _fonts()
    sizes = {"h1": 18, "h2": 13, "caption": 9.5, "p": 9.5, "cell": 8, "head": 8}
    styles = {
        name: ParagraphStyle(
            name,
            fontName=bold if name in ("h1", "h2", "caption", "head") else normal,
            fontSize=size,
            leading=size * 1.35,
            spaceBefore=12 if name == "h2" else 4,
            spaceAfter=4,
            wordWrap="CJK" if name == "cell" else None,
        )
        for name, size in sizes.items()
    }
    reader = _Blocks()
    reader.feed(page)
    flow: list[Any] = []
    out = io.BytesIO()
    document = SimpleDocTemplate(
        out, pagesize=A4, leftMargin=50, rightMargin=50, topMargin=50, bottomMargin=50, title=title, invariant=1
    )
    lines = TableStyle([("LINEBELOW", (0, 0), (-1, -1), 0.4, colors.HexColor("#dfe3e8")), ("VALIGN", (0, 0), (-1, -1), "TOP")])
    for kind, content in reader.blocks:
        if kind in ("table", "pairs"):
            columns = max(map(len, content))
            cells = [
                [
                    Paragraph(escape(text), styles["head" if (i if kind == "table" else j) == 0 else "cell"])
                    for j, text in enumerate(row + [""] * (columns - len(row)))
                ]
                for i, row in enumerate(content)
            ]
            table = Table(cells, colWidths=[document.width / columns] * columns, repeatRows=1 if kind == "table" else 0)
            table.setStyle(lines)
            flow += [table, Spacer(1, 6)]
        else:
            flow.append(Paragraph(escape(content), styles[kind]))
    document.build(flow)
    return out.getvalue()


def _fonts() -> tuple[str, str]:
    """DejaVu Sans, normal and bold, as reportlab knows them."""
    import matplotlib
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name in ("DejaVuSans", "DejaVuSans-Bold"):
        pdfmetrics.registerFont(TTFont(name, str(folder / f"{name}.ttf")))
    return "DejaVuSans", "DejaVuSans-Bold"
