"""Parsing of experiments, their records, and selection by tuning, without running anything."""

import copy
import importlib
import itertools
import json

import pytest

from lm.comparison import experiment, record, tuning
from lm.comparison.budgets import Accounting
from lm.core.plugins import UserError

RUN = {
    "seed": 0,
    "objective": {"name": "clm", "smoothing": 0.1},
    "model": {"name": "decoder"},
    "data": {"length": 32, "cache": "", "workers": 1},
    "tokenizer": {"vocab_size": 256},
    "training": {
        "batch_size": 8,
        "tokens": 5,
        "steps": 0,
        "log_every": 1,
        "keep": 2,
        "microbatches": 1,
    },
    "optimizer": {"learning_rate": 0.02, "warm": 10},
}
GIVEN = {
    "name": "e",
    "question": "q",
    "seeds": [0, 1],
    "split": "test",
    "budget": {"matched": "tokens", "value": 1000},
    "tasks": {"mine": {"task": "causal", "tokens": 64}, "causal": {}},
    "arms": {"a": {"label": "A", "describe": "", "run": RUN}},
    "tuning": {
        "field": "optimizer.learning_rate",
        "factors": [0.5, 1, 2],
        "share": 0.25,
        "seed": 9,
    },
    "hypotheses": [
        {
            "text": "t",
            "arm": "a",
            "task": "mine",
            "metric": "nll",
            "compare": "",
            "op": "below",
            "value": 3.0,
        }
    ],
}


def write_trial(workdir, index, status, loss=None):
    directory = tuning.directory(workdir, "a", index)
    directory.mkdir(parents=True)
    (directory / "run.json").write_text(
        json.dumps({"status": status, "final": {"loss": loss}} if loss else {"status": status})
    )


def test_tasks_have_names_and_options_of_their_own():
    parsed = experiment.parse(GIVEN)
    assert parsed.times == {"a": 1.0}
    assert parsed.tasks == {"mine": {"task": "causal", "tokens": 64}, "causal": {"task": "causal"}}
    assert experiment.describe_tasks(parsed.tasks)["mine"]["task"] == "causal"
    assert experiment.parse(GIVEN | {"tasks": ("causal",), "hypotheses": ()}).tasks == {
        "causal": {"task": "causal"}
    }


def test_shared_fields_replace_those_of_all_arms():
    shared = {"training": {"batch_size": 32, "steps": None}, "data": {"length": 16}}
    arms = {name: {"label": name, "describe": "", "run": RUN} for name in ("a", "b")}
    parsed = experiment.parse(GIVEN | {"arms": arms, "shared": shared})
    for run in parsed.runs.values():
        assert (
            run["training"]["batch_size"] == 32
            and run["data"]["length"] == 16
            and run["model"] == RUN["model"]
        )
    counted = {
        arm: Accounting(tokens=512, flops=1e6, loss_tokens=480.0, parameters=7, mask="causal")
        for arm in arms
    }
    made = record.make(parsed, counted, {}, {}, {})
    # By the shared batch size: with that of the arm, a resumed comparison would plan other steps.
    assert [arm["loss_tokens_per_row"] for arm in made["arms"].values()] == [15.0, 15.0]
    with pytest.raises(
        UserError, match=r"config\.shared\.training\.batch: a run of arm 'a' has no such field"
    ):
        experiment.parse(GIVEN | {"shared": {"training": {"batch": 3}}})


def test_arms_of_unequal_budgets_are_not_compared():
    arms = {"a": GIVEN["arms"]["a"], "b": GIVEN["arms"]["a"] | {"times": 4}}
    check = GIVEN["hypotheses"][0] | {"compare": "b"}
    with pytest.raises(
        UserError,
        match="'a' gets 1 times the budget and 'b' 4 times; only arms of equal budgets",
    ):
        experiment.parse(GIVEN | {"arms": arms, "hypotheses": [check]})


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"task": "mine"}, r"config\.scaling needs metric"),
        ({"task": "other", "metric": "nll"}, r"config\.scaling: task"),
        ({"task": "mine", "metric": "ce"}, r"config\.scaling: metric"),
    ],
)
def test_a_scaling_law_is_fitted_to_a_metric_of_the_experiment(scaling, message):
    with pytest.raises(UserError, match=message):
        experiment.parse(GIVEN | {"scaling": scaling})


