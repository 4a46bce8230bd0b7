"""Claims on frames made so that the answer is known, and the exact checks behind them."""

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from actlab.diagnostics.health import HealthRecord
from actlab.diagnostics.measures import (
    LEVELS,
    ConvergenceRecord,
    convergence_records,
    deviation_from_affine,
    first_epoch_at,
    maxout_error,
    median_costs,
    step_costs,
)
from actlab.members import Member, Split
from actlab.networks.network import Regressor
from actlab.networks.population import Outcome
from actlab.networks.trained import TrainedNetwork
from actlab.printed_tables import as_text
from actlab.report.tables import claims_table
from actlab.run_files import MemberRecord, jsonable, to_frame
from actlab.runs.results import first_variants
from actlab.runs.results import frames as frames_of
from actlab.verdict.claims import DEAD_UNITS, Measurements, Part, claims, judged, mean_part, overall, parts_by_claim
from actlab.verdict.paired_tests import holm
from actlab.verdict.race import Race, Terms, run
from actlab.verdict.summary import choose, repeat_scores
from small_ensembles import untrained

RATES = (0.001, 0.1)
NAMES = ("identity", "sigmoid", "tanh", "relu", "leaky_relu", "maxout")
SCORES = {"identity": 0.4, "sigmoid": 0.2, "tanh": 0.15, "relu": 0.12, "leaky_relu": 0.12, "maxout": 0.12}
GRADIENTS = {"sigmoid": 0.04, "tanh": 0.9}
MEANS = {"sigmoid": 0.5}
N_FOLDS, N_REPEATS, ROPE = 5, 4, 0.02
RATIO = 0.25


def cells() -> list[tuple[int, str, float, int, int]]:
    """(trial, activation, rate, repeat, fold) of a race: both rates in its sweep, then the lower one."""
    grid = [(name, rate, 0) for name in NAMES for rate in RATES]
    grid += [(name, RATES[0], repeat) for repeat in range(1, N_REPEATS + 1) for name in NAMES]
    return [(trial, *cell, fold) for trial, cell in enumerate(grid) for fold in range(N_FOLDS)]


def frames(scores: Mapping[str, float], dead_relu: float = 0.4, epochs_tanh: float = 9.0) -> dict[str, pd.DataFrame]:
    generator = np.random.default_rng(0)
    members, health, convergence = [], [], []
    for trial, name, rate, repeat, fold in cells():
        noise = float(generator.normal(0, 0.002))
        values = {"seed": 0, "best_epoch": 3, "epochs": 20, "diverged": False, "pruned": False, "seconds": 2.0}
        place = {"repeat": repeat, "fold": fold, "inner": 0}
        score = scores[name] + noise
        n_parameters = 2010 if name == "maxout" else 1000
        one = {"val_score": score + rate, "test_score": score, "n_parameters": n_parameters}
        members.append(MemberRecord(trial=trial, activation=name, learning_rate=rate, **place, **values, **one))
        for layer in (1, 2, 3):
            for moment in ("start", "best", "end"):
                is_dying = name == "relu" and rate == RATES[-1] and moment == "end"
                dead = dead_relu + noise if is_dying else 0.0
                ratio = GRADIENTS.get(name, 1.0) * math.exp(noise) if layer == 1 else 1.0
                health.append(
                    HealthRecord(
                        trial,
                        name,
                        rate,
                        repeat,
                        fold,
                        0,
                        layer,
                        moment,
                        dead,
                        0.1,
                        MEANS.get(name, 0.05) + noise,
                        ratio,
                    )
                )
        for r2 in LEVELS:
            first = (epochs_tanh if name == "tanh" else 3.0) + fold % 2 + 0.1 * (repeat % 2)
            epoch = first if r2 < 0.95 else math.nan
            convergence.append(
                ConvergenceRecord(trial, name, rate, repeat, fold, 0, r2, epoch, epoch * (2 if name == "tanh" else 1))
            )
    return {
        "members": to_frame(members, MemberRecord),
        "health": to_frame(health, HealthRecord),
        "convergence": to_frame(convergence, ConvergenceRecord),
    }


