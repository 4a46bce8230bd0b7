"""YAML files and flags to one configuration, or one for each of several data sets; complaints in one sentence."""

from pathlib import Path

import pytest
import yaml

from actlab.activations import ACTIVATIONS
from actlab.cli import OPTIONS, dispatch
from actlab.config import (
    Configuration,
    DataSets,
    Options,
    configure,
    differences,
    parse,
    parse_data,
    parse_data_sets,
    parse_table,
)
from actlab.errors import InputError
from actlab.run_files import to_yaml
from actlab.settings import CompareSettings, DataSettings, ModelSettings
from actlab.verdict.race import default_budget

CSV = ["--data.csv", "some.csv", "--data.target", "y"]


def test_without_flags_every_value_is_the_default_of_its_home() -> None:
    parsed = parse("compare", CSV)
    assert parsed.model == ModelSettings()
    assert parsed.compare == CompareSettings()
    assert parsed.trainer == Configuration().trainer
    assert parsed.name == "some"


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: {csv: a.csv, target: y}\nmodel: {dropout: 0.3, hidden: [8, 4]}\ntrainer: {max_epochs: 7}\n")
    parsed = parse("compare", ["--config", str(file), "--model.dropout", "0.2", "--seed", "5"])
    assert parsed.model == ModelSettings(dropout=0.2, hidden=[8, 4])
    assert parsed.trainer == {"max_epochs": 7}
    assert (parsed.seed, parsed.name) == (5, "mine")


