"""Reports of studies: one list of headings, paragraphs, tables and plots, written as Markdown, as one HTML file and as JSON.

Markdown refers to its plots in ``plots/`` beside it, so that a forge shows them; the HTML file holds everything that it needs.
"""

from __future__ import annotations

import html
import io
import json
import re
import shutil
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from training.report_style import PAGE

WIDEST, COLOURS = 1400, 96  # pixels and palette of a plot: enough to look at, a third of the bytes
PLOTS = "plots"
SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Heading:
    """A section's title."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph, or a list of points; ``**strong**`` and ```code``` are marked as in Markdown."""

    lines: tuple[str, ...]
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, as they are shown, under named columns; columns of figures stand to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds figures: all but the first, unless its cells are words."""
        cells = [[row[i] for row in self.rows] for i in range(len(self.columns))]
        return [all(cell == "–" or re.match(r"[*+\-−<≥≤]*\d", cell) for cell in column) for column in cells]


@dataclass(frozen=True, slots=True)
class Plot:
    """A PNG with a title, and the name of its file."""

    title: str
    name: str
    png: bytes


@dataclass
class Report:
    """A report under way; ``figures`` goes into the JSON file whole, for whoever computes with it."""

    title: str
    blocks: list[Heading | Text | Table | Plot] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def heading(self, text: str) -> None:
        """Begin a section."""
        self.blocks.append(Heading(text))

    def text(self, *paragraphs: str) -> None:
        """Add a paragraph for each string."""
        self.blocks += [Text((paragraph,)) for paragraph in paragraphs]

    def points(self, lines: Sequence[str]) -> None:
        """Add a list with a point for each string."""
        self.blocks.append(Text(tuple(lines), is_list=True))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
        """Add a table; a cell is shown as :func:`shown` says."""
        self.blocks.append(Table(title, tuple(columns), tuple(tuple(shown(cell) for cell in row) for row in rows)))

    def plot(self, png: bytes, title: str) -> None:
        """Add a plot; its file is named after the title."""
        taken = {block.name for block in self.blocks if isinstance(block, Plot)}
        slug = SLUG.sub("-", title.lower()).strip("-") or "plot"
        name = next(name for n in range(1, len(taken) + 2) if (name := slug if n == 1 else f"{slug}-{n}") not in taken)
        self.blocks.append(Plot(title, name, modest(png)))

    def write(self, folder: Path) -> None:
        """Write ``report.md`` with its ``plots/``, ``report.html`` and ``report.json`` into ``folder``, replacing older ones."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / PLOTS, ignore_errors=True)
        for block in self.blocks:
            if isinstance(block, Plot):
                (folder / PLOTS).mkdir(exist_ok=True)
                (folder / PLOTS / f"{block.name}.png").write_bytes(block.png)
        documents = {"report.md": self.markdown(), "report.html": self.html(), "report.json": self.json()}
        for name, document in documents.items():
            fresh = folder / f".{name}"
            fresh.write_text(document, "utf-8")
            fresh.replace(folder / name)

    def markdown(self) -> str:
        """The report as Markdown."""
        return "\n\n".join([f"# {self.title}", *map(_markdown, self.blocks)]) + "\n"

    def html(self) -> str:
        """The report as one HTML page that loads nothing."""
        headings = [block for block in self.blocks if isinstance(block, Heading)]
        links = "".join(f'<a href="#{_anchor(h.text)}">{html.escape(h.text)}</a>' for h in headings)
        body = "\n".join(map(_html, self.blocks))
        return PAGE.substitute(title=html.escape(self.title), links=links, body=body)

    def json(self) -> str:
        """The title, the figures, and every table, as JSON."""
        tables = [{"title": t.title, "columns": t.columns, "rows": t.rows} for t in self.blocks if isinstance(t, Table)]
        return json.dumps({"title": self.title, "figures": self.figures, "tables": tables}, indent=2, ensure_ascii=False) + "\n"


def shown(cell: object) -> str:
    """A cell's text: whole numbers with thousands set apart, other numbers with three digits, nothing as a dash."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def interval(low: float, high: float, digits: int = 3) -> str:
    """An interval as reports show it."""
    return f"{low:.{digits}f} to {high:.{digits}f}"


def modest(png: bytes) -> bytes:
    """The image no wider than a report needs, in few colours."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        plain = image.convert("RGB")
    if plain.width > WIDEST:
        plain = plain.resize((WIDEST, round(plain.height * WIDEST / plain.width)), Image.Resampling.LANCZOS)
    small = io.BytesIO()
    plain.quantize(COLOURS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return min(small.getvalue(), png, key=len) if plain.width <= WIDEST else small.getvalue()


def _anchor(text: str) -> str:
    return SLUG.sub("-", text.lower()).strip("-")


def _markdown(block: Heading | Text | Table | Plot) -> str:
    match block:
        case Heading(text):
            return f"## {text}"
        case Text(lines, is_list):
            return "\n".join(f"- {line}" for line in lines) if is_list else lines[0]
        case Plot(title, name, _):
            return f"![{title}]({PLOTS}/{name}.png)"
        case Table(title, columns, rows):
            rule = "|".join("---:" if numeric else "---" for numeric in block.numeric)
            marked = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in (columns, *rows)]
            return "\n".join([*([f"**{title}**", ""] if title else []), marked[0], f"|{rule}|", *marked[1:]])


def _html(block: Heading | Text | Table | Plot) -> str:
    match block:
        case Heading(text):
            return f'<h2 id="{_anchor(text)}">{html.escape(text)}</h2>'
        case Text(lines, is_list):
            return (
                f"<ul>{''.join(f'<li>{_marked(line)}</li>' for line in lines)}</ul>" if is_list else f"<p>{_marked(lines[0])}</p>"
            )
        case Plot(title, _, png):
            source = f"data:image/png;base64,{b64encode(png).decode()}"
            return (
                f'<figure><img src="{source}" alt="{html.escape(title)}"><figcaption>{html.escape(title)}</figcaption></figure>'
            )
        case Table(title, columns, rows):
            kinds = [' class="n"' if numeric else "" for numeric in block.numeric]
            head = "".join(f"<th{kind}>{_marked(cell)}</th>" for kind, cell in zip(kinds, columns, strict=True))
            body = "".join(
                f"<tr>{''.join(f'<td{kind}>{_marked(cell)}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>"
                for row in rows
            )
            caption = f"<caption>{html.escape(title)}</caption>" if title else ""
            return f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _marked(text: str) -> str:
    """Markdown's marks for strong words and code as HTML; everything else is shown as it stands."""
    safe = html.escape(text, quote=False)
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", re.sub(r"`(.+?)`", r"<code>\1</code>", safe))
