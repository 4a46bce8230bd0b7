"""Every default of actlab, in one place: the groups of keys that a YAML file and the dotted flags share.

A group is a frozen dataclass; the parser reads its fields, YAML files state differences only.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from actlab.activations import ACTIVATIONS
from actlab.errors import InputError

Scaling = Literal["robust", "standard", "minmax"]
TargetTransform = Literal["log", "log1p", "none"]
DatePart = Literal["days", "hour", "weekday", "yearday"]
Schedule = Literal["constant", "cosine"]
WrittenFormat = Literal["decimal_point", "decimal_comma", "day_first", "month_first"]
# texts that mean "missing" where nothing else is said
NA_VALUES = ["", "NA", "N/A", "#N/A", "NaN", "nan", "NULL", "null"]

if TYPE_CHECKING:
    ActivationNames = list[str]
    Names = list[str]
    CellTexts = list[str]
    ByColumn = list[str] | dict[str, list[str]]
else:
    # what may be written; settings hold a list
    ActivationNames = list[str] | Literal["all"]
    Names = list[str] | str
    # of a text YAML may make a number, or worse
    CellText = str | int | float | bool | None
    CellTexts = list[CellText]
    ByColumn = list[CellText] | dict[str, list[CellText] | CellText] | CellText

# level of every test
ALPHA = 0.05


def require(is_met: bool, rule: str, **values: Any) -> None:
    """Raise an `InputError` that states the rule and the offending value unless `is_met`."""
    if not is_met:
        shown = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise InputError(f"{rule}, got {shown}")


def _require_at_least(least: int, section: str, settings: Any, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        require(value >= least, f"{section}.{name} must be at least {least}", **{name: value})


# what is said where YAML may have made something else of a word
YAML_WORDS = "YAML takes No and Off for False, Yes and On for True, ~ for None: put such a text in quotes"


def _texts(key: str, written: object) -> list[str]:
    """A list of cell texts, or a single one, of which YAML made what it likes; an `InputError` where a text is lost."""
    texts = written if isinstance(written, list) else [written]
    for text in texts:
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise InputError(f"{key} must be a list of texts, got {text!r} ({YAML_WORDS})")
    return [str(text) for text in texts]


@dataclass(frozen=True)
class DataSettings:
    """Where the table is and how its columns are read.

    Args:
        csv: Path of the table: a CSV or other text, Parquet, Feather or Excel, also packed; `-` is standard input, and
            FILE#PART a sheet of a workbook or a file of an archive.
        target: Name of the numeric column to predict.
        id: Name of a column that identifies rows; it is never a feature. Found by itself when not given.
        categorical: Columns to treat as categories whatever they look like (integer codes, say).
        numeric: Columns to treat as numbers whatever they look like.
        ordinal: Column to its categories from lowest to highest; each becomes one number, its rank.
        groups: Column or columns whose rows belong together where they are equal in all of them (a person, a site, a
            mix): no group is in two parts of any split. A single one is no feature unless `categorical`, `numeric` or
            `ordinal` names it; several stay features.
        weight: Column that says how much a row counts in losses, scores, tests of differences and references; it is no
            feature. A whole number counts as so many equal rows, and rows of weight 0 are left out.
        fold: Column with the outer test fold of each row; its values take the place of `compare.folds`.
        time: Column of dates or numbers that says when a row is from: networks train on earlier rows, validate and are
            tested on later ones, in windows that expand.
        test_csv: File of further rows, with their target. It enters no choice and is scored once, at the end, by the
            shipped model and the references.
        duplicates: Rows that are equal in all features are kept in one part of every split: `together`; `apart` splits
            them like any rows, and `auto` does where they are repeated measurements at most combinations of few values.
        max_categories: A column with more categories becomes one number, the mean target of a category's training rows.
        dates: Column of dates to the parts that it is turned into: `days` (since 1970), `hour`, `weekday`, `yearday`;
            `"*"` stands for all others. Where not given, those in which its dates differ and that come round again.
        drop: Column or columns to leave out.
        na_values: Cell texts that mean "missing"; -999 is -999.0, too. In a column that is numbers or dates otherwise,
            so do `?`, `-`, `.`, `n/a`, `None`, `NaT`, `<NA>` and `unknown`. Everything else is a value. By column,
            each with a list, where they differ (`*`: all other columns).
        formats: Column to how its numbers or dates are written, where it does not show: `decimal_point`,
            `decimal_comma`, `day_first` or `month_first` (`*`: all other columns).
        missing_target: Whether rows without a target are refused, or dropped.
        target_transform: `log` trains on the natural logarithm and scores log-RMSE; `log1p` takes that of 1 + the
            target, which may be 0 (counts), and scores RMSLE; `none` trains on the plain target and scores RMSE.
        scaling: `robust` (median and quartiles), `standard` (mean and standard deviation) or `minmax`.
        log_skewed: Take log(1 + x / s) of non-negative numeric columns with heavy right skew, s the 1 % quantile
            of the positive training values.
        smooth_clip: Bound far-out scaled values by x / sqrt(1 + (x / 3)^2) (RealMLP, Holzmueller et al. 2024).
        batch_size: Rows of one optimiser step.
    """

    csv: str | None = None
    target: str | None = None
    id: str | None = None
    categorical: list[str] = field(default_factory=list)
    numeric: list[str] = field(default_factory=list)
    ordinal: dict[str, CellTexts] = field(default_factory=dict)
    groups: Names = field(default_factory=list)
    weight: str | None = None
    fold: str | None = None
    time: str | None = None
    test_csv: str | None = None
    duplicates: Literal["auto", "together", "apart"] = "auto"
    max_categories: int = 100
    dates: dict[str, list[DatePart]] = field(default_factory=dict)
    drop: Names = field(default_factory=list)
    na_values: ByColumn = field(default_factory=NA_VALUES.copy)
    formats: dict[str, WrittenFormat] = field(default_factory=dict)
    missing_target: Literal["refuse", "drop"] = "refuse"
    target_transform: TargetTransform = "log"
    scaling: Scaling = "robust"
    log_skewed: bool = True
    smooth_clip: bool = True
    batch_size: int = 128

    def __post_init__(self) -> None:
        for key in ("groups", "drop"):
            if isinstance(written := getattr(self, key), str):
                object.__setattr__(self, key, [written])
        if self.time is not None and (self.groups or self.fold is not None):
            raise InputError(
                f"data.time splits rows by time alone, got {'data.groups' if self.groups else 'data.fold'} beside it; "
                "leave out data.time (to predict new groups) or the other (to predict later rows)"
            )
        _require_at_least(1, "data", self, "batch_size", "max_categories")
        for name, parts in self.dates.items():
            rule = f"data.dates.{name} must be a list of some of {', '.join(get_args(DatePart))}"
            require(len(parts) > 0 and set(parts) <= set(get_args(DatePart)), rule, parts=parts)
        ordinal = {name: _texts(f"data.ordinal, {name}", texts) for name, texts in self.ordinal.items()}
        missing: object = self.na_values
        if isinstance(missing, dict):
            na_values = {name: _texts(f"data.na_values, {name}", texts) for name, texts in missing.items()}
            object.__setattr__(self, "na_values", na_values)
        else:
            object.__setattr__(self, "na_values", _texts("data.na_values", missing))
        object.__setattr__(self, "ordinal", ordinal)

    def na_values_of(self, column: str | None) -> list[str]:
        """Of one column, or of all that have none of their own."""
        if not isinstance(self.na_values, dict):
            return self.na_values
        others = self.na_values.get("*", NA_VALUES)
        return others if column is None else self.na_values.get(column, others)


@dataclass(frozen=True)
class ModelSettings:
    """The network: hidden layers with one activation, a linear output.

    Args:
        activation: A name from `actlab activations`, or the dotted path of an `nn.Module` class.
        hidden: Units of each hidden layer.
        dropout: Probability that a unit is zeroed in training, after each hidden activation.
        init: `auto` keeps the variance of the signal for any activation; `torch` is nn.Linear's own.
        n_members: Networks that `actlab fit` trains, one seed each.
    """

    activation: str = "relu"
    hidden: list[int] = field(default_factory=lambda: [144, 72, 18])
    dropout: float = 0.0
    init: Literal["auto", "torch"] = "auto"
    n_members: int = 5

    def __post_init__(self) -> None:
        has_units = len(self.hidden) > 0 and min(self.hidden) >= 1
        require(has_units, "model.hidden must name at least one layer, each with at least 1 unit", hidden=self.hidden)
        require(0 <= self.dropout < 1, "model.dropout must be in [0, 1)", dropout=self.dropout)
        _require_at_least(1, "model", self, "n_members")


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its schedule.

    Args:
        learning_rate: Step size of AdamW.
        weight_decay: Decoupled weight decay (Loshchilov & Hutter 2019).
        schedule: `constant`, or `cosine` from the learning rate to zero over `trainer.max_epochs`.
        patience: Epochs without a better validation score after which a member stops.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    schedule: Schedule = "constant"
    patience: int = 12

    def __post_init__(self) -> None:
        _check_learning_rates([self.learning_rate], "optimizer.learning_rate")
        require(self.weight_decay >= 0, "optimizer.weight_decay must be >= 0", weight_decay=self.weight_decay)
        _require_at_least(1, "optimizer", self, "patience")


def _check_learning_rates(rates: list[float], key: str) -> None:
    for rate in rates:
        require(0 < rate < math.inf, f"{key} must be > 0 and finite", learning_rate=rate)


@dataclass(frozen=True)
class ProtocolSettings:
    """How rows are split: nested, paired, leak-free.

    Args:
        folds: Outer test folds; every row is tested once a repeat.
        inner: Inner validation parts of each fold, each with its own network.
        repeats: Times the whole cross-validation is repeated with new folds.
        validation_fraction: Share of the rows outside the test fold that an inner validation part takes.
    """

    folds: int = 5
    inner: int = 2
    repeats: int = 1
    validation_fraction: float = 0.15

    def __post_init__(self) -> None:
        _require_at_least(2, "compare", self, "folds")
        _require_at_least(1, "compare", self, "inner", "repeats")
        share = self.validation_fraction
        require(0 < share < 1, "compare.validation_fraction must be between 0 and 1", validation_fraction=share)


# Repeats of a race at most, and of a grid.
RACE_REPEATS, GRID_REPEATS = 64, 4


@dataclass(frozen=True)
class CompareSettings:
    """A fair comparison; folds, inner parts, repeats and validation fraction hold for a search as well.

    Args:
        activations: Names from `actlab activations`, or dotted paths of `nn.Module` classes; `all` for every name.
        learning_rates: Every activation is tried with each; a race adds further ones beyond an end that is best.
        protocol: `race` sweeps the learning rates once, then trains fresh repeats of those not yet settled; `grid`
            trains every learning rate on every fold and repeat, and looks once.
        folds: Outer test folds; every row is tested once a repeat.
        inner: Inner validation parts of each fold, each with its own network: 2 for a grid or a search, 1 in a race.
        repeats: Times the cross-validation is repeated with new folds: 64 in a race, at most; 4 in a grid; 1 in a
            search.
        validation_fraction: Share of the rows outside the test fold that an inner validation part takes.
        budget: Networks that a race trains at most after its sweep; enough for 16 repeats of all when not given.
        baseline: The activation that every other one is also compared with.
        ensemble: Activations whose networks make up the shipped model, in equal parts: those whose averaged networks
            score best, as far as they are within 5 % of the best one.
        bag: Networks of each of them in each fold. They are trained after the comparison, on all rows outside the fold,
            at its learning rates and for as long as its networks needed.
        rope: Differences within this share of the best score are of no practical use.
        confirm: Take one look more than the budget reaches.
        match_parameters: Narrow networks that learn more per unit (maxout, gated) to the weights of a plain one.
        factors: Other settings to compare like activations, each with its levels: `{init: [auto, torch]}`; also
            `dropout`, `hidden` and `weight_decay`.
    """

    activations: ActivationNames = field(
        default_factory=lambda: [
            *("identity", "sigmoid", "tanh", "relu", "leaky_relu", "maxout", "prelu"),
            *("elu", "selu", "gelu", "silu", "mish", "softplus"),
        ]
    )
    learning_rates: list[float] = field(default_factory=lambda: [3e-4, 1e-3, 3e-3, 1e-2, 3e-2])
    protocol: Literal["race", "grid"] = "race"
    folds: int = 5
    inner: int | None = None
    repeats: int | None = None
    validation_fraction: float = 0.15
    budget: int | None = None
    baseline: str = "relu"
    ensemble: int = 5
    bag: int = 2
    rope: float = 0.02
    confirm: bool = False
    match_parameters: bool = False
    factors: dict[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.splitting("search")
        _check_activations(self, "compare")
        _require_distinct(self.learning_rates, "compare.learning_rates")
        _check_learning_rates(self.learning_rates, "compare.learning_rates")
        _require_at_least(1, "compare", self, "ensemble", "bag")
        if self.budget is not None:
            _require_at_least(1, "compare", self, "budget")
        require(0 <= self.rope < 1, "compare.rope must be a share in [0, 1)", rope=self.rope)

    def splitting(self, command: str) -> ProtocolSettings:
        """How a command splits the rows. A comparison counts repeats from 1 on; repeat 0 is a race's sweep."""
        inner = 2 if self.inner is None else self.inner
        if command != "compare":
            repeats = 1 if self.repeats is None else self.repeats
        elif self.protocol == "grid":
            repeats = 1 + (GRID_REPEATS if self.repeats is None else self.repeats)
        else:
            inner, repeats = 1, 1 + (RACE_REPEATS if self.repeats is None else self.repeats)
        return ProtocolSettings(self.folds, inner, repeats, self.validation_fraction)


