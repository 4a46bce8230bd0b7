"""Promises of the repository itself: its make targets, its packages, its defaults and its texts."""

import dataclasses
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from actlab import settings

ROOT = Path(__file__).parents[1]
TARGETS = ["setup", "article", "train", "compare", "search", "report", "tensorboard", "predict", "test", "test-slow"]
TARGETS += ["check", "bench", "calibrate", "dashboard", "clean"]
REQUIRED = {"lightning", "torch", "torchmetrics", "pandas", "scikit-learn", "tensorboard", "optuna"}

# Joined here, so that this file does not contain what it looks for.
FOREIGN = {
    "a machine path": [
        "/" + "work" + "/",
        "/" + "root" + "/",
        "/" + "opt" + "/" + "pypi",
        "/" + "opt" + "/" + "wheels",
    ],
    "a registry host": [
        ".".join(parts)
        for parts in (
            ("pypi", "org"),
            ("files", "pythonhosted", "org"),
            ("registry", "npmjs", "org"),
            ("deb", "debian", "org"),
            ("proxy", "golang", "org"),
        )
    ],
    "a word of the place it was built at": ["work" + "place", "C" + "EO", "../" + "shared", "FACTS" + ".md"],
}


def run_make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # `make test` leaves its own flags in the environment: they must not reach the make that is tested.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment = {name: value for name, value in environment.items() if name not in {"ARGS", "RUN", "CONFIG"}}
    return subprocess.run(["make", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def bare_copy(tmp_path: Path) -> Path:
    """A folder with the files that make needs, without .venv."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_make_help_lists_every_target_in_order() -> None:
    done = run_make("help")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^  make ([a-z-]+) +\S", done.stdout, flags=re.MULTILINE) == TARGETS
    assert run_make().stdout == done.stdout


@pytest.mark.parametrize("target", [name for name in TARGETS if name not in {"setup", "clean"}])
def test_a_target_sets_up_first_where_there_is_no_venv(bare_copy: Path, target: str) -> None:
    done = run_make("--dry-run", target, "RUN=r", "CKPT=c", "INPUT=i", "OUTPUT=o", cwd=bare_copy)
    assert done.returncode == 0, done.stderr
    commands = done.stdout.splitlines()
    venv = next(number for number, line in enumerate(commands) if line.endswith("-m venv .venv"))
    assert venv < len(commands) - 1
    assert commands[-1].startswith(".venv/bin/")


@pytest.mark.parametrize(("target", "variable"), [("report", "RUN"), ("dashboard", "RUN"), ("predict", "CKPT")])
def test_a_missing_variable_is_named_before_anything_is_set_up(bare_copy: Path, target: str, variable: str) -> None:
    done = run_make(target, cwd=bare_copy)
    assert done.returncode == 2
    assert f"make {target} {variable}=" in done.stderr
    assert not (bare_copy / ".venv").exists()


def test_clean_removes_caches_and_keeps_results_and_data(bare_copy: Path) -> None:
    kept = ["runs/one/members.csv", "data/mine/mine.csv", "lightning_logs/version_0/metrics.csv", "src/actlab/cli.py"]
    removed = ["build/x", ".mypy_cache/x", "src/actlab.egg-info/x", "src/actlab/__pycache__/x", "tests/__pycache__/x"]
    for name in kept + removed:
        path = bare_copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (bare_copy / "scripts").mkdir()
    done = run_make("clean", cwd=bare_copy)
    assert done.returncode == 0, done.stderr
    assert all((bare_copy / name).exists() for name in kept)
    assert not any((bare_copy / name).parent.exists() for name in removed)


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def requirements(texts: list[str]) -> dict[str, Requirement]:
    return {requirement.name.lower(): requirement for requirement in map(Requirement, texts)}


def test_the_packages_it_stands_on_are_required() -> None:
    packages = requirements(project()["dependencies"])
    assert packages.keys() >= REQUIRED
    for malicious in ("2.6.2", "2.6.3"):
        assert not packages["lightning"].specifier.contains(malicious)


def test_every_required_package_is_pinned_once_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {}
    for pin in pins:
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(pin.specifier)), f"{pin} is no plain version"
        versions[pin.name.lower().replace("_", "-")] = str(pin.specifier).removeprefix("==")
    assert len(versions) == len(pins)
    assert versions["torch"] == "2.13.0"
    extras = project()["optional-dependencies"].values()
    for name, requirement in requirements(sum(extras, project()["dependencies"])).items():
        assert requirement.specifier.contains(versions[name]), f"{requirement} forbids the pinned {versions[name]}"


# Groups of keys and the class that holds their defaults.
HOMES = {
    "data": settings.DataSettings,
    "model": settings.ModelSettings,
    "optimizer": settings.OptimizerSettings,
    "compare": settings.ProtocolSettings,
}


def repeated_defaults(config: dict[str, Any]) -> list[str]:
    """Keys of a configuration that say again what their default says already."""
    found = []
    for group, home in HOMES.items():
        defaults = dataclasses.asdict(home())
        section = config.get(group, {})
        # a list of data sets has no defaults
        items = section.items() if isinstance(section, dict) else ()
        found += [f"{group}.{key}" for key, value in items if defaults.get(key, ...) == value]
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_a_configuration_states_differences_only(path: Path) -> None:
    assert repeated_defaults(yaml.safe_load(path.read_text(encoding="utf-8"))) == []


def test_a_repeated_default_is_found() -> None:
    config = {
        "data": {"batch_size": settings.DataSettings().batch_size, "csv": "a.csv"},
        "compare": {"folds": settings.ProtocolSettings().folds, "inner": 7, "activations": ["relu"]},
        "trainer": {"max_epochs": 3},
    }
    assert repeated_defaults(config) == ["data.batch_size", "compare.folds"]


def modules_of_tree(readme: str) -> list[str]:
    """Dotted names of the modules that the tree of the README names: package, names, a clause, two spaces between."""
    tree = readme.partition("src/actlab/\n")[2].partition("\nconfigs/")[0]
    package, found = "", []
    for line in tree.splitlines():
        names, *rest = re.split(r" {2,}", line.strip())
        if not line.startswith("   "):
            package = ""
        if names.endswith("/"):
            package, names = names.replace("/", "."), rest[0]
        found += [package + name for name in names.split(", ")]
    return found


def test_the_tree_of_the_readme_names_every_module_once() -> None:
    package = ROOT / "src" / "actlab"
    files = [path for path in package.rglob("*.py") if not path.stem.startswith("__")]
    modules = [".".join(path.relative_to(package).with_suffix("").parts) for path in files]
    assert sorted(modules_of_tree((ROOT / "README.md").read_text(encoding="utf-8"))) == sorted(modules)


def foreign_words(text: str) -> list[str]:
    """What a text says of the machine it was written on; a path or a word counts only where it starts one."""
    return [
        f"{kind}: {word}"
        for kind, words in FOREIGN.items()
        for word in words
        if re.search(r"(?<![\w.])" + re.escape(word), text)
    ]


def tracked_texts() -> dict[str, str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = {}
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            texts[name] = content.decode("utf-8", errors="replace")
    return texts


def test_no_tracked_text_names_the_machine_it_was_written_on() -> None:
    texts = tracked_texts()
    assert "pyproject.toml" in texts
    assert {name: found for name, text in texts.items() if (found := foreign_words(text))} == {}


@pytest.mark.parametrize("word", [word for words in FOREIGN.values() for word in words])
def test_a_foreign_word_is_found(word: str) -> None:
    assert foreign_words(f"see {word}") != []
    assert foreign_words(f"https://{word}/x" if "." in word and "/" not in word else f"'{word}x'") != []
    assert foreign_words("a network/worker of the workshop, opt/ and roots") == []