def test_scaling_has_every_size_with_each_multiple_in_both_series():
    parsed = published("scaling")
    shapes = {
        arm: (run["objective"]["name"], run["model"]["width"], parsed.times[arm])
        for arm, run in parsed.runs.items()
    }
    assert sorted(shapes.values()) == sorted(
        itertools.product(("clm", "hybrid"), (32, 64, 128), (1.0, 4.0, 16.0))
    )
    names = record.untrained(parsed.runs, {arm: shape[0] for arm, shape in shapes.items()})
    assert sum(evaluates for _, evaluates in names.values()) == 6 and names["clm_m_1"] == (
        "untrained clm_m_1",
        True,
    )
    assert (
        names["clm_m_16"] == ("untrained clm_m_1", False)
        and names["clm_s_16"][0] == names["clm_s_1"][0]
    )


@pytest.mark.parametrize("times", [0, -1.0, True, "2", float("inf")])
def test_an_impossible_multiple_of_the_budget(times):
    with pytest.raises(UserError, match=r"config\.arms\.a\.times=.* must be a number above 0"):
        experiment.parse(GIVEN | {"arms": {"a": GIVEN["arms"]["a"] | {"times": times}}})


def test_a_changed_number_of_steps_is_rejected(tmp_path):
    old = {"planned": {"a": {"steps": 10}}}
    record.check_planned(tmp_path, old, {"a": {"steps": 10}})
    with pytest.raises(UserError, match="runs of 'a' had 10 steps, now they would have 11"):
        record.check_planned(tmp_path, old, {"a": {"steps": 11}})


def test_trials_have_multiples_of_the_arms_value_and_a_seed_of_their_own():
    parsed = experiment.parse(GIVEN)
    configs = [tuning.config(parsed, "a", index, 100) for index in range(3)]
    assert [config["optimizer"]["learning_rate"] for config in configs] == [0.01, 0.02, 0.04]
    assert all(
        (config["seed"], config["training"]["steps"], config["training"]["tokens"]) == (9, 25, 0)
        for config in configs
    )
    integer = experiment.parse(GIVEN | {"tuning": GIVEN["tuning"] | {"field": "optimizer.warm"}})
    assert [
        experiment.tuned_value(integer.runs["a"], integer.tuning, index) for index in range(3)
    ] == [
        5,
        10,
        20,
    ]


@pytest.mark.parametrize("field", ["objective.smoothing", "tokenizer.vocab_size", "data.length"])
def test_a_field_that_changes_the_loss_is_not_tuned(field):
    with pytest.raises(
        UserError, match=f"config.tuning: field='{field}' changes what the validation loss measures"
    ):
        experiment.parse(GIVEN | {"tuning": GIVEN["tuning"] | {"field": field}})


def test_an_arm_with_the_name_of_a_baseline_is_rejected():
    with pytest.raises(UserError, match="the arm 'unigram' has the name of a baseline"):
        experiment.check_comparisons(
            [], {"clm", "unigram"}, {("causal", "nll"): {"unigram", "bigram"}}
        )
    experiment.check_comparisons([], {"clm"}, {})


@pytest.mark.parametrize(
    "field", ["training.batch_size", "training.steps", "model.width", "model.layers"]
)
def test_a_field_that_changes_the_budget_is_not_tuned(field):
    with pytest.raises(
        UserError, match=f"config.tuning: field='{field}' may change what a run costs"
    ):
        experiment.parse(GIVEN | {"tuning": GIVEN["tuning"] | {"field": field}})


def test_untrained_models_differ_by_shape_not_by_how_they_are_computed():
    other = RUN | {"model": RUN["model"] | {"attention": "xla", "remat": "all"}}
    wider = RUN | {"model": RUN["model"] | {"width": 64}}
    arms = {"a": RUN, "b": other, "c": wider}
    assigned = record.untrained(arms, dict.fromkeys("abc", "causal"))
    assert assigned == {
        "a": ("untrained decoder", True),
        "b": ("untrained decoder", False),
        "c": ("untrained c", True),
    }
    # Arms may be declared in another order when a workdir is resumed.
    assert (
        record.untrained(dict(reversed(arms.items())), dict.fromkeys("abc", "causal")) == assigned
    )


