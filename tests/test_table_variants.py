"""Kinds of tables that people have: generated variants of each give what is right."""

import secrets
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))
try:
    import table_variants
    import variants
finally:
    sys.path.remove(str(SCRIPTS))

KINDS = variants.load_kinds()
QUICK = [title for title, kind in KINDS.items() if not kind.is_slow]
# variants of a quick kind in the quick tests; all of them in the slow ones, and by the script
N_QUICK = 50


@pytest.mark.parametrize("title", QUICK)
def test_variants_of_a_kind_give_what_is_right(title: str) -> None:
    assert table_variants.failures(KINDS[title], table_variants.SEED, N_QUICK) == []


@pytest.mark.slow
@pytest.mark.parametrize("title", KINDS)
def test_fresh_variants_of_a_kind_give_what_is_right(title: str) -> None:
    seed = secrets.randbelow(2**31)
    print(f"seed {seed}")
    assert table_variants.failures(KINDS[title], seed) == []


def test_the_document_holds_every_kind_and_no_other() -> None:
    written = table_variants.OUTPUT.read_text(encoding="utf-8")
    titles = [line.split(" | ")[0].removeprefix("| ") for line in written.splitlines() if line.startswith("| ")][1:]
    assert [title for title in titles if title != "---"] == list(KINDS)


def test_a_wrong_variant_is_seen(tmp_path: Path) -> None:
    def wrong(generator: object, folder: Path) -> None:
        raise AssertionError("wrong by value")

    kind = variants.Kind("broken", "nothing", wrong, is_slow=False, n_variants=2)
    found = table_variants.failures(kind, 0)
    assert len(found) == 2
    assert "wrong by value" in found[0]
