"""The planner without a compiler: candidates, order of compilation, stopping, the cache."""

import dataclasses
import itertools
import json
import math

import pytest

from lm.core.plugins import UserError
from tpu import cache, estimate, search, slices
from tpu.estimate import ModelSizes, Plan

# A decoder of 1.2e9 parameters, 64 rows of 2,048 tokens.
SIZES = ModelSizes(
    parameters=1_235_814_400, inner=973_144_064, state=12 * 1_235_814_400, forward=3.6e14,
    stack=2.9e14, rows=64, streams=2048, length=2048, layers=16, width=2048, feedforward=8192,
    heads=32, kv_heads=8, head_width=64, predictions=2048, vocabulary=128256, itemsize=2,
)  # fmt: skip
V5E = slices.parse("v5e-16")


def test_factorizations():
    assert sorted(search.factorizations(4, 2)) == [(1, 4), (2, 2), (4, 1)]
    assert len(list(search.factorizations(16, 5))) == math.comb(8, 4)


def test_meshes_divide_everything():
    plans = list(search.meshes(SIZES, V5E, [2048]))
    for plan in plans:
        assert plan.data * plan.fsdp * plan.stage * plan.context * plan.tensor == 16
        assert (
            SIZES.kv_heads % plan.tensor == 0
            and SIZES.rows % plan.split == 0
            and SIZES.layers % plan.stage == 0
        )
        assert 2048 % (plan.context * plan.tensor) == 0
    # There are 8 key-value heads.
    assert any(plan.tensor == 8 for plan in plans)
    assert not any(plan.tensor == 16 for plan in plans)
    assert any(plan.stage > 1 and plan.pipeline_microbatches >= plan.stage for plan in plans)
    assert len(set(plans)) == len(plans)


def test_a_target_stream_that_does_not_divide():
    plans = search.meshes(SIZES, V5E, [512, 114])
    assert {plan.context * plan.tensor for plan in plans} == {1, 2}


def test_several_slices_take_the_slice_axis():
    plans = list(search.meshes(SIZES, slices.parse("2xv5e-16"), [2048]))
    assert plans and {plan.slice for plan in plans} == {2}


