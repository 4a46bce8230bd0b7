"""The report of `actlab check` as text, for any width and any name."""

from pathlib import Path

import pytest

from actlab.data.check import check
from actlab.report.check_text import render_check
from actlab.settings import DataSettings


def write(folder: Path, content: str) -> str:
    path = folder / "table.csv"
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_suggested_targets_are_named_with_the_option(tmp_path: Path) -> None:
    path = write(tmp_path, "a,Price,c,b\n1,2,x,3\n2,3,y,5\n")
    assert "--target NAME (numeric: Price, b, a)" in render_check(check(DataSettings(csv=path)))


def test_with_a_target_it_says_which_difference_a_comparison_can_show(tmp_path: Path) -> None:
    path = write(tmp_path, "a,price\n1,2\n2,3\n")
    said = (
        "a comparison of 13 activations can show a difference, with 1040 networks after the sweep: about 3.1 % of the "
        "score on these rows; --compare.budget 4160: about 1.6 %"
    )
    assert said in render_check(check(DataSettings(csv=path, target="price")))
    assert "a comparison of" not in render_check(check(DataSettings(csv=path)))


def test_without_any_number_that_is_said(tmp_path: Path) -> None:
    assert "no numeric column" in render_check(check(DataSettings(csv=write(tmp_path, "a,b\nx,y\nz,w\n"))))


def test_warnings_and_dates_are_shown(tmp_path: Path) -> None:
    path = write(tmp_path, "d,k,t,price\n2024-01-31,1,1,2\n1999-12-31 06:00,1,2,3\n")
    text = render_check(check(DataSettings(csv=path, target="price", target_transform="none")))
    assert "1999-12-31T06:00:00 to 2024-01-31" in text
    assert "2 warnings\n" in text
    assert "column 'k' is the same in every row; left out" in text
    assert "training uses the plain value" in text


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_table_keeps_to_its_width_and_loses_nothing(tmp_path: Path, width: int) -> None:
    name = "a_very_long_name_" * 8
    path = write(tmp_path, f"{name},c,price\n1,{'category ' * 20},2\n2,z,3\n")
    text = render_check(check(DataSettings(csv=path, target="price")), width)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert max(map(len, rows)) <= width
    folded = "".join(line.split("|")[1].strip() for line in rows)
    assert name in folded


@pytest.mark.parametrize("name", ["[bold]x[/bold]", "<script>x</script>", "=1+1", ":smile:"])
def test_names_are_shown_as_they_are(tmp_path: Path, name: str) -> None:
    text = render_check(check(DataSettings(csv=write(tmp_path, f"{name},price\n1,2\n2,3\n"), target="price")))
    assert name in text


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = write(tmp_path, '"a\x1b[31m\nb",price\nx\x07,2\ny,3\n')
    text = render_check(check(DataSettings(csv=path, target="price")))
    assert all(line.isprintable() for line in text.splitlines())
    assert "a\\x1b[31m\\nb" in text


def test_on_a_terminal_sentences_are_wrapped_between_words(tmp_path: Path) -> None:
    path = write(tmp_path, "d,k,t,price\n01:30,1,1,2\n02:00,1,2,3\n")
    report = check(DataSettings(csv=path, target="price", target_transform="none"))
    text, wrapped = render_check(report, 80), render_check(report, 80, wraps=True)
    assert wrapped.split() == text.split()
    assert all(len(line) <= 80 or " " not in line.strip() for line in wrapped.splitlines())
    (row,) = [line for line in render_check(report, 200).splitlines() if line.startswith("| d ")]
    assert "duration, h:mm" in row