def measured(**changes: Any) -> Measurements:
    made = frames(changes.pop("scores", SCORES), changes.pop("dead_relu", 0.4), changes.pop("epochs_tanh", 9.0)) | {
        k: changes.pop(k) for k in ("members", "health", "convergence") if k in changes
    }
    rounds = {
        "tanh": (tuple(3.0 + 0.01 * i for i in range(9)),) * 2,
        "relu": (tuple(2.0 - 0.01 * i for i in range(9)),) * 2,
    }
    race = changes.pop("race", None) or race_of(made["members"])
    values = {
        "costs": rounds,
        "deviation_from_affine": 1e-14,
        "maxout_error": {"relu": 0.0, "leaky_relu": 0.0},
    } | changes
    members = made["members"]
    values = {"health": made["health"], "convergence": made["convergence"]} | values
    return Measurements(members, choose(members, True), race, RATIO, **values)


def race_of(members: pd.DataFrame) -> Race:
    return run(repeat_scores(members, [20] * N_FOLDS), Terms.race(N_FOLDS, 10_000, ROPE))


def by_claim(found: Measurements) -> dict[str, dict[str, Any]]:
    return {record["claim"].split()[0] + record["claim"].split()[1]: record for record in claims(found)}


def test_every_claim_of_the_list_is_answered_when_all_is_measured() -> None:
    records = claims(measured())
    assert [record["claim"] for record in records] == list(parts_by_claim(measured()))
    verdicts = [record["verdict"] for record in records]
    # tanh hands back 0.95 of the gradient: the claim about both of them falls
    assert verdicts == ["not supported", *["supported"] * 7]


def test_a_difference_of_scores_is_that_of_the_race() -> None:
    found = measured()
    (part,) = by_claim(found)["Tanhbeats"]["parts"]
    look = found.race.looks[-1]
    pair = look.pair("tanh", "sigmoid")
    assert (part["value"], part["ci_low"], part["ci_high"]) == (pair.difference, pair.low, pair.high)
    assert part["refuted_at"] == look.region
    assert [repeat for repeat, _ in part["values"]] == [1, 2, 3, 4]
    assert np.mean([value for _, value in part["values"]]) == pytest.approx(pair.difference)
    assert math.isnan(part["p"])


def test_each_part_has_its_quantity_and_values_by_hand() -> None:
    found = measured()
    sigmoid, tanh = by_claim(found)["Gradientsvanish"]["parts"]
    # two steps back through three layers: 0.2 squared is 0.04
    assert sigmoid["value"] == pytest.approx(0.2, rel=1e-2)
    assert tanh["value"] == pytest.approx(math.sqrt(0.9), rel=1e-2)
    assert [part["verdict"] for part in (sigmoid, tanh)] == ["supported", "not supported"]
    # an ordinary t-test of logarithms over the repeats, each the plain mean of its folds
    health = found.health[(found.health.activation == "sigmoid") & (found.health.layer == 1)]
    own = health[(health.moment == "start") & (health.repeat >= 1)]
    factors = np.sqrt(own.gradient_ratio).groupby(own.repeat).mean()
    assert [value for _, value in sigmoid["values"]] == pytest.approx(factors.tolist())
    test = stats.ttest_1samp(np.log(factors), math.log(0.5))
    assert sigmoid["p"] == pytest.approx(test.pvalue)
    low, high = test.confidence_interval()
    assert (sigmoid["ci_low"], sigmoid["ci_high"]) == pytest.approx((math.exp(low), math.exp(high)))
    epochs, seconds, alone, network = by_claim(found)["ReLUconverges"]["parts"]
    # two of five folds take an epoch more, and every second repeat a tenth of one
    assert epochs["value"] == pytest.approx(math.sqrt(9.4 / 3.4 * 9.5 / 3.5))
    assert "R2 0.9 " in epochs["what"]
    assert seconds["value"] == pytest.approx(2 * epochs["value"])
    assert alone["value"] == network["value"] == pytest.approx(1.55, abs=0.01)


def test_dead_units_are_those_of_the_sweep_with_its_folds_corrected_for_what_they_share() -> None:
    found = measured()
    more, repaired = by_claim(found)["ReLUunits"]["parts"]
    own = found.health[(found.health.activation == "relu") & (found.health.moment == "end")]
    dead = own[(own.learning_rate == 0.1) & (own.repeat == 0)].groupby("fold").dead.mean() - DEAD_UNITS
    t = dead.mean() / math.sqrt(dead.var() * (1 / 5 + RATIO))
    assert more["n"] == repaired["n"] == 5
    assert more["p"] == pytest.approx(2 * stats.t.sf(abs(t), 4))
    assert "at rate 0.1 minus at rate 0.001" in more["what"]
    assert [part["verdict"] for part in (more, repaired)] == ["supported", "supported"]


