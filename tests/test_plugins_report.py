"""The plugin ``report``: rows, files and the page, without an engine."""

from __future__ import annotations

import csv
import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigger_mp.plugins.report import JOURNAL, Report, write_report
from rigger_mp.plugins.report_html import LIMIT, MOST_COMPLEX, render
from rigger_mp.plugins.report_rows import BINS, FunctionRow, Session, TestRow, histogram, make_report

SESSION = Session("2020-01-01T00:00:00+00:00", "2020-01-01T00:01:00+00:00", 60.0)
VOID = {"meta"}


class Page(HTMLParser):
    """Parses a page strictly: every element is closed, in order; keeps the text of cells and tiles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[int] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(len(self.texts))
            self.texts.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.texts[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            tag, text = self.texts[self.open[-1]]
            self.texts[self.open[-1]] = (tag, text + data)

    def all(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    @property
    def tiles(self) -> dict[str, str]:
        return dict(zip(self.all("dt"), self.all("dd"), strict=True))


class Fired:
    """Stands in for the engine: keeps what an instance fires."""

    def __init__(self) -> None:
        self.hooks: list[tuple[str, dict[str, Any]]] = []

    def fire_hook(self, hook: str, /, **kwargs: Any) -> None:
        self.hooks.append((hook, kwargs))

    def log_message(self, message: object) -> None:
        raise AssertionError(message)


def entry(*numbers: int) -> dict[str, Any]:
    """Return what the measuring plugins leave of a file with functions of these complexities."""
    functions = tuple((f"f{line}", line, number) for line, number in enumerate(numbers, 1))
    measured = {"functions": functions, "max": max(numbers, default=0), "total": sum(numbers)}
    return {"complexity": measured, "checksum": {"sha256": "00ff", "bytes": 1000, "compressed": 250}}


texts = st.text(st.characters(), max_size=30)
entries = st.one_of(
    st.lists(st.integers(1, 90), max_size=5).map(lambda numbers: entry(*numbers)),
    st.just({"checksum": {"sha256": "ab", "bytes": 1, "compressed": 60}}),
    texts.map(lambda error: {"error": error}),
)
tests = st.lists(st.builds(TestRow, texts, texts, texts, st.none() | st.floats(0, 1e6), texts), max_size=4)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def as_csv_shows(value: object) -> str:
    return "" if value is None else str(value).encode("utf-8", "backslashreplace").decode()


@given(files=st.dictionaries(texts, entries, max_size=6), tests=tests)
def test_json_csv_and_page_agree_whatever_the_texts_are(tmp_path_factory: Any, files: Any, tests: Any) -> None:
    directory = tmp_path_factory.mktemp("report")
    report = make_report(SESSION, files, tests)
    written = write_report(report, directory)
    data = json.loads(Path(written["html"]).with_name("report.json").read_text(encoding="utf-8"))
    for name in ("files", "functions", "tests"):
        expected = [{key: as_csv_shows(value) for key, value in row.items()} for row in data[name]]
        assert read_csv(directory / f"{name}.csv") == expected
    assert [row["path"] for row in data["files"]] == sorted(files)
    page = Page((directory / "report.html").read_text(encoding="utf-8"))
    assert data["summary"]["files"] == len(files)
    of_files = {
        "Files": str(len(files)),
        "Not parsed": str(sum("complexity" not in entry for entry in files.values())),
        "Functions": str(len(data["functions"])),
    }
    if tests and not files:  # a page about tests does not tell of the files that nobody audited
        assert page.tiles == {"Tests": str(len(tests))}
        assert page.all("h1") == ["Test report"]
    else:
        assert page.tiles | of_files == page.tiles
        assert page.all("h1") == ["Audit report"]


@given(st.lists(st.integers(1, 200)))
def test_every_function_is_in_one_bin(numbers: list[int]) -> None:
    bins = histogram([FunctionRow("a", 1, "f", number) for number in numbers])
    assert [ends for ends, _ in bins] == list(BINS)
    assert sum(count for _, count in bins) == len(numbers)
    for (low, high), count in bins:
        assert count == sum(low <= number and (high is None or number <= high) for number in numbers)


def test_a_report_sums_up_and_puts_the_most_complex_functions_first() -> None:
    report = make_report(SESSION, {"b.py": entry(3, 12), "a.py": entry(12), "bad.py": {"error": "why"}}, ())
    assert [(row.complexity, row.path, row.line) for row in report.functions] == [
        (12, "a.py", 1),
        (12, "b.py", 2),
        (3, "b.py", 1),
    ]
    assert [(row.path, row.error) for row in report.not_parsed] == [("bad.py", "why")]
    assert report.summary == {
        "files": 3,
        "not_parsed": 1,
        "functions": 3,
        "max_complexity": 12,
        "mean_complexity": 9.0,
        "bytes": 2000,
        "compressed": 500,
        "tests": 0,
    }


def test_a_file_that_only_has_a_checksum_is_listed_as_not_parsed() -> None:
    report = make_report(SESSION, {"a.py": {"checksum": {"sha256": "ab", "bytes": 5, "compressed": 60}}}, ())
    (row,) = report.not_parsed
    assert (row.bytes, row.sha256, row.error) == (5, "ab", "no complexity was measured")


def test_the_page_shows_tiles_chart_and_tables() -> None:
    page = Page(render(make_report(SESSION, {"a.py": entry(1, 1, 4, 30), "bad.py": {"error": "why not"}}, ())))
    assert page.tiles == {
        "Files": "2",
        "Not parsed": "1",
        "Functions": "4",
        "Mean complexity": "9.00",
        "Highest complexity": "30",
        "Size": "1,000 B",
        "Compresses to": "25%",
    }
    assert page.all("h2") == ["Complexity of functions", "Most complex functions", "Files not parsed"]
    assert page.all("td")[:4] == ["30", "f4", "a.py", "4"]
    assert page.all("td")[-2:] == ["bad.py", "why not"]
    assert page.all("text") == [
        *("1", "2", "2", "0", "3", "0", "4", "1", "5", "0"),
        *("6 to 10", "0", "11 to 20", "0", "21 to 50", "1", "51 and more", "0"),
    ]
    widths = [float(attributes["width"] or 0) for tag, attributes in page.elements if tag == "rect"]
    assert widths == [520, 0, 0, 260, 0, 0, 0, 260, 0]


def test_a_bar_of_one_function_among_thousands_is_still_seen() -> None:
    page = Page(render(make_report(SESSION, {"a.py": entry(*[1] * 5000, 60)}, ())))
    widths = [float(attributes["width"] or 0) for tag, attributes in page.elements if tag == "rect"]
    assert widths[-1] == 2


def test_the_page_loads_nothing_and_is_readable_in_light_and_dark() -> None:
    text = render(make_report(SESSION, {"a.py": entry(1)}, ()))
    page = Page(text)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object"}
    assert not {name for _, attributes in page.elements for name in attributes} & {"src", "href"}
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert any(attributes.get("content", "").startswith("default-src 'none'") for _, attributes in page.elements)


EVIL = '<script>alert("1")</script>&amp;\'"'


def test_no_text_becomes_markup() -> None:
    measured = entry(3)
    measured["complexity"]["functions"] = ((EVIL, 1, 3),)
    row = TestRow(EVIL, EVIL, EVIL, 0.5, EVIL)
    files = {EVIL: measured, f"{EVIL}.py": {"error": EVIL}}
    page = Page(render(make_report(Session(EVIL, EVIL, None), files, [row])))
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.all("td").count(EVIL) == 8
    assert EVIL in page.all("p")[0]


def test_a_name_that_is_not_utf_8_is_shown_in_every_file(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\x01.py")
    write_report(make_report(SESSION, {name: {"error": "why"}}, ()), tmp_path)
    assert Page((tmp_path / "report.html").read_text("utf-8")).all("td")[0] == "caf\\udce9\\x01.py"
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["files"][0]["path"] == name
    assert read_csv(tmp_path / "files.csv")[0]["path"] == "caf\\udce9\x01.py"


def test_long_tables_end_with_where_the_rest_is() -> None:
    files = {"a.py": entry(*[2] * (MOST_COMPLEX + 1))}
    files |= {f"bad{number}": {"error": "why"} for number in range(LIMIT + 1)}
    page = Page(render(make_report(SESSION, files, ())))
    assert page.all("p")[1:] == ["1 more are in functions.csv.", "1 more are in files.csv."]
    assert len(page.all("tr")) == 2 + MOST_COMPLEX + LIMIT


def test_an_empty_report_says_so_and_has_headed_tables(tmp_path: Path) -> None:
    write_report(make_report(Session("", "2020", None), None, ()), tmp_path)
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert page.tiles == {"Files": "0", "Not parsed": "0", "Functions": "0"}
    assert page.all("p") == ["Finished 2020", "Nothing was audited and no test was run in this session."]
    assert (tmp_path / "tests.csv").read_bytes() == b"name,location,result,duration,longrepr\r\n"


def test_a_session_is_written_where_the_configuration_says_and_then_archived(tmp_path: Path) -> None:
    fired = Fired()
    report = Report("r", {"directory": str(tmp_path / "deep" / "audit")}, fired)
    report.start_session()
    report.finish_test("t1", "tests/a.py", "passed", 0.25)
    report.finish_test("t2", test_result="failed", duration=1, longrepr="assert 1 == 2")
    _, update = report.finish_session({"a.py": entry(2)})
    directory = str(tmp_path / "deep" / "audit")
    assert update["report"] == {
        "rows": 1,
        "not_parsed": 0,
        "functions": 1,
        "tests": 2,
        "directory": directory,
        "html": f"{directory}/report.html",
        "json": f"{directory}/report.json",
        "csv": tuple(f"{directory}/{name}.csv" for name in ("files", "functions", "tests")),
    }
    assert fired.hooks == [("archive_session", {"directory": directory})]
    data = json.loads(Path(update["report"]["json"]).read_text("utf-8"))
    assert data["test_results"] == {"passed": 1, "failed": 1}
    assert data["session"]["started"] <= data["session"]["finished"]
    assert data["session"]["seconds"] >= 0
    page = Page(Path(update["report"]["html"]).read_text("utf-8"))
    assert page.tiles["Tests"] == "2"
    assert page.all("td")[-5:] == ["failed", "t2", "", "1.000", "assert 1 == 2"]


def test_a_new_session_forgets_the_tests_of_the_last(tmp_path: Path) -> None:
    report = Report("r", {"directory": str(tmp_path)}, Fired())
    report.finish_test("t1")
    report.start_session()
    report.finish_test("t2")
    _, update = report.finish_session()
    assert [row["name"] for row in read_csv(Path(update["report"]["csv"][2]))] == ["t2"]


def test_a_killed_process_takes_no_test_with_it(tmp_path: Path) -> None:
    killed = Report("r", {"directory": str(tmp_path)}, Fired())
    killed.start_session()
    killed.finish_test("t1", test_result="passed", longrepr="\udc80")
    with (tmp_path / JOURNAL).open("a", encoding="ascii") as journal:
        journal.write('\n["cut sho')
    successor = Report("r", {"directory": str(tmp_path)}, Fired())
    successor.finish_test("t2", test_result="passed")
    _, update = successor.finish_session()
    data = json.loads(Path(update["report"]["json"]).read_text("utf-8"))
    assert [row["name"] for row in data["tests"]] == ["t1", "t2"]
    assert data["session"]["started"]
    assert not (tmp_path / JOURNAL).exists()


def test_tests_that_passed_are_counted_and_not_listed() -> None:
    page = Page(render(make_report(SESSION, {}, [TestRow("t", "", "passed", None, "")] * 3)))
    assert page.all("h2") == ["Tests"]
    assert page.all("td") == ["passed", "3"]


def test_a_duration_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="soon"):
        Report("r", {}, Fired()).finish_test("t", duration="soon")  # type: ignore[arg-type]


def test_the_report_keeps_audits_concurrent() -> None:
    assert set(Report("r", {}).callbacks) == {"start_session", "finish_test", "finish_session"}
