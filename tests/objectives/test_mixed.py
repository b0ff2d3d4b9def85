"""Objectives of two modes or several members: hybrid, mntp, mixture, biphasic."""

from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats
from small_corpus import Ids, config, numbers, quick_compilation, random_store, state

from lm.core import compatibility
from lm.core.plugins import UserError
from lm.data import loader
from lm.training.program import Program, divide_sums, total_loss

VOCABULARY, SENTINELS, LENGTH = 96, 24, 32
SPECIAL = Ids.mask + 1
quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


@pytest.fixture(scope="module")
def store():
    return random_store(VOCABULARY - SENTINELS - 3, 400)


def tokenizer() -> Ids:
    return Ids(VOCABULARY, SENTINELS)


def make(name: str, model: str = "decoder", **options: Any) -> Any:
    return compatibility.make({"name": name, **options}, tokenizer(), LENGTH, model)


def build(name: str, model: str, options: dict, **sections) -> Program:
    section = config(
        name,
        options=options,
        model={"name": model, "layers": 1, "types": 2 * (model == "encoder")},
        **sections,
    )
    return Program(section, tokenizer(), jax.devices()[:1])


def stacked(rows: list[dict]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def examples(objective, store, **run) -> list[dict[str, np.ndarray]]:
    dataset = loader.examples(objective, store, objective.plan(store), 0, **run)
    return [
        dataset[index] for index in range(run["batch_size"] * run["steps"] if run else len(dataset))
    ]


def watched(objective, store, **run) -> tuple[list[dict], list[tuple[str, dict]]]:
    """Examples of a composed objective, and for each the name and the example of its member."""
    plan, seen = objective.plan(store), []
    for name, member in objective.members.items():

        def example(*arguments, name=name, member=member):
            made = type(member).example(member, *arguments)
            seen.append((name, dict(made)))
            return made

        member.example = example
    dataset = loader.examples(objective, store, plan, 0, **run)
    rows = [
        dataset[index] for index in range(run["batch_size"] * run["steps"] if run else len(dataset))
    ]
    assert len(rows) == len(seen)
    return rows, seen


def means(terms, factors) -> float:
    return sum(
        factors[name] * float(value) / float(weight)
        for name, (value, weight) in terms.items()
        if weight
    )


def causal_as_clm(row, clm):
    assert (
        row["tokens"].tolist() == clm["tokens"].tolist()
        and row["targets"].tolist() == clm["targets"].tolist()
    )
    assert not row["prefix"].any() and ((row["weights"] > 0) == clm["weights"]).all()
    assert len(set(row["weights"][row["weights"] > 0].tolist())) == 1


def masked_as_next(row, clm):
    changed = np.flatnonzero(row["tokens"] != clm["tokens"])
    at = np.flatnonzero(row["weights"])
    assert row["targets"][at].tolist() == clm["tokens"][at + 1].tolist(), (
        "token k + 1 is predicted at k"
    )
    assert (row["segments"][at] == row["segments"][at + 1]).all()
    assert set(changed) <= set(at + 1)
    assert row["prefix"].tolist() == (row["segments"] > 0).tolist(), (
        "every token of a segment sees all of it"
    )
    used = int((row["segments"] > 0).sum())
    assert row["count"] == len(at) == max(1, round(0.15 * used)), "the rate at the end of the run"
    assert len(set(row["weights"][at].tolist())) == 1


@pytest.mark.parametrize("masked", [1, 7])
def test_hybrid_rows(store, masked):
    rows, clm = (
        examples(make("hybrid", causal=1, masked=masked), store),
        examples(make("clm"), store),
    )
    modes = np.array([row["is_masked"] for row in rows])
    assert stats.binomtest(int(modes.sum()), len(rows), masked / (1 + masked)).pvalue > 1e-3
    for row, plain in zip(rows, clm, strict=True):
        assert (
            row["weights"].sum() == pytest.approx(1, abs=1e-6)
            and row["count"] == (row["weights"] > 0).sum()
        )
        (masked_as_next if row["is_masked"] else causal_as_clm)(row, plain)


@pytest.mark.parametrize(
    ("causal", "masked", "scores"),
    [(1, 0, ("causal",)), (0, 1, ("masked_next",)), (15, 1, ("causal", "masked_next"))],
)
def test_the_hybrid_is_evaluated_in_the_modes_that_it_trains(causal, masked, scores):
    assert make("hybrid", causal=causal, masked=masked).scores == scores


def test_hybrid_rate_falls_from_30_to_15_percent(store):
    for index, row in enumerate(examples(make("hybrid", causal=0), store, batch_size=4, steps=20)):
        used = int((row["segments"] > 0).sum())
        assert row["count"] == max(1, round(used * (0.3 - 0.15 * (index // 4) / 20)))


@pytest.mark.parametrize("unit", ["token", "word", "word_span"])
def test_mntp_masks_as_mlm_does_and_predicts_one_position_earlier(store, unit):
    for mlm, mntp in zip(
        examples(make("mlm", "encoder", unit=unit), store),
        examples(make("mntp", "encoder", unit=unit), store),
        strict=True,
    ):
        real = mlm["weights"] > 0
        assert (mlm["weights"] == mntp["weights"]).all() and (
            mlm["targets"] == mntp["targets"]
        ).all()
        assert (mntp["target_positions"][real] == mlm["target_positions"][real] - 1).all()
        renamed = np.select(
            [mlm["tokens"] == Ids.cls, mlm["tokens"] == Ids.sep], [Ids.bos, Ids.eos], mlm["tokens"]
        )
        outside = np.setdiff1d(np.arange(LENGTH), mlm["target_positions"][real])
        assert (renamed[outside] == mntp["tokens"][outside]).all()
        assert (
            mlm["tokens"][mlm["target_positions"][real]]
            == mntp["tokens"][mntp["target_positions"][real] + 1]
        ).all()


MIXTURES = {
    "decoder": {
        "clm": {"weight": 1.0},
        "mntp": {"weight": 2.0, "rate": 0.3},
        "span_corruption": {"weight": 1.0},
    },
    "encoder_decoder": {"span_corruption": {"weight": 3.0}, "prefix_lm": {"weight": 1.0}},
    "encoder": {"mlm": {"weight": 1.0, "head": "plain"}, "mntp": {"weight": 1.0, "rate": 0.4}},
    "encoder, several passes": {
        "mlm": {"weight": 1.0},
        "nsp": {"weight": 3.0},
        "rtd": {"weight": 1.0},
    },
}


@pytest.mark.parametrize("case", MIXTURES)
def test_a_mixture_is_the_mean_over_sequences_of_their_members_losses(store, case):
    program = build("mixture", case.split(",")[0], {"members": MIXTURES[case]})
    objective = program.objective
    assert objective.single_pass == ("," not in case)
    rows, seen = watched(objective, store)
    names = list(objective.members)
    total = sum(options["weight"] for options in MIXTURES[case].values())
    for index, name in enumerate(names):
        count = sum(int(row["member"]) == index for row in rows)
        assert (
            stats.binomtest(count, len(rows), MIXTURES[case][name]["weight"] / total).pvalue > 1e-3
        )
    assert [names[row["member"]] for row in rows] == [name for name, _ in seen]

    params, own = numbers(program.shapes["params"]), {}
    for name, member in objective.members.items():
        own[name] = program.jit(
            lambda model, batch, member=member: member.loss(model, batch, None)[0]
        )
    expected = [
        means(own[name](params, stacked([row])), objective.members[name].terms)
        for name, row in seen[:12]
    ]
    assert {name for name, _ in seen[:12]} == set(names)
    terms, metrics = program.jit(lambda model, batch: objective.loss(model, batch, None))(
        params, stacked(rows[:12])
    )
    value, weight = terms["mixture"]
    assert weight == 12 and float(value) == pytest.approx(sum(expected), rel=1e-5)
    if objective.single_pass:
        for name in names:
            losses = [
                loss for loss, (which, _) in zip(expected, seen[:12], strict=True) if which == name
            ]
            assert float(metrics[f"{name}_nll"][0]) == pytest.approx(
                sum(losses), rel=1e-5
            ) and metrics[f"{name}_nll"][1] == len(losses)


@pytest.mark.parametrize(
    ("model", "members", "message"),
    [
        ("decoder", {"clm": {"weight": 1.0}, "mlmm": {"weight": 1.0}}, "mlmm.*did you mean"),
        (
            "decoder",
            {"clm": {"weight": 1.0}, "mixture": {"weight": 1.0}},
            "mixture.*cannot be a member",
        ),
        (
            "decoder",
            {"clm": {"weight": 1.0}, "biphasic": {"weight": 1.0}},
            "biphasic.*cannot be a member",
        ),
        ("decoder", {"clm": {"weight": 0.0}, "mntp": {"weight": 1.0}}, "clm.*weight above 0"),
        ("decoder", {"clm": {"weight": -1.0}}, "clm.*weight above 0"),
        ("decoder", {"clm": 3}, "clm.*weight above 0"),
        ("decoder", {}, "members is empty"),
        ("encoder", {"mlm": {}, "clm": {}}, "clm.*bidirectional.*models for it: decoder"),
        ("decoder", {"nsp": {}, "clm": {}}, "nsp.*prefix.*models for it: encoder"),
        ("decoder", {"mntp": {"rat": 0.3}}, r"members\.mntp\.rat.*did you mean"),
        ("encoder", {"nsp": {"pooling": "mean"}, "sop": {}}, "poolings are first, mean"),
    ],
)
def test_impossible_mixtures_are_refused(model, members, message):
    with pytest.raises(UserError, match=f"(?s){message}"):
        make("mixture", model, members=members)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("encoder", {}, "clm.*bidirectional.*decoder"),
        ("decoder", {"second": "clm"}, "both 'clm'"),
        ("decoder", {"share": 1.0}, r"share=1\.0"),
        ("decoder", {"second": "mixture"}, "mixture.*cannot be a member"),
    ],
)
def test_impossible_phases_are_refused(model, options, message):
    with pytest.raises(UserError, match=message):
        make("biphasic", model, **options)


PHASES = {"first": "clm", "second": "mlm", "share": 0.375, "second_options": {"rate": 0.4}}
RUN = {"batch_size": 4, "steps": 8}


@pytest.fixture(scope="module")
def biphasic():
    return build(
        "biphasic",
        "decoder",
        PHASES,
        training=RUN,
        optimizer={"warmup": 0.0, "learning_rate": 0.01},
    )


def test_whole_batches_of_one_phase(store):
    rows, seen = watched(make("biphasic", **PHASES), store, **RUN)
    assert [int(row["phase"]) for row in rows] == [0] * 12 + [1] * 20
    assert [name for name, _ in seen] == ["clm"] * 12 + ["mlm"] * 20
    assert {int(row["phase"]) for row in examples(make("biphasic", **PHASES), store)} == {1}, (
        "held-out text is scored by the last phase"
    )


def test_a_batch_has_its_members_loss(store, biphasic):
    objective, params = biphasic.objective, numbers(biphasic.shapes["params"])
    assert objective.terms == {"clm": 1.0, "mlm": 1.0}
    rows, seen = watched(make("biphasic", **PHASES), store, **RUN)
    compiled = biphasic.jit(lambda model, batch: objective.loss(model, batch, None))
    for begin, name, other in ((8, "clm", "mlm"), (12, "mlm", "clm")):
        terms, metrics = compiled(params, stacked(rows[begin : begin + 4]))
        member = objective.members[name]
        own, more = biphasic.jit(
            lambda model, batch, member=member: member.loss(model, batch, None)
        )(params, stacked([row for _, row in seen[begin : begin + 4]]))
        assert terms[other] == (0, 0) == metrics[f"{other}_accuracy"]
        np.testing.assert_allclose(terms[name], own[name], rtol=1e-5)
        np.testing.assert_allclose(metrics[f"{name}_accuracy"], more[f"{name}_accuracy"], rtol=1e-5)
        assert biphasic.steps == 8 and total_loss(
            biphasic.terms, divide_sums(terms)
        ) == pytest.approx(means(own, {name: 1.0}))


def test_training_continues_through_the_change_of_phase(store, biphasic):
    dataset = loader.examples(
        biphasic.objective, store, biphasic.objective.plan(store), 0, 4, biphasic.steps
    )
    source, trained, moved = loader.Loader(dataset, 4, biphasic.mesh), state(biphasic), []
    for step in range(8):
        before = jax.device_get(trained["params"])
        trained, sums = biphasic.step(trained, next(source))
        after = jax.device_get(trained["params"])
        moved.append(
            max(
                np.abs(a - b).max()
                for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
            )
        )
        means = divide_sums(jax.device_get(sums))
        assert set(means) & {"clm", "mlm"} == {"clm" if step < 3 else "mlm"} and all(
            map(np.isfinite, means.values())
        )
    assert min(moved) > 0 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    counts = [int(leaf) for leaf in jax.tree.leaves(trained["opt_state"]) if leaf.ndim == 0]
    assert counts and set(counts) == {8} and trained["step"] == 8, (
        "one optimizer, whose count continues"
    )