def test_a_rate_at_which_a_network_diverged_or_was_pruned_has_no_dead_units_to_count() -> None:
    for column in ("diverged", "pruned"):
        made = frames(SCORES)
        high = (made["members"].activation == "relu") & (made["members"].learning_rate == 0.1)
        made["members"].loc[high & (made["members"].fold == 2), column] = True
        more, repaired = by_claim(measured(**made))["ReLUunits"]["parts"]
        assert (more["verdict"], more["reason"]) == ("cannot tell", "all networks trained at 1 learning rates")
        assert "at rate 0.001" in repaired["what"]


def test_dead_units_of_a_full_grid_are_tested_over_its_repeats() -> None:
    made = frames(SCORES)
    grid = {}
    for key, frame in made.items():
        # every repeat with both rates, and no sweep
        swept = frame[frame.repeat == 0]
        grid[key] = pd.concat(
            [swept.assign(repeat=repeat, dead=swept.get("dead", 0.0) * (1 + repeat / 50)) for repeat in (1, 2, 3, 4)]
        )
    more, _ = by_claim(measured(**grid))["ReLUunits"]["parts"]
    assert [repeat for repeat, _ in more["values"]] == [1, 2, 3, 4]
    values = [value for _, value in more["values"]]
    assert more["p"] == pytest.approx(stats.ttest_1samp(values, DEAD_UNITS).pvalue)


def test_only_repeats_that_both_activations_have_are_compared() -> None:
    made = frames(SCORES)
    short = {k: f[(f.activation != "tanh") | (f.repeat <= 3)] for k, f in made.items()}
    epochs, *_ = by_claim(measured(**short))["ReLUconverges"]["parts"]
    assert (epochs["n"], epochs["verdict"]) == (3, "cannot tell")
    assert epochs["reason"] == "a test needs at least 4 values, and there are 3"


def test_values_without_any_spread_are_no_evidence() -> None:
    for values in ([0.0, 0.0, 0.0, 0.0], [0.3, 0.1 + 0.2, 0.3, 0.3]):
        (part,) = judged([mean_part("x", pd.Series(values), "above", 0.1)])
        assert (part.verdict, part.reason) == ("cannot tell", "all 4 values are equal: no spread, no test")
        assert math.isnan(part.p)


def test_p_values_are_adjusted_over_all_parts_of_all_claims() -> None:
    parts = [part for record in claims(measured(scores=SCORES | {"tanh": 0.2})) for part in record["parts"]]
    assert [p["p_holm"] for p in parts] == pytest.approx(holm([p["p"] for p in parts]).tolist(), nan_ok=True)


def test_a_claim_is_not_supported_when_the_data_say_the_opposite() -> None:
    opposite = SCORES | {"sigmoid": 0.1, "tanh": 0.15}
    assert by_claim(measured(scores=opposite))["Tanhbeats"]["verdict"] == "not supported"
    assert by_claim(measured(dead_relu=0.0))["ReLUunits"]["verdict"] == "not supported"
    assert by_claim(measured(epochs_tanh=4.0))["ReLUconverges"]["verdict"] == "not supported"
    assert by_claim(measured(deviation_from_affine=0.1))["Withouta"]["verdict"] == "not supported"


def test_a_difference_within_the_region_does_not_support_and_a_vague_one_cannot_tell() -> None:
    generator = np.random.default_rng(1)
    noise = {name: generator.normal(0, 1, 16) for name in ("tanh", "sigmoid", "relu")}

    def verdict(sd: float, difference: float) -> tuple[str, str]:
        scores = {name: 0.1 + sd * own + difference * (name == "sigmoid") for name, own in noise.items()}
        race = run({name: own.tolist() for name, own in scores.items()}, Terms.race(N_FOLDS, 10_000, ROPE))
        record = by_claim(measured(race=race))["Tanhbeats"]
        return record["verdict"], record["reason"]

    assert verdict(1e-4, 0.0)[0] == "not supported"
    assert verdict(1e-4, 0.01)[0] == "supported"
    assert verdict(1e-4, -0.01)[0] == "not supported"
    assert verdict(1e-2, 0.0)[0] == "cannot tell"
    assert "too wide" in verdict(1e-2, 0.0)[1]


