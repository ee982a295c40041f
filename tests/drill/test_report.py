"""The page a person reads must tell the truth, whatever it is given."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from localaws import report
from tests.drill import reports

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> {{ 7 * 7 }}"

VOID = {"meta", "br", "line", "rect", "img", "link"}


class Page(HTMLParser):
    """Collects tags and text, and sees that every tag is closed."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(content)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an opening tag."""
        self.tags.append(tag)
        self.attributes.extend(attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Match a closing tag."""
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect text."""
        self.text += data


def test_good_drill() -> None:
    """The page lacks what a reader looks for."""
    page = Page(report.render(reports.succeeded()))
    assert "Every table is back" in page.text
    for expected in ("local-licenses", "5,046", "other-team-mailer", "never touched", "untouched", "none reserved"):
        assert expected in page.text
    assert "<built-in method" not in page.text
    assert "2026-11-20 12:00:09" in page.text


def test_one_word_for_one_thing() -> None:
    """The page calls the restore point or the temporary table by another name than the runbooks do."""
    text = Page(report.render(reports.succeeded())).text
    for expected in ("Restore point (UTC)", "Digest of the temporary table", "Items before the damage"):
        assert expected in text
    for other in ("restore time", "Restored to", "restored copy", "admin"):
        assert other not in text


def test_expired_items_are_shown_where_there_are_any() -> None:
    """Items that TTL took are missing from the counts, and the page does not say why."""
    drill = reports.succeeded()
    assert "Expired since" not in Page(report.render(drill)).text
    drill["tables"][0]["expiredItems"] = 1234
    assert "Expired since1,234" in Page(report.render(drill)).text


def test_the_forecast_stands_beside_what_happened() -> None:
    """What was forecast is missing, or is mistaken for what happened; or a report without a forecast fails."""
    drill = reports.succeeded()
    text = Page(report.render(drill)).text
    rows = " ".join(text.split())
    for expected in ("Purge42 s8 s", "Write units15,13810,092", "Cost0.0191 USD1,234.50 USD", "Bound by: restore"):
        assert expected in rows
    for table in drill["tables"]:
        table.update(forecast=None, usd=None, phaseSeconds=None)
    assert "Forecast" not in Page(report.render(drill)).text


def test_timeline_fits_a_telephone() -> None:
    """On a narrow screen the end of the recovery lies outside the picture, and nothing says so."""
    page = Page(report.render(reports.succeeded()))
    assert page.tags.count("svg") == 2
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_failed_drill() -> None:
    """A failed drill looks like a good one, or breaks the page."""
    page = Page(report.render(reports.failed("Raise the capacity.")))
    assert "The drill failed" in page.text
    assert "Every table is back" not in page.text
    assert "CapacityExhausted" in page.text
    assert "Raise the capacity." in page.text
    assert "not equal" in page.text


def test_drill_that_never_got_anywhere() -> None:
    """The page cannot be made when it is needed most."""
    empty = reports.failed("x") | {
        "tables": [],
        "checks": [],
        "timeline": [],
        "error": "",
        "restoreDateTime": None,
        "recoverySeconds": None,
        "problems": ["The drill stopped: no such port"],
    }
    page = Page(report.render(empty))
    assert "no such port" in page.text
    assert "No table was reached." in page.text


def test_hostile_text_is_escaped() -> None:
    """A name or an error's cause becomes part of the page and runs."""
    hostile = reports.failed(HOSTILE)
    hostile["incidentId"] = hostile["command"] = hostile["error"] = HOSTILE
    hostile["tables"][0]["tableName"] = hostile["timeline"][0]["phase"] = HOSTILE
    hostile["tables"][0]["sourceDigest"] = HOSTILE
    hostile["functions"] = [reports.succeeded()["functions"][2] | {"name": HOSTILE, "before": HOSTILE}]
    page = Page(report.render(hostile))
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 5


def test_page_is_self_contained() -> None:
    """The page needs the network, and is blank where it is needed."""
    page = Page(report.render(reports.succeeded()))
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href")]


def test_both_files_are_written(tmp_path: Path) -> None:
    """Scripts and people read different results."""
    json_path, html_path = report.write(reports.succeeded(), tmp_path / "new")
    assert json.loads(json_path.read_text(encoding="utf-8")) == reports.succeeded()
    assert html_path.read_text(encoding="utf-8") == report.render(reports.succeeded())


@pytest.mark.parametrize("layout", [report.WIDE, report.NARROW], ids=lambda layout: layout.name)
def test_chart_stays_inside_its_frame(layout: report.Layout) -> None:
    """Bars leave the picture, cover a label, or the shortest phase cannot be seen."""
    chart = report.chart(reports.succeeded()["timeline"], layout)
    assert chart is not None
    assert len(chart.bars) == len(reports.succeeded()["timeline"])
    for bar in chart.bars:
        assert bar.x >= layout.bars_from
        assert bar.label_y < bar.y or bar.label_x < layout.bars_from
        assert bar.x + bar.width <= chart.width
        assert bar.width >= report.SHORTEST_BAR
        assert bar.y + bar.height <= chart.height
    tops = sorted(bar.y for bar in chart.bars)
    assert all(lower - upper >= layout.row_height for upper, lower in pairwise(tops))


def test_durations_in_words() -> None:
    """Rounding shows 60 s, or nothing as 0."""
    assert [report.seconds(each) for each in (0, 6, 0.0, 0.01, 9.94, 59.4, 60, 185, None)] == [
        "0 s",
        "6 s",
        "0.0 s",
        "< 0.1 s",
        "9.9 s",
        "59 s",
        "1 min 0 s",
        "3 min 5 s",
        "—",
    ]
