"""What an experiment says, and what its tuning chose, without running anything."""

import copy
import importlib
import itertools
import json

import pytest

from lm.comparison import experiment, record, tuning
from lm.comparison.budgets import Accounting
from lm.core.plugins import UserError

RUN = {
    "seed": 0, "objective": {"name": "clm", "smoothing": 0.1}, "model": {"name": "decoder"},
    "data": {"length": 32, "cache": "", "workers": 1}, "tokenizer": {"vocab_size": 256},
    "training": {"batch_size": 8, "tokens": 5, "steps": 0, "log_every": 1, "keep": 2, "microbatches": 1},
    "optimizer": {"learning_rate": 0.02, "warm": 10},
}  # fmt: skip
GIVEN = {
    "name": "e", "question": "q", "seeds": [0, 1], "split": "test", "budget": {"matched": "tokens", "value": 1000},
    "tasks": {"mine": {"task": "causal", "tokens": 64}, "causal": {}}, "arms": {"a": {"label": "A", "describe": "", "run": RUN}},
    "tuning": {"field": "optimizer.learning_rate", "factors": [0.5, 1, 2], "share": 0.25, "seed": 9},
    "hypotheses": [{"text": "t", "arm": "a", "task": "mine", "metric": "nll", "compare": "", "op": "below", "value": 3.0}],
}  # fmt: skip


def trial(workdir, index, status, loss=None):
    where = tuning.directory(workdir, "a", index)
    where.mkdir(parents=True)
    (where / "run.json").write_text(
        json.dumps({"status": status, "final": {"loss": loss}} if loss else {"status": status})
    )


def test_tasks_have_names_and_options_of_their_own():
    found = experiment.parse(GIVEN)
    assert found.times == {"a": 1.0}
    assert found.tasks == {"mine": {"task": "causal", "tokens": 64}, "causal": {"task": "causal"}}
    assert experiment.describe_tasks(found.tasks)["mine"]["task"] == "causal"
    assert experiment.parse(GIVEN | {"tasks": ("causal",), "hypotheses": ()}).tasks == {
        "causal": {"task": "causal"}
    }


def test_what_is_shared_holds_for_all_arms():
    shared = {"training": {"batch_size": 32, "steps": None}, "data": {"length": 16}}
    arms = {name: {"label": name, "describe": "", "run": RUN} for name in ("a", "b")}
    found = experiment.parse(GIVEN | {"arms": arms, "shared": shared})
    for run in found.runs.values():
        assert (
            run["training"]["batch_size"] == 32
            and run["data"]["length"] == 16
            and run["model"] == RUN["model"]
        )
    counted = {
        arm: Accounting(tokens=512, flops=1e6, loss_tokens=480.0, parameters=7, mask="causal")
        for arm in arms
    }
    made = record.make(found, counted, {}, {}, {})
    # Of a row as it is trained: with the arms' own batch a continued comparison would plan other steps.
    assert [of["loss_tokens_per_row"] for of in made["arms"].values()] == [15.0, 15.0]
    with pytest.raises(
        UserError, match=r"config\.shared\.training\.batch: a run of arm 'a' has no such field"
    ):
        experiment.parse(GIVEN | {"shared": {"training": {"batch": 3}}})


