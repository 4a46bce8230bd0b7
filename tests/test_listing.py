"""Several data sets: which configuration each gets, and what is refused with the reason."""

from pathlib import Path

import pytest

from actlab.config import DataSets, parse_data_sets
from actlab.errors import InputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two data sets, a.yaml and b.yaml, in the current directory."""
    (tmp_path / "a.yaml").write_text(
        "data: {csv: a.csv, target: y, scaling: standard}\nmodel: {dropout: 0.3}\nseed: 7\n"
    )
    (tmp_path / "b.yaml").write_text("data: {csv: b.csv, target: z}\nout: elsewhere\nworkers: 9\njson: true\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parsed(*arguments: str) -> DataSets:
    data_sets = parse_data_sets(list(arguments))
    assert data_sets is not None
    return data_sets


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", "a.yaml", "b.yaml"],
        ["--data", "[a.yaml, b.yaml]"],
        ["--data=[a.yaml, b.yaml]"],
        ["--config", "list.yaml"],
        ["--config=list.yaml"],
    ],
)
def test_every_spelling_of_the_list_is_the_same(folder: Path, arguments: list[str]) -> None:
    (folder / "list.yaml").write_text("data: [a.yaml, b.yaml]\n")
    found = parsed(*arguments, "--seed", "1")
    assert found.configurations == parsed("--data", "a.yaml", "b.yaml", "--seed", "1").configurations
    assert found.name == ("list" if "--config" in arguments[0] else "a-b")


def test_listed_files_bring_their_groups_keys_beside_the_list_win_and_flags_win_over_all(folder: Path) -> None:
    (folder / "list.yaml").write_text(
        "data: [a.yaml, b.yaml]\nmodel: {hidden: [4]}\noptimizer: {patience: 3, learning_rate: 1e-2}\nseed: 5\n"
    )
    # before or after the file makes no difference
    found = parsed("--optimizer.patience", "2", "--config", "list.yaml", "--compare.folds", "3")
    a, b = found.configurations["a"], found.configurations["b"]
    assert (a.data.csv, a.data.scaling, b.data.csv, b.data.scaling) == ("a.csv", "standard", "b.csv", "robust")
    assert (a.model.dropout, b.model.dropout) == (0.3, 0)
    for each in (a, b):
        assert (each.model.hidden, each.optimizer.learning_rate, each.optimizer.patience) == ([4], 0.01, 2)
        assert (each.seed, each.compare.folds) == (5, 3)


def test_where_it_writes_and_who_works_belong_to_the_whole(folder: Path) -> None:
    found = parsed("--data", "a.yaml", "b.yaml", "--workers", "2")
    assert {(each.out, each.workers, each.json) for each in found.configurations.values()} == {(None, 2, False)}


def test_files_are_looked_for_beside_the_list_first(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub/list.yaml").write_text("data: [a.yaml, b.yaml]\n")
    (folder / "sub/a.yaml").write_text("data: {csv: near.csv, target: y}\n")
    found = parsed("--config", "sub/list.yaml")
    assert [each.data.csv for each in found.configurations.values()] == ["near.csv", "b.csv"]


def test_the_configuration_of_a_run_is_called_as_the_run(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text(f"data: {{csv: {name}.csv, target: y}}\nout: {name}\n")
    assert list(parsed("--data", "one/config.yaml", "two/config.yaml").configurations) == ["one", "two"]


def test_one_data_set_is_no_list(folder: Path) -> None:
    assert parse_data_sets(["--config", "a.yaml", "--seed", "1"]) is None
    assert parse_data_sets(["--data.csv", "a.csv"]) is None
    assert parse_data_sets(["--data", "a.yaml"]) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--data", "[a.yaml]"],
            "lists one data set: the Friedman test and the critical .* need at least 2",
        ),
        (["--data", "[]"], "lists no data set"),
        (["--data", "a.yaml", "./a.yaml"], "lists ./a.yaml twice"),
        (["--data", "a.yaml", "c.yaml"], "lists c.yaml, which is not there"),
        (["--data", "a.yaml", "empty.yaml"], "empty.yaml names no data.csv"),
        (["--data", "a.yaml", "list.yaml"], "list.yaml names no data.csv"),
        (["--data", "a.yaml", "b.csv"], "b.csv is a table"),
        (["--data", "[a.yaml, 3]"], "paths of configuration files, got 3"),
        (["--data", "a.yaml", "sub/a.yaml"], "would both be called a"),
        (["--data", "a.yaml", "figures.yaml"], "would be called figures"),
        (["--data", "a.yaml", "typo.yaml"], "typo.yaml: .*modle"),
        (["--data", "a.yaml", "b.yaml", "--modle", "1"], "modle"),
        (["--data", "a.yaml", "b.yaml", "--data.csv=c.csv"], "--data.csv is about one table"),
        (["--data", "a.yaml", "b.yaml", "--config", "a.yaml"], "data.csv in a.yaml is about one table"),
        (["--data", "a.yaml", "b.yaml", "--config", "list.yaml"], "listed more than once"),
        (["--data", "a.yaml", "b.yaml", "--compare.folds", "1"], "compare.folds must be at least 2"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "sub").mkdir()
    for name in ("sub/a", "figures"):
        (folder / f"{name}.yaml").write_text("data: {csv: c.csv, target: y}\n")
    (folder / "typo.yaml").write_text("data: {csv: c.csv, target: y}\nmodle: {dropout: 0.1}\n")
    (folder / "empty.yaml").write_text("model: {dropout: 0.1}\n")
    (folder / "list.yaml").write_text("data: [a.yaml, b.yaml]\n")
    with pytest.raises(InputError, match=message) as caught:
        parsed(*arguments)
    assert "\n" not in str(caught.value)
