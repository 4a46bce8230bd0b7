"""One description, three renderers: they say the same, and nothing is cut or read as markup."""

import math

import pytest
from jinja2 import Environment, PackageLoader

from actlab.printed_tables import PrintedTable, TableColumn, as_markdown, as_text, number_cell, print_table, text_column

COLUMNS = (text_column("name"), TableColumn("score", ".2f"), TableColumn("n", ","), text_column("verdict"))
ROWS = [
    ("relu", 0.125, 12_345, "worse"),
    ("[bold]x[/bold]", None, number_cell(2, "2 of 5"), "<b>"),
    ("tanh", math.nan, math.inf, ""),
]


def table(note: str = "") -> PrintedTable:
    return PrintedTable.of(COLUMNS, ROWS, name="scores", note=note, bold=[0])


def as_html(table: PrintedTable) -> str:
    parts = Environment(loader=PackageLoader("actlab.report"), autoescape=True).get_template("parts.html")
    return str(parts.module.sheet(table))  # type: ignore[attr-defined]


def test_all_renderers_say_the_same() -> None:
    texts = [["relu", "0.12", "12,345", "worse"], ["[bold]x[/bold]", "-", "2 of 5", "<b>"], ["tanh", "-", "-", ""]]
    assert as_markdown(table()).splitlines() == [
        "| name | score | n | verdict |",
        "| --- | ---: | ---: | --- |",
        *(f"| {' | '.join(row)} |" for row in texts),
    ]
    head, _, *lines = as_text(table()).splitlines()
    assert head.split() == ["name", "score", "n", "verdict"]
    assert [line.split() for line in lines] == [" ".join(row).split() for row in texts]
    html = as_html(table())
    for row in texts:
        for text in row:
            assert text.replace("-", "–").replace("<", "&lt;").replace(">", "&gt;") in html


def test_a_page_sorts_by_value_and_puts_what_is_missing_last() -> None:
    html = as_html(table())
    assert '<td class="number" data-value="12345.0">12,345</td>' in html
    assert '<td class="number" data-value="">–</td>' in html
    assert html.count('class="winner"') == 1


def test_the_note_follows_and_a_column_can_be_left_out() -> None:
    assert as_text(table("what it means")).splitlines()[-1] == "what it means"
    kept = table("what it means").without("n", note="")
    assert [column.title for column in kept.columns] == ["name", "score", "verdict"]
    assert "12,345" not in as_text(kept)
    assert "means" not in as_text(kept)


@pytest.mark.parametrize("width", [30, 80])
def test_words_fold_and_numbers_do_not(width: int) -> None:
    long = PrintedTable.of((text_column("a"), TableColumn("b")), [("word " * 20, 1234567)])
    lines = as_text(long, width).splitlines()
    assert max(map(len, lines)) <= width
    assert "1234567" in lines[2]
    assert " ".join(lines).count("word") == 20


def test_where_there_is_no_terminal_lines_are_as_long_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(PrintedTable.of([text_column("a")], [("word-" * 60,)]))
    assert max(map(len, capsys.readouterr().out.splitlines())) == 300