def test_one_that_left_has_the_repeats_up_to_the_look_that_both_were_in() -> None:
    noise = np.random.default_rng(2).normal(0, 0.001, (3, 8))
    scores = {"relu": 0.1 + noise[0], "tanh": 0.1 + noise[1], "sigmoid": (0.2 + noise[2])[:4]}
    race = run({name: own.tolist() for name, own in scores.items()}, Terms.race(N_FOLDS, 10_000, ROPE))
    assert [look.n_repeats for look in race.looks] == [4, 8]
    (part,) = by_claim(measured(race=race))["Tanhbeats"]["parts"]
    assert (part["n"], part["verdict"]) == (4, "supported")
    assert part["value"] == pytest.approx((scores["sigmoid"] - scores["tanh"][:4]).mean())


def test_the_label_of_a_variant_is_its_name_in_the_race() -> None:
    found = measured()
    scores = repeat_scores(found.members, [20] * N_FOLDS)
    labelled = run({f"{name} [init=auto]": own for name, own in scores.items()}, Terms.race(N_FOLDS, 10_000, ROPE))
    label_of = {name: f"{name} [init=auto]" for name in NAMES}
    (part,), (same,) = (
        by_claim(measured(**more))["Tanhbeats"]["parts"] for more in ({}, {"race": labelled, "label_of": label_of})
    )
    assert jsonable(part) == jsonable(same)


def test_a_ratio_and_its_inverse_tell_the_same_story() -> None:
    ratio = pd.Series(np.random.default_rng(0).uniform(1.5, 4, 10))
    up = mean_part("x", ratio, "above", 2.0, is_ratio=True)
    down = mean_part("x", 1 / ratio, "below", 0.5, is_ratio=True)
    assert (up.value, up.ci_low, up.p) == pytest.approx((1 / down.value, 1 / down.ci_high, down.p))


def test_activations_that_are_not_in_the_run_leave_a_claim_open_with_the_reason() -> None:
    made = frames(SCORES)
    few = {key: frame[frame.activation.isin(["relu", "tanh"])] for key, frame in made.items()}
    records = by_claim(measured(**few))
    for key in ("Tanhbeats", "Sigmoidis", "Leaky" + "ReLU", "Withouta"):
        assert records[key]["verdict"] == "cannot tell"
        assert "not in this run" in records[key]["reason"]
    assert records["ReLUconverges"]["verdict"] == "supported"


def test_nothing_measured_but_scores_is_said_and_not_guessed() -> None:
    members = frames(SCORES)["members"]
    found = Measurements(members, choose(members, True), race_of(members), RATIO)
    verdicts = {key: record["verdict"] for key, record in by_claim(found).items()}
    assert [key for key, verdict in verdicts.items() if verdict == "supported"] == ["Tanhbeats", "LeakyReLU"]
    assert all(record["reason"] for record in claims(found) if record["verdict"] == "cannot tell")


def test_too_few_repeats_for_a_look_tell_no_difference_of_scores() -> None:
    members = frames(SCORES)["members"]
    race = run(repeat_scores(members[members.repeat <= 2], [20] * N_FOLDS), Terms.grid(N_FOLDS, ROPE, 2))
    assert by_claim(measured(race=race))["Tanhbeats"]["reason"] == "fewer than 4 repeats tell no difference of scores"


def test_an_activation_that_diverged_leaves_the_claim_open() -> None:
    made = frames(SCORES)
    lost = (made["members"].activation == "sigmoid") & (made["members"].fold == 1) & (made["members"].repeat == 2)
    made["members"].loc[lost, ["val_score", "test_score"]] = math.nan
    record = by_claim(measured(**made))["Tanhbeats"]
    assert (record["verdict"], record["reason"]) == ("cannot tell", "trainings of sigmoid diverged")
    never = {key: f[(f.activation != "sigmoid") | (f.repeat == 0)] for key, f in frames(SCORES).items()}
    assert by_claim(measured(**never))["Tanhbeats"]["reason"] == "trainings of sigmoid diverged"


def test_a_member_without_its_health_is_missed() -> None:
    health = frames(SCORES)["health"]
    gone = (health.activation == "sigmoid") & (health.moment == "best") & (health.fold == 0) & (health.repeat == 3)
    record = by_claim(measured(health=health[~gone]))["Sigmoidis"]
    assert "1 of 4 values are not finite" in record["reason"]


def test_a_claim_falls_with_one_of_its_parts() -> None:
    yes, no, open_part = (Part("x", verdict=v) for v in ("supported", "not supported", "cannot tell"))  # type: ignore[arg-type]
    assert overall([yes, yes])[0] == "supported"
    assert overall([yes, open_part])[0] == "cannot tell"
    assert overall([open_part, no, yes])[0] == "not supported"