def test_reports_show_arms_in_the_order_of_their_declaration():
    parsed = published("hybrid_ratio")
    assert [of["label"] for of in parsed.plain["arms"].values()] == [
        "1:0",
        "15:1",
        "7:1",
        "1:1",
        "1:7",
        "1:15",
        "0:1",
    ]
    assert list(parsed.runs) == list(parsed.times) == list(parsed.plain["arms"])
    assert list(published("objectives").tasks) == ["causal", "masked", "next_sentence", "probe"]


def test_the_best_trial_is_selected_and_an_edge_is_noted(tmp_path):
    parsed = experiment.parse(GIVEN)
    write_trial(tmp_path, 0, "done", 5.0)
    write_trial(tmp_path, 1, "done", 4.0)
    assert tuning.record(parsed, tmp_path, {"a": 100})["chosen"] == {}  # one trial is left
    write_trial(tmp_path, 2, "diverged")
    section = tuning.record(parsed, tmp_path, {"a": 100})
    assert section["trials"]["a"] == [
        {"value": 0.01, "loss": 5.0, "status": "done"},
        {"value": 0.02, "loss": 4.0, "status": "done"},
        {"value": 0.04, "loss": None, "status": "diverged"},
    ]
    assert (
        section["chosen"] == {"a": 0.02}
        and section["edges"] == {}
        and section["steps"] == {"a": 25}
    )
    (tuning.directory(tmp_path, "a", 0) / "run.json").write_text(
        json.dumps({"status": "done", "final": {"loss": 3.0}})
    )
    section = tuning.record(parsed, tmp_path, {"a": 100})
    assert section["chosen"] == {"a": 0.01} and section["edges"] == {"a": "lowest"}
    assert (
        "0.01: the lowest tried, so a better one may lie beyond" in tuning.notes(section)[0]
        and "0.04 → diverged" in tuning.notes(section)[0]
    )


def test_an_arm_keeps_its_own_value_if_all_trials_diverged(tmp_path):
    for index in range(3):
        write_trial(tmp_path, index, "diverged")
    section = tuning.record(experiment.parse(GIVEN), tmp_path, {"a": 100})
    assert (
        section["chosen"] == {"a": 0.02}
        and "none ended well, so it keeps its own" in tuning.notes(section)[0]
    )


CHANGES = {
    "the threshold": (
        lambda given: given["hypotheses"][0].update(value=4.0),
        r"config.hypotheses.0.value: 3.0 there, 4.0 now",
    ),
    "the direction": (lambda given: given["hypotheses"][0].update(op="above"), "hypotheses.0.op"),
    "another hypothesis": (
        lambda given: given["hypotheses"].append(given["hypotheses"][0]),
        "hypotheses.1.arm: None there",
    ),
    "the tuning": (lambda given: given["tuning"].update(factors=[1]), "config.tuning.factors"),
    "a task": (
        lambda given: given["tasks"].pop("causal"),
        "config.tasks.causal: {} there, None now",
    ),
    "a shared batch": (
        lambda given: given.update(shared={"training": {"batch_size": 16}}),
        "config.shared.training.batch_size: None there, 16 now",
    ),
    "an arm's model": (
        lambda given: given["arms"]["a"]["run"]["model"].update(name="encoder"),
        "config.arms.a.run.model.name: 'decoder' there",
    ),
    "another multiple": (
        lambda given: given["arms"]["a"].update(times=4),
        r"config\.arms\.a\.times: 1\.0 there, 4 now",
    ),
    "length of tuning": (
        lambda given: given["tuning"].update(share=0.5),
        r"config\.tuning\.share: 0\.25 there, 0\.5 now",
    ),
    "no more tuning": (
        lambda given: given["tuning"].update(factors=[]),
        r"config\.tuning\.factors: \[0\.5, 1, 2\] there, \[\] now",
    ),
    "fewer seeds": (lambda given: given.update(seeds=[0]), "seeds may be added, not left out"),
}
FREE = {
    "words": lambda given: (
        given["hypotheses"][0].update(text="other"),
        given["arms"]["a"].update(label="B"),
        given.update(question="?"),
    ),
    "a multiple of 1, which older records do not have": lambda given: given["arms"]["a"].update(
        times=1.0
    ),
    "more seeds": lambda given: given.update(seeds=[0, 1, 2]),
    "how runs are computed": lambda given: (
        given["arms"]["a"]["run"].update(mesh={"data": 2}),
        given["arms"]["a"]["run"]["model"].update(
            attention="xla", remat="all", scan=True, head_chunks=2
        ),
        given.update(
            shared={
                "data": {"cache": "/elsewhere", "workers": 2},
                "training": {"log_every": 7, "keep": 1, "microbatches": 2},
            }
        ),
    ),
    "analysis": lambda given: given.update(
        energy={"pue": 1.5}, scaling={"task": "causal", "metric": "nll"}, workers=3
    ),
}