def test_the_resolved_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    parsed = parse("compare", [*CSV, "--trainer.accelerator", "cpu", "--compare.folds", "3", "--seed", "2"])
    file = tmp_path / "some.yaml"
    file.write_text(to_yaml(parsed.to_dict()))
    assert parse("compare", ["--config", str(file)]) == parsed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.cvs", "x"], "data.cvs"),
        (["--compare.fold", "3"], "compare.fold"),
        (["--compare.folds", "one"], "compare.folds"),
        (["--compare.folds", "1"], "compare.folds must be at least 2, got folds=1"),
        (["--optimizer.learning_rate", "0"], "learning_rate must be > 0"),
        (["--compare.learning_rates", "[0.1, -1]"], "learning_rates must be > 0 and finite, got learning_rate=-1"),
        (["--compare.learning_rates", "[]"], "must name at least one value"),
        (["--compare.activations", "[relu, relu]"], "must not name a value twice"),
        (["--model.hidden", "[]"], "model.hidden"),
        (["--model.dropout", "1"], r"model.dropout must be in \[0, 1\)"),
        (["--search.learning_rate", "[0.1, 0.01]"], "lowest and the highest"),
        (["--data.scaling", "nonsense"], "data.scaling"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--ckpt_path", "best.ckpt"], "starts from drawn weights"),
        (["--trainer.precision", "16-mixed"], "bf16-mixed"),
    ],
)
def test_a_bad_key_or_value_is_one_sentence(flags: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse("compare", [*CSV, *flags])
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_a_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "typo.yaml"
    file.write_text("data: {csv: a.csv, target: y}\nmodell: {dropout: 0.3}\n")
    with pytest.raises(InputError, match="modell"):
        parse("compare", ["--config", str(file)])


@pytest.mark.parametrize("file", sorted(Path("configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid_and_its_data_are_there(file: Path) -> None:
    if (data_sets := parse_data_sets(["--config", str(file)])) is not None:
        for parsed in data_sets.configurations.values():
            assert Path(str(parsed.data.csv)).exists()
        return
    for command in ("compare", "search", "fit"):
        parsed = parse(command, ["--config", str(file)])
        assert parsed.data.csv is not None
        assert Path(parsed.data.csv).exists()
    assert parse_data(str(file)).target == yaml.safe_load(file.read_text())["data"]["target"]


def test_differences_name_the_keys_with_both_values() -> None:
    lines = differences({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "e": 4})
    assert lines == ["a.c: 2 -> 5", "d: 3 -> None", "e: None -> 4"]


def test_thorough_is_all_activations_at_eight_rates_with_four_repeats_and_inner_splits() -> None:
    grid = parse("compare", ["--config", "configs/thorough.yaml"]).compare
    assert set(grid.activations) == {row.name for row in ACTIVATIONS}
    assert (grid.protocol, len(grid.learning_rates), grid.repeats, grid.inner) == ("grid", 8, 4, 3)


def test_all_is_every_activation_by_name_in_what_a_run_keeps() -> None:
    names = [row.name for row in ACTIVATIONS]
    parsed = parse("search", [*CSV, "--compare.activations=all", "--search.activations", "all"])
    assert parsed.to_dict()["compare"]["activations"] == parsed.to_dict()["search"]["activations"] == names
    assert CompareSettings(activations=["relu", "all"]).activations == ["relu", "all"]
    with pytest.raises(InputError, match="activations"):
        parse("compare", [*CSV, "--compare.activations=every"])


def test_the_default_comparison_is_of_the_size_promised() -> None:
    grid = CompareSettings()
    assert len(grid.activations) >= 13
    assert "identity" in grid.activations
    assert len(grid.learning_rates) >= 5
    assert (min(grid.learning_rates), max(grid.learning_rates)) == (3e-4, 3e-2)
    splits = grid.splitting("compare")
    assert (splits.folds, splits.inner, splits.repeats) == (5, 1, 65)
    assert default_budget(splits.folds, len(grid.activations)) == 1040


@pytest.mark.parametrize("flags", [["--confirm"], ["--compare.confirm", "true"]])
def test_confirm_is_a_switch_of_compare(flags: list[str]) -> None:
    assert parse("compare", [*CSV, *flags]) == parse("compare", [*CSV, "--compare.confirm=true"])
    assert not parse("compare", CSV).compare.confirm


def test_confirm_is_no_switch_of_a_search() -> None:
    with pytest.raises(InputError, match="confirm"):
        parse("search", [*CSV, "--confirm"])


@pytest.mark.parametrize("command", ["validate", "test"])
def test_foreign_code_is_allowed_where_a_checkpoint_is_scored_and_is_no_part_of_a_run(command: str) -> None:
    assert not parse(command, CSV).allow_code
    allowed = parse(command, [*CSV, "--allow_code"])
    assert allowed.allow_code
    assert "allow_code" not in allowed.to_dict()
    with pytest.raises(InputError, match="allow_code"):
        parse("fit", [*CSV, "--allow_code"])


@pytest.mark.parametrize(
    "flags",
    [
        ["a.csv", "--target", "y", "--config", "mine.yaml"],
        ["--config", "mine.yaml", "--data.csv", "a.csv", "--data.target=y"],
        ["--config", "other.yaml", "--target=y", "--config", "mine.yaml", "a.csv"],
    ],
)
def test_check_takes_the_keys_of_the_data_over_those_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("data: {csv: b.csv, target: z, drop: [k]}\nmodel: {dropout: 0.3}\n")
    (tmp_path / "other.yaml").write_text("data: {drop: [k, m]}\n")
    monkeypatch.chdir(tmp_path)
    options = Options("check", "")
    for name, keywords in OPTIONS["check"].items():
        options.add(name, **keywords)
    asked = parse_table(options, [*flags, "--data.na_values", '["", "-"]', "--id", "key"])
    assert asked.data == DataSettings("a.csv", "y", "key", drop=["k"], na_values=["", "-"])


@pytest.mark.parametrize("data", ["{}", "null", "[a.yaml, b.yaml]", "3"])
def test_a_file_without_one_data_set_is_told_in_a_sentence(tmp_path: Path, data: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"data: {data}\n")
    with pytest.raises(InputError, match=r"data\.csv|lists several|keys with values"):
        dispatch(["article", "--config", str(file)])


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


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("ordinal: {exposure: [No, Mn, Av, Gd]}", ["data.ordinal, exposure", "got False", "quotes"]),
        ("na_values: [No]", ["data.na_values", "got False", "quotes"]),
        ("na_values: {exposure: [~]}", ["data.na_values, exposure", "got None", "quotes"]),
        ("categorical: [Yes]", ["data.categorical must be str, got True", "quotes"]),
        ("formats: {area: comma}", ["data.formats must be one of 'decimal_point'", "got comma"]),
    ],
)
def test_a_word_that_yaml_takes_for_something_else_is_said(tmp_path: Path, body: str, words: list[str]) -> None:
    (tmp_path / "c.yaml").write_text(f"data:\n  csv: x.csv\n  {body}\n")
    with pytest.raises(InputError) as caught:
        configure("compare", ["--config", str(tmp_path / "c.yaml")])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_texts_of_cells_are_texts_whatever_yaml_makes_of_them(tmp_path: Path) -> None:
    body = "na_values: {'*': [-999, '?'], a: -1.0}\n  ordinal: {b: [1, 2, 'No']}\n  formats: {'*': day_first}"
    (tmp_path / "c.yaml").write_text(f"data:\n  {body}\n")
    data = configure("compare", ["--config", str(tmp_path / "c.yaml")]).data
    assert data.na_values == {"*": ["-999", "?"], "a": ["-1.0"]}
    assert [data.na_values_of(name) for name in ("a", "b", None)] == [["-1.0"], ["-999", "?"], ["-999", "?"]]
    assert data.ordinal == {"b": ["1", "2", "No"]}
    flags = ["--data.na_values", "[-999, '']", "--data.formats", "{x: decimal_comma}"]
    data = configure("compare", flags).data
    assert (data.na_values, data.formats) == (["-999", ""], {"x": "decimal_comma"})
