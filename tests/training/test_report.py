"""Reports: the same content in three files, nothing to fetch, nothing half-written."""

from __future__ import annotations

import io
import json
import re
from base64 import b64decode
from pathlib import Path

import pytest
from PIL import Image

from training.report import Report, shown


def png(width: int = 40, height: int = 20) -> bytes:
    out = io.BytesIO()
    Image.radial_gradient("L").resize((width, height)).convert("RGB").save(out, "PNG")
    return out.getvalue()


def width(file: Path) -> int:
    with Image.open(file) as image:
        return image.width


@pytest.fixture
def report() -> Report:
    made = Report("Ranks & <bases>")
    made.heading("What was found")
    made.text("LoRA is **smaller** than `full` <script>alert(1)</script>.")
    made.points(["one | two", "three"])
    made.table(["variant", "accuracy", "parameters"], [["r|8", 0.71234, 887_811], ["full", None, 124_647_939]], "All of them")
    made.plot(png(), "Size against accuracy")
    made.plot(png(3000, 300), "Size against accuracy")
    made.figures["accuracy"] = 0.71234
    return made


def test_markdown_refers_to_its_plots_beside_it(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "## What was found" in text and "- one | two\n- three" in text
    assert "| variant | accuracy | parameters |\n|---|---:|---:|\n| r\\|8 | 0.712 | 887,811 |\n| full | – | 124,647,939 |" in text
    names = re.findall(r"!\[Size against accuracy\]\((.+?)\)", text)
    assert names == ["plots/size-against-accuracy.png", "plots/size-against-accuracy-2.png"]
    assert [width(tmp_path / name) for name in names] == [40, 1400]


def test_the_page_holds_everything_and_runs_nothing(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    files = ["size-against-accuracy.png", "size-against-accuracy-2.png"]
    assert [b64decode(source) for source in sources] == [(tmp_path / "plots" / name).read_bytes() for name in files]
    assert "http" not in page and "<script" not in page and "<title>Ranks &amp; &lt;bases&gt;</title>" in page
    assert "<strong>smaller</strong> than <code>full</code> &lt;script&gt;" in page
    assert '<td class="n">887,811</td>' in page and "prefers-color-scheme: dark" in page


def test_json_has_the_figures_and_every_table(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path)
    read = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert read["figures"] == {"accuracy": 0.71234}
    assert read["tables"][0]["rows"][0] == ["r|8", "0.712", "887,811"]


def test_a_second_report_replaces_the_first(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path)
    Report("Empty").write(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]
    assert (tmp_path / "report.md").read_text("utf-8") == "# Empty\n"


def test_cells() -> None:
    assert [shown(cell) for cell in (None, True, 1234, 0.5, 12345.0, "r=8")] == ["–", "yes", "1,234", "0.5", "1.23e+04", "r=8"]
