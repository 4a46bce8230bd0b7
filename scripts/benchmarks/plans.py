"""How much of everything is measured: a smoke test, a quick run, and a full one."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from actlab.config import Configuration, parse
from benchmarks.tasks import Task, article_task, comparison_task

HOUSE_PRICES = ("data/house_prices/train.csv", "SalePrice")


@dataclass(frozen=True)
class Plan:
    """How much of everything is measured.

    Args:
        config: The comparison that is timed as a command, and whose members are the second task.
        rounds: Rounds of each measurement.
        contests: Rounds of the contestants; more, for those that take seconds vary most.
        networks: Networks that each contestant trains in a round, for the article's task and the comparison's.
        sample: Members of the comparison that Lightning and processes train, to be scaled.
        commands: Rounds of the comparison as a command.
        search_trials: Trials of a search.
        search_folds: Splits that every trial is trained on.
        search_epochs: Longest training in a search.
        limit_members: Sizes of the populations that are measured against the limits.
        limit_epochs: Their epochs.
        phase_members: Sizes of the populations whose time is divided up.
        epochs: Epochs of the populations whose time is divided up.
        starts: Rounds of the start-up.
        large: Rows and columns of the large CSV; None leaves it out.
        flags: More arguments of the comparison.
    """

    config: str
    rounds: int
    contests: int
    networks: Mapping[str, tuple[int, int]]
    sample: int
    commands: int
    search_trials: int
    search_folds: int
    search_epochs: int
    limit_members: tuple[int, ...]
    limit_epochs: int
    phase_members: tuple[int, ...]
    epochs: int
    starts: int
    large: tuple[int, int] | None
    flags: tuple[str, ...] = ()


DEFAULT = "configs/house_prices.yaml"
LARGE = (1_000_000, 100)
EVERYONE = ("plain", "plain_fused", "lightning", "processes", "scikit_learn", "skorch", "vmap", "actlab_1")
PLANS = {
    "smoke": Plan(
        config="configs/quick.yaml",
        rounds=1,
        contests=1,
        networks={**dict.fromkeys(EVERYONE, (1, 1)), "actlab": (4, 2)},
        sample=2,
        commands=1,
        search_trials=2,
        search_folds=2,
        search_epochs=1,
        limit_members=(2,),
        limit_epochs=2,
        phase_members=(2,),
        epochs=2,
        starts=1,
        large=None,
        flags=("--compare.activations", "[relu]", "--compare.folds", "2", "--trainer.max_epochs", "1"),
    ),
    "quick": Plan(
        config=DEFAULT,
        rounds=3,
        contests=5,
        networks={
            "plain": (6, 13),
            "plain_fused": (6, 13),
            "lightning": (3, 6),
            "processes": (12, 26),
            "scikit_learn": (4, 13),
            "skorch": (3, 6),
            "vmap": (64, 20),
            "actlab_1": (6, 13),
            "actlab": (64, 130),
        },
        sample=13,
        commands=3,
        search_trials=100,
        search_folds=2,
        search_epochs=30,
        limit_members=(8, 32, 64, 512),
        limit_epochs=8,
        phase_members=(8, 64, 512),
        epochs=4,
        starts=4,
        large=LARGE,
    ),
    "full": Plan(
        config=DEFAULT,
        rounds=5,
        contests=7,
        networks={
            "plain": (12, 26),
            "plain_fused": (12, 26),
            "lightning": (4, 13),
            "processes": (24, 52),
            "scikit_learn": (8, 26),
            "skorch": (4, 13),
            "vmap": (128, 60),
            "actlab_1": (8, 26),
            "actlab": (64, 130),
            "actlab_650": (650, 650),
        },
        sample=26,
        commands=3,
        search_trials=100,
        search_folds=5,
        search_epochs=30,
        limit_members=(8, 32, 64, 512),
        limit_epochs=12,
        phase_members=(8, 64, 512),
        epochs=10,
        starts=10,
        large=LARGE,
    ),
}


class Bench:
    """One run: its plan, and what sections share."""

    def __init__(self, mode: str) -> None:
        self.mode, self.plan = mode, PLANS[mode]

    @property
    def is_smoke(self) -> bool:
        return self.mode == "smoke"

    @cached_property
    def configuration(self) -> Configuration:
        return parse("compare", ["--config", self.plan.config, *self.plan.flags])

    @cached_property
    def tasks(self) -> dict[str, Task]:
        article = article_task(*HOUSE_PRICES, 650, 1 if self.is_smoke else 10)
        return {"article": article, "comparison": comparison_task(self.configuration)}