@dataclass(frozen=True)
class SearchSettings:
    """What an Optuna study searches, with the TPE sampler, after every activation was tried at one or two rates.

    Args:
        n_trials: Settings to evaluate in total, over all workers and resumed runs.
        activations: Candidates, as in `compare`; its own when not given.
        learning_rate: Lowest and highest, searched on a logarithmic scale.
        weight_decay: Lowest (> 0) and highest, on a logarithmic scale; `optimizer.weight_decay` when not given.
        dropout: Lowest and highest; `model.dropout` when not given.
        hidden: Candidate lists of widths; `model.hidden` when not given.
        batch: Trials that are asked for, and trained as one population, at a time.
        pruning: Stop the members of losing trials early.
    """

    n_trials: int = 44
    activations: ActivationNames | None = None
    learning_rate: list[float] = field(default_factory=lambda: [3e-4, 3e-2])
    weight_decay: list[float] | None = None
    dropout: list[float] | None = None
    hidden: list[list[int]] | None = None
    batch: int = 8
    pruning: bool = True

    def __post_init__(self) -> None:
        _require_at_least(1, "search", self, "n_trials", "batch")
        _check_activations(self, "search")
        _check_learning_rates(self.learning_rate, "search.learning_rate")
        for name in ("learning_rate", "weight_decay", "dropout"):
            limits = getattr(self, name)
            is_range = limits is None or (len(limits) == 2 and 0 <= limits[0] < limits[1])
            require(is_range, f"search.{name} must be the lowest and the highest value", **{name: limits})
        if self.weight_decay is not None:
            require(self.weight_decay[0] > 0, "search.weight_decay must be > 0", weight_decay=self.weight_decay)


def _check_activations(settings: CompareSettings | SearchSettings, section: str) -> None:
    """`all` becomes the names there are now, so that a run says which it had."""
    written: object = settings.activations
    if written == "all":
        object.__setattr__(settings, "activations", [row.name for row in ACTIVATIONS])
    if settings.activations is not None:
        _require_distinct(settings.activations, f"{section}.activations")


def _require_distinct(values: list[Any], key: str) -> None:
    require(len(values) > 0, f"{key} must name at least one value", value=values)
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    require(not twice, f"{key} must not name a value twice", twice=twice)