def test_microbatches_are_as_few_as_may_fit():
    for plan in search.candidates(SIZES, V5E, [2048], ["none", "full"], [1]):
        assert estimate.memory(SIZES, plan) <= V5E.chip.usable
        if plan.microbatches > 1:
            assert (
                estimate.memory(
                    SIZES, dataclasses.replace(plan, microbatches=plan.microbatches // 2)
                )
                > V5E.chip.usable
            )


def test_memory_of_state_and_gradients():
    # Data parallelism replicates the state: 12 bytes a parameter, and 4 of gradients.
    small = Plan(remat="full", microbatches=4, head_chunks=64)  # gradients exceed activations
    replicated = estimate.memory(SIZES, dataclasses.replace(small, data=16))
    assert replicated == pytest.approx(16 * SIZES.parameters / 2**30)
    split = estimate.memory(SIZES, dataclasses.replace(small, fsdp=16))
    assert split == pytest.approx(replicated / 16)


@pytest.mark.parametrize(
    ("change", "better"),
    [
        ({"remat": "full"}, True),
        ({"microbatches": 4}, True),
        ({"head_chunks": 8}, True),
        ({"data": 16, "fsdp": 1}, False),
    ],
)
def test_memory_depends_on_the_plan(change, better):
    base = Plan(fsdp=16)
    changed = dataclasses.replace(base, **change)
    assert (estimate.memory(SIZES, changed) < estimate.memory(SIZES, base)) == better


def test_times_of_an_ideal_step():
    plain = estimate.seconds(SIZES, Plan(fsdp=16, remat="none"), V5E)
    full = estimate.seconds(SIZES, Plan(fsdp=16, remat="full"), V5E)
    assert plain["schedule"] >= 3 * SIZES.forward / 16 / V5E.chip.peak
    assert full["schedule"] - plain["schedule"] == pytest.approx(SIZES.stack / 16 / V5E.chip.peak)
    assert (
        plain["dcn"]
        == 0
        < estimate.seconds(SIZES, Plan(slice=2, fsdp=16), slices.parse("2xv5e-16"))["dcn"]
    )
    piped = estimate.seconds(SIZES, Plan(fsdp=4, stage=4, pipeline_microbatches=4), V5E)
    assert piped["schedule"] > plain["schedule"]  # the bubble


def test_flags_to_paste():
    mesh = {
        "data": -1,
        "fsdp": 1,
        "pipeline_microbatches": 0,
        "pipeline_repeats": 1,
        "slice": 1,
        "stage": 1,
        "context": 1,
        "tensor": 1,
    }
    base = {
        "mesh": mesh,
        "model": {"remat": "none", "head_chunks": 1},
        "training": {"microbatches": 1},
    }
    plan = Plan(fsdp=8, tensor=2, remat="full", microbatches=2)
    assert plan.flags(base) == [
        "--config.mesh.data=1",
        "--config.mesh.fsdp=8",
        "--config.mesh.tensor=2",
        "--config.model.remat=full",
        "--config.training.microbatches=2",
    ]


class Compiler:
    """Stands in for the compiler.

    Args:
      patch: a MonkeyPatch.
      gib: plan → GiB that it takes.
      slow: plan → its time relative to the ideal one.
    """

    def __init__(self, patch, gib=lambda plan: 1.0, slow=lambda plan: 1.5):
        self.plans: list[Plan] = []
        self.search = search.Search.__new__(search.Search)
        self.search.sizes, self.search.tpu, self.search.streams = SIZES, V5E, [2048]
        self.search.results, self.search._done = [], {}
        self.search.compiled, self.search.remaining, self.search.complete = 0, 0, False

        def record(plan):
            self.plans.append(plan)
            if gib(plan) > 15.75:
                return {"fits": False, "needs_gib": gib(plan), "has_gib": 15.75}
            return {
                "fits": True,
                "step_seconds": slow(plan) * self.search.ideal(plan),
                "bound": "schedule",
                "memory": {"peak": gib(plan)},
            }

        patch.setattr(self.search, "record", record)

    def run(self, most=200, top=3, remats=("none", "full")):
        self.lines: list[str] = []
        self.search.run(remats, [1], top, most, self.lines.append)
        return self.search


def test_it_finds_the_best_of_all(monkeypatch):
    compiler = Compiler(monkeypatch)
    best = compiler.run().results[0]
    every = search.candidates(SIZES, V5E, [2048], ["none", "full"], [1])
    assert best[0] == pytest.approx(1.5 * min(map(compiler.search.ideal, every)), rel=0.02)
    assert compiler.search.complete and len(compiler.plans) < len(every) / 2
    assert len(compiler.lines) == compiler.search.compiled == len(compiler.plans)


def test_it_continues_while_plans_improve(monkeypatch):
    # The plans that the formula prefers are slow; those with tensor > 1 are not.
    compiler = Compiler(monkeypatch, slow=lambda plan: 3.0 if plan.tensor == 1 else 1.1)
    assert compiler.run().results[0][1].tensor > 1


def test_policies_are_tried_on_the_best_meshes(monkeypatch):
    compiler = Compiler(
        monkeypatch,
        slow=lambda plan: 1.0 + 0.1 * plan.context + (0.5 if plan.remat == "none" else 0.2),
    )
    results = compiler.run(top=3).results
    by_mesh = {
        search._mesh(plan): seconds
        for seconds, plan, _ in reversed(results)
        if plan.remat == "full"
    }
    tried = {search._mesh(plan) for plan in compiler.plans if plan.remat == "none"}
    assert len(tried) == 3 < len(by_mesh)
    assert all(by_mesh[mesh] <= sorted(by_mesh.values())[2] for mesh in tried)


def test_a_slow_policy_does_not_hide_a_quick_one(monkeypatch):
    compiler = Compiler(monkeypatch, slow=lambda plan: 3.0 if plan.remat == "none" else 1.2)
    assert compiler.run().results[0][1].remat == "full"
    compiler = Compiler(monkeypatch, slow=lambda plan: 3.0 if plan.remat == "full" else 1.2)
    assert compiler.run().results[0][1].remat == "none"


def test_what_does_not_fit_is_tried_with_more_microbatches(monkeypatch):
    compiler = Compiler(monkeypatch, gib=lambda plan: 64.0 / plan.microbatches)
    results = compiler.run(remats=["none"]).results
    assert results and all(plan.microbatches >= 8 for _, plan, _ in results)
    # 64 GiB in 15.75 need eight parts: after two there is no need to try four.
    assert not {2, 4} <= {plan.microbatches for plan in compiler.plans if plan.fsdp == 16}


def test_nothing_fits(monkeypatch):
    planner = Compiler(monkeypatch, gib=lambda plan: 100.0).run(most=10_000)
    assert not planner.results and planner.complete


def test_the_limit_holds(monkeypatch):
    planner = Compiler(monkeypatch).run(most=4, top=10)
    assert planner.compiled == 4 and not planner.complete and planner.remaining > 0


def test_rows_that_cannot_be_divided(monkeypatch):
    compiler = Compiler(monkeypatch)
    compiler.search.sizes = dataclasses.replace(
        SIZES, rows=7, heads=7, kv_heads=7, width=2049, layers=7, feedforward=7
    )
    compiler.search.streams = [7]
    with pytest.raises(UserError, match="no mesh divides 7 rows"):
        compiler.run()


def test_records_are_kept(tmp_path):
    calls = itertools.count()
    records = cache.Cache(tmp_path / "plans")
    first = records.get("a", lambda: {"n": next(calls)})
    again = cache.Cache(tmp_path / "plans").get("a", lambda: {"n": next(calls)})
    assert (first["n"], again["n"], first["cached"], again["cached"]) == (0, 0, False, True)
    (tmp_path / "plans" / "a.json").write_text("{half")
    assert records.get("a", lambda: {"n": next(calls)})["n"] == 1
    assert json.loads((tmp_path / "plans" / "a.json").read_text())["n"] == 1


def test_without_a_directory_nothing_is_kept():
    calls = itertools.count()
    records = cache.Cache(None)
    assert [records.get("a", lambda: {"n": next(calls)})["n"] for _ in range(2)] == [0, 1]


def test_the_key_depends_on_what_is_compiled():
    config = {
        "model": {"width": 8},
        "training": {"batch_size": 8, "microbatches": 1, "steps": 5},
        "mesh": {"data": 1},
        "seed": 0,
    }
    same = {**config, "training": {**config["training"], "steps": 9}, "seed": 3}
    other = {**config, "model": {"width": 9}}
    key = cache.key(config, "v5e-16", {"a": "1"})
    assert cache.key(same, "v5e-16", {"a": "1"}) == key
    assert (
        len(
            {
                key,
                cache.key(other, "v5e-16", {"a": "1"}),
                cache.key(config, "v5e-8", {"a": "1"}),
                cache.key(config, "v5e-16", {}),
            }
        )
        == 4
    )


def test_a_plans_flags_follow_the_users():
    given = [
        "--config.model.dtype=bfloat16",
        "--config.mesh.fsdp=-1",
        "--config.training.batch_size=64",
    ]
    planned = ["--config.mesh.fsdp=8", "--config.mesh.tensor=2"]
    assert search.merge_flags(given, planned) == [given[0], given[2], *planned]