def old_record(tmp_path):
    return {
        "experiment": experiment.parse(copy.deepcopy(GIVEN)).plain,
        "seeds": [0, 1],
        "hypotheses_fixed": "2026-01-01",
        "arms": {},
        "hypotheses": GIVEN["hypotheses"],
    }


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_experiment_is_rejected(tmp_path, what):
    change, words = CHANGES[what]
    now = copy.deepcopy(GIVEN)
    change(now)
    with pytest.raises(UserError, match=words) as raised:
        record.check_same(tmp_path, old_record(tmp_path), experiment.parse(now))
    assert ("fixed at the first start, 2026-01-01" in str(raised.value)) == ("hypotheses" in words)


@pytest.mark.parametrize("what", FREE)
def test_free_fields_may_change(tmp_path, what):
    now = copy.deepcopy(GIVEN)
    FREE[what](now)
    record.check_same(tmp_path, old_record(tmp_path), experiment.parse(now))


def test_options_of_tuning_may_change_without_tuning(tmp_path):
    before, now = (
        GIVEN | {"tuning": GIVEN["tuning"] | {"factors": [], "share": share}}
        for share in (0.25, 0.5)
    )
    old = old_record(tmp_path) | {"experiment": experiment.parse(before).plain}
    record.check_same(tmp_path, old, experiment.parse(now))


def published(name, size="tiny"):
    return experiment.parse(
        importlib.import_module(f"experiments.{name}").get_config(size).to_dict()
    )


def test_arms_that_differ_in_format_and_loss_have_one_rate_or_one_grid():
    for size in ("tiny", "small"):
        parsed = published("format_or_loss", size)
        factors = parsed.tuning.factors or (1.0,)
        grids = {
            tuple(run["optimizer"]["learning_rate"] * factor for factor in factors)
            for run in parsed.runs.values()
        }
        assert len(grids) == 1 and bool(parsed.tuning.factors) == (size == "small")


def test_mask_rate_evaluates_masked_tokens_as_each_arm_was_trained():
    parsed = published("mask_rate")
    assert parsed.tasks["masked"] == {"task": "masked"}
    pure = parsed.runs["pure_40"]["objective"]
    assert parsed.tasks["masked_pure"] == {
        "task": "masked",
        **{name: pure[name] for name in ("mask_share", "random_share")},
    }
    assert [hypothesis["task"] for hypothesis in parsed.hypotheses[-2:]] == [
        "masked_pure",
        "masked",
    ]


def test_no_worse_allows_a_prefix_decoder_a_small_difference():
    (claim,) = (
        hypothesis
        for hypothesis in published("architectures").hypotheses
        if hypothesis["task"] == "suffix"
    )
    assert (
        (claim["op"], claim["value"]) == ("below", 0.05)
        and "no worse" in claim["text"]
        and "at most .05 nats" in claim["text"]
    )


def test_masked_arms_of_recall_have_one_head():
    runs = published("recall").runs
    assert {runs[arm]["objective"]["head"] for arm in ("mlm_2", "mntp_2")} == {"plain"}


def test_no_arm_of_hybrid_ratio_is_evaluated_in_a_mode_that_it_does_not_train():
    parsed = published("hybrid_ratio")
    parts = {"causal": "causal", "masked": "masked"}
    for hypothesis in parsed.hypotheses:
        task = hypothesis["task"]
        for arm in {hypothesis["arm"], hypothesis["compare"]} & set(parsed.runs):
            assert task not in parts or parsed.runs[arm]["objective"][parts[task]] > 0, (
                hypothesis["text"],
                arm,
            )


def test_time_of_processes_side_by_side_counts_once():
    assert record._covered([(0, 10), (5, 12), (20, 21), (6, 7)]) == 13