def test_arms_of_unequal_budgets_are_not_compared():
    arms = {"a": GIVEN["arms"]["a"], "b": GIVEN["arms"]["a"] | {"times": 4}}
    check = GIVEN["hypotheses"][0] | {"compare": "b"}
    with pytest.raises(
        UserError,
        match="'a' gets 1 times the budget and 'b' 4 times; only arms of equal budgets are compared",
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
def test_a_law_is_fitted_to_what_is_measured(scaling, message):
    with pytest.raises(UserError, match=message):
        experiment.parse(GIVEN | {"scaling": scaling})


def test_scaling_has_every_size_with_each_multiple_in_both_series():
    found = published("scaling")
    shapes = {
        arm: (run["objective"]["name"], run["model"]["width"], found.times[arm])
        for arm, run in found.runs.items()
    }
    assert sorted(shapes.values()) == sorted(
        itertools.product(("clm", "hybrid"), (32, 64, 128), (1.0, 4.0, 16.0))
    )
    names = record.untrained(found.runs, {arm: shape[0] for arm, shape in shapes.items()})
    assert sum(owns for _, owns in names.values()) == 6 and names["clm_m_1"] == (
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


def test_other_steps_than_before_are_refused(tmp_path):
    old = {"planned": {"a": {"steps": 10}}}
    record.check_planned(tmp_path, old, {"a": {"steps": 10}})
    with pytest.raises(UserError, match="runs of 'a' had 10 steps, now they would have 11"):
        record.check_planned(tmp_path, old, {"a": {"steps": 11}})


def test_each_arm_has_as_many_trials_of_its_own_value_with_another_seed():
    found = experiment.parse(GIVEN)
    configs = [tuning.config(found, "a", index, 100) for index in range(3)]
    assert [each["optimizer"]["learning_rate"] for each in configs] == [0.01, 0.02, 0.04]
    assert all(
        each["seed"] == 9 and each["training"]["steps"] == 25 and each["training"]["tokens"] == 0
        for each in configs
    )
    whole = experiment.parse(GIVEN | {"tuning": GIVEN["tuning"] | {"field": "optimizer.warm"}})
    assert [experiment.tuned_value(whole.runs["a"], whole.tuning, index) for index in range(3)] == [
        5,
        10,
        20,
    ]


@pytest.mark.parametrize("field", ["objective.smoothing", "tokenizer.vocab_size", "data.length"])
def test_no_field_that_changes_the_loss_is_tuned_by_it(field):
    with pytest.raises(
        UserError, match=f"config.tuning: field='{field}' changes what the validation loss is"
    ):
        experiment.parse(GIVEN | {"tuning": GIVEN["tuning"] | {"field": field}})


def test_an_arm_with_the_name_of_a_baseline_is_refused():
    with pytest.raises(UserError, match="the arm 'unigram' has the name of a baseline"):
        experiment.check_comparisons(
            [], {"clm", "unigram"}, {("causal", "nll"): {"unigram", "bigram"}}
        )
    experiment.check_comparisons([], {"clm"}, {})


@pytest.mark.parametrize(
    "field", ["training.batch_size", "training.steps", "model.width", "model.layers"]
)
def test_no_field_that_changes_the_budget_is_tuned(field):
    with pytest.raises(
        UserError, match=f"config.tuning: field='{field}' may change what a run costs"
    ):
        experiment.parse(GIVEN | {"tuning": GIVEN["tuning"] | {"field": field}})


def test_untrained_models_are_told_apart_by_shape_not_by_how_they_are_computed():
    other = RUN | {"model": RUN["model"] | {"attention": "xla", "remat": "all"}}
    wider = RUN | {"model": RUN["model"] | {"width": 64}}
    arms = {"a": RUN, "b": other, "c": wider}
    found = record.untrained(arms, dict.fromkeys("abc", "causal"))
    assert found == {
        "a": ("untrained decoder", True),
        "b": ("untrained decoder", False),
        "c": ("untrained c", True),
    }
    # A workdir may be continued after its arms were declared in another order.
    assert record.untrained(dict(reversed(arms.items())), dict.fromkeys("abc", "causal")) == found


def test_reports_show_arms_in_the_order_of_their_declaration():
    found = published("hybrid_ratio")
    assert [of["label"] for of in found.plain["arms"].values()] == [
        "1:0",
        "15:1",
        "7:1",
        "1:1",
        "1:7",
        "1:15",
        "0:1",
    ]
    assert list(found.runs) == list(found.times) == list(found.plain["arms"])
    assert list(published("objectives").tasks) == ["causal", "masked", "next_sentence", "probe"]


def test_the_best_trial_is_chosen_and_an_edge_is_said(tmp_path):
    found = experiment.parse(GIVEN)
    trial(tmp_path, 0, "done", 5.0)
    trial(tmp_path, 1, "done", 4.0)
    assert tuning.record(found, tmp_path, {"a": 100})["chosen"] == {}  # one is still to come
    trial(tmp_path, 2, "diverged")
    told = tuning.record(found, tmp_path, {"a": 100})
    assert told["trials"]["a"] == [
        {"value": 0.01, "loss": 5.0, "status": "done"}, {"value": 0.02, "loss": 4.0, "status": "done"},
        {"value": 0.04, "loss": None, "status": "diverged"},
    ]  # fmt: skip
    assert told["chosen"] == {"a": 0.02} and told["edges"] == {} and told["steps"] == {"a": 25}
    (tuning.directory(tmp_path, "a", 0) / "run.json").write_text(
        json.dumps({"status": "done", "final": {"loss": 3.0}})
    )
    told = tuning.record(found, tmp_path, {"a": 100})
    assert told["chosen"] == {"a": 0.01} and told["edges"] == {"a": "lowest"}
    assert (
        "0.01: the lowest tried, so a better one may lie beyond" in tuning.notes(told)[0]
        and "0.04 → diverged" in tuning.notes(told)[0]
    )


def test_where_all_trials_diverged_the_own_value_stays(tmp_path):
    for index in range(3):
        trial(tmp_path, index, "diverged")
    told = tuning.record(experiment.parse(GIVEN), tmp_path, {"a": 100})
    assert (
        told["chosen"] == {"a": 0.02}
        and "none ended well, so it keeps its own" in tuning.notes(told)[0]
    )


CHANGES = {
    "the threshold": (
        lambda each: each["hypotheses"][0].update(value=4.0),
        r"config.hypotheses.0.value: 3.0 there, 4.0 now",
    ),
    "the direction": (lambda each: each["hypotheses"][0].update(op="above"), "hypotheses.0.op"),
    "another hypothesis": (
        lambda each: each["hypotheses"].append(each["hypotheses"][0]),
        "hypotheses.1.arm: None there",
    ),
    "the tuning": (lambda each: each["tuning"].update(factors=[1]), "config.tuning.factors"),
    "a task": (lambda each: each["tasks"].pop("causal"), "config.tasks.causal: {} there, None now"),
    "a shared batch": (
        lambda each: each.update(shared={"training": {"batch_size": 16}}),
        "config.shared.training.batch_size: None there, 16 now",
    ),
    "an arm's model": (
        lambda each: each["arms"]["a"]["run"]["model"].update(name="encoder"),
        "config.arms.a.run.model.name: 'decoder' there",
    ),
    "another multiple": (
        lambda each: each["arms"]["a"].update(times=4),
        r"config\.arms\.a\.times: 1\.0 there, 4 now",
    ),
    "length of tuning": (
        lambda each: each["tuning"].update(share=0.5),
        r"config\.tuning\.share: 0\.25 there, 0\.5 now",
    ),
    "no more tuning": (
        lambda each: each["tuning"].update(factors=[]),
        r"config\.tuning\.factors: \[0\.5, 1, 2\] there, \[\] now",
    ),
    "fewer seeds": (lambda each: each.update(seeds=[0]), "seeds may be added, not left out"),
}
FREE = {
    "words": lambda each: (
        each["hypotheses"][0].update(text="other"),
        each["arms"]["a"].update(label="B"),
        each.update(question="?"),
    ),
    "a multiple of 1, which older records do not have": lambda each: each["arms"]["a"].update(
        times=1.0
    ),
    "more seeds": lambda each: each.update(seeds=[0, 1, 2]),
    "how runs are computed": lambda each: (
        each["arms"]["a"]["run"].update(mesh={"data": 2}),
        each["arms"]["a"]["run"]["model"].update(
            attention="xla", remat="all", scan=True, head_chunks=2
        ),
        each.update(
            shared={
                "data": {"cache": "/elsewhere", "workers": 2},
                "training": {"log_every": 7, "keep": 1, "microbatches": 2},
            }
        ),
    ),
    "analysis": lambda each: each.update(
        energy={"pue": 1.5}, scaling={"task": "causal", "metric": "nll"}, workers=3
    ),
}


def fixed(tmp_path):
    return {
        "experiment": experiment.parse(copy.deepcopy(GIVEN)).plain, "seeds": [0, 1], "hypotheses_fixed": "2026-01-01", "arms": {},
        "hypotheses": GIVEN["hypotheses"],
    }  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_fixed_at_the_first_start(tmp_path, what):
    change, words = CHANGES[what]
    now = copy.deepcopy(GIVEN)
    change(now)
    with pytest.raises(UserError, match=words) as raised:
        record.check_same(tmp_path, fixed(tmp_path), experiment.parse(now))
    assert ("fixed at the first start, 2026-01-01" in str(raised.value)) == ("hypotheses" in words)


@pytest.mark.parametrize("what", FREE)
def test_what_may_change(tmp_path, what):
    now = copy.deepcopy(GIVEN)
    FREE[what](now)
    record.check_same(tmp_path, fixed(tmp_path), experiment.parse(now))


def test_how_one_would_tune_is_no_difference_where_nobody_does(tmp_path):
    before, now = (
        GIVEN | {"tuning": GIVEN["tuning"] | {"factors": [], "share": share}}
        for share in (0.25, 0.5)
    )
    old = fixed(tmp_path) | {"experiment": experiment.parse(before).plain}
    record.check_same(tmp_path, old, experiment.parse(now))


def published(name, size="tiny"):
    return experiment.parse(
        importlib.import_module(f"experiments.{name}").get_config(size).to_dict()
    )


def test_arms_that_differ_in_format_and_loss_have_one_rate_or_one_grid():
    for size in ("tiny", "small"):
        found = published("format_or_loss", size)
        factors = found.tuning.factors or (1.0,)
        grids = {
            tuple(run["optimizer"]["learning_rate"] * factor for factor in factors)
            for run in found.runs.values()
        }
        assert len(grids) == 1 and bool(found.tuning.factors) == (size == "small")


def test_masked_tokens_are_asked_as_each_arm_of_mask_rate_was_trained():
    found = published("mask_rate")
    assert found.tasks["masked"] == {"task": "masked"}
    pure = found.runs["pure_40"]["objective"]
    assert found.tasks["masked_pure"] == {
        "task": "masked",
        **{name: pure[name] for name in ("mask_share", "random_share")},
    }
    assert [each["task"] for each in found.hypotheses[-2:]] == ["masked_pure", "masked"]


def test_a_prefix_decoder_may_be_a_little_worse_where_it_is_said_to_be_no_worse():
    (claim,) = (each for each in published("architectures").hypotheses if each["task"] == "suffix")
    assert (
        (claim["op"], claim["value"]) == ("below", 0.05)
        and "no worse" in claim["text"]
        and "at most .05 nats more" in claim["text"]
    )


def test_masked_arms_of_recall_have_one_head():
    runs = published("recall").runs
    assert {runs[arm]["objective"]["head"] for arm in ("mlm_2", "mntp_2")} == {"plain"}


def test_no_arm_of_the_hybrid_ratio_is_judged_in_a_mode_that_it_does_not_train():
    found = published("hybrid_ratio")
    parts = {"causal": "causal", "masked": "masked"}
    for each in found.hypotheses:
        for arm in {each["arm"], each["compare"]} & set(found.runs):
            assert (
                each["task"] not in parts or found.runs[arm]["objective"][parts[each["task"]]] > 0
            ), (each["text"], arm)


def test_processes_side_by_side_count_once():
    assert record._covered([(0, 10), (5, 12), (20, 21), (6, 7)]) == 13