def test_maxout_with_as_many_weights_as_relu_does_not_double_them() -> None:
    members = frames(SCORES)["members"].assign(n_parameters=1000)
    assert by_claim(measured(members=members))["MaxoutContains".replace("C", "c")]["verdict"] == "not supported"


def test_claims_are_plain_json_and_fit_the_terminal() -> None:
    records = claims(measured())
    json.dumps(jsonable({"claims": records}), allow_nan=False)
    for shown in (records, jsonable({"claims": records})["claims"]):
        text = as_text(claims_table(shown))
        assert max(map(len, text.splitlines())) <= 100
        assert text.count("supported") >= len(records)


def test_context_shows_every_activation() -> None:
    context = measured().context()
    assert set(context["mean_output"]) == set(NAMES)
    assert context["dead_at_the_end_by_rate"]["relu"]["0.1"] == pytest.approx(0.4, abs=0.01)


def network(activation: str, seed: int = 0) -> TrainedNetwork:
    member = Member(0, activation, 0.01, Split(0, 0, 0), seed, (8, 4), init="torch")
    return untrained(member, Regressor([member], [5]).member_state(0))


def test_identity_networks_are_affine_and_others_are_not() -> None:
    assert deviation_from_affine([network("identity"), network("identity", 1)]) < 1e-12
    assert deviation_from_affine([network("identity"), network("relu")]) > 1e-3
    # linear where all inputs are positive, which is not enough
    assert deviation_from_affine([network("leaky_relu")]) > 1e-3


def test_maxout_contains_relu_and_leaky_relu_and_not_tanh() -> None:
    assert maxout_error("relu") == 0.0
    assert maxout_error("leaky_relu") == pytest.approx(0.0, abs=1e-9)
    assert maxout_error("tanh") > 1


def test_the_first_epoch_at_a_level() -> None:
    assert first_epoch_at([3.0, 2.0, 1.0, 2.0], 2.0) == 2
    assert math.isnan(first_epoch_at([3.0, math.nan], 2.0))


def test_times_to_a_level_are_counted_in_the_members_own_seconds() -> None:
    outcome = Outcome(network("relu").member, 10, epochs=4, seconds=2.0, train_curve=[2.0, 1.4, 0.9, 0.5])
    records = convergence_records([outcome], target_sd=2.0)
    # R2 of 0.5 is a score of 1.414, 0.7 of 1.095, 0.8 of 0.894, 0.9 of 0.632
    assert [r.epoch for r in records] == pytest.approx([2, 3, 4, 4, math.nan, math.nan], nan_ok=True)
    assert [r.seconds for r in records][:2] == [1.0, 1.5]


def test_costs_of_a_step_are_timed_by_turns() -> None:
    costs = step_costs({"relu": (8,), "swiglu": (8,)}, n_features=3, batch_size=32, n_rounds=3)
    assert all(len(cost.activation_us) == len(cost.network_us) == 3 for cost in costs.values())
    medians = median_costs(costs)
    assert all(0 < entry["activation_us"] < entry["network_us"] for entry in medians.values())


def test_claims_are_about_the_first_variant_of_each_activation() -> None:
    plain_settings = {n: setting(name) for n, name in enumerate(("relu", "tanh"))}
    assert first_variants(plain_settings) == {"relu": "relu", "tanh": "tanh"}
    labels = ["relu [init=auto]", "relu [init=torch]", "tanh [init=auto]"]
    factors = {n: setting(label.split()[0], name=label) for n, label in enumerate(labels)}
    assert first_variants(factors) == {"relu [init=auto]": "relu", "tanh [init=auto]": "tanh"}


def setting(activation: str, **more: Any) -> Any:
    """What the claims read of a setting."""
    return SimpleNamespace(activation=activation, label=more.get("name", activation))


def test_records_come_back_from_the_study_as_they_went_in() -> None:
    health = ["relu", 0.01, 0, 1, 0, 1, "start", 0.0, 0.1, None, 1.0]
    reached = ["relu", 0.01, 0, 1, 0, 0.5, None, None]
    found = frames_of(
        [SimpleNamespace(user_attrs=own) for own in ({}, {"health": [[3, *health]], "convergence": [[3, *reached]]})]  # type: ignore[misc]
    )
    assert found["health"].columns.tolist() == [field.name for field in fields(HealthRecord)]
    assert math.isnan(found["health"].mean_output[0])
    # the place among these trials
    assert found["convergence"].trial.tolist() == [1]
    assert found["members"].empty
