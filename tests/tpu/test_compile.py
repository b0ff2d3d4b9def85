"""The TPU compiler on a small decoder: memory, counts, and collectives against theory.

All transfers are in the compute dtype, 2 bytes. Every formula gives the bytes that a device sends
in a step, in rings.
"""

import copy
import functools
import math

import pytest
from tests_tpu import needs_compiler  # noqa: F401

pytestmark = pytest.mark.usefixtures("needs_compiler")

L, D, F, V, T, B = 2, 256, 1024, 1024, 256, 16
MATRICES = L * (4 * D * D + 2 * D * F)
N = 4


def config(**sections):
    """A decoder of L layers, scanned, in bfloat16."""
    from lm import presets
    from lm.core.plain import plain

    model = presets.model(
        "decoder", layers=L, width=D, heads=4, feedforward=F, vocab_size=V, max_length=T,
        positions="rotary", norm="rms", bias=False, activation="gelu_tanh", dtype="bfloat16",
    )  # fmt: skip
    made = plain(
        presets.run(
            model, presets.objective("clm"), data={"length": T}, tokenizer={"vocab_size": V},
            optimizer={"learning_rate": 3e-4}, training={"batch_size": B, "steps": 100},
        )
    )  # fmt: skip
    for name, fields in sections.items():
        made[name] |= fields
    return made


@functools.cache
def measured(**mesh):
    from tpu import measure, slices

    tpu = slices.parse("v5e-4")
    return measure.measure(config(mesh={"data": 1, **mesh}), tpu, measure.options(tpu, []))


def sent(record, kind: str, axis: str) -> float:
    """MiB that a device sends along an axis in collectives of a kind."""
    return sum(
        row["wire_mib"]
        for row in record["collectives"]
        if row["kind"] == kind and row["axes"] == [axis]
    )


def ring(size: int = N) -> float:
    return (size - 1) / size


def test_data_parallel_gradients_are_sent_once():
    # Except for the tied embedding: its gradients of the logits and of the lookup are sent apart.
    record = measured(data=N)
    theory = 2 * ring() * 2 * (MATRICES + 2 * V * D)
    assert sent(record, "all-reduce", "data") == pytest.approx(theory / 2**20, rel=0.1)
    assert record["wire_mib"] == pytest.approx(theory / 2**20, rel=0.1)


def test_fsdp_gathers_twice_and_scatters_once():
    # Weights are gathered in both passes, the table for the logits only. The lookup moves rows
    # instead: those that a device looks up are sent to it, and their gradients back.
    record = measured(fsdp=N)
    gathered, scattered = ring() * 2 * (2 * MATRICES + V * D), ring() * 2 * (MATRICES + V * D)
    looked_up = 2 * ring() * 2 * B * T * D / N
    assert sent(record, "all-gather", "fsdp") == pytest.approx(gathered / 2**20, rel=0.1)
    assert sent(record, "reduce-scatter", "fsdp") == pytest.approx(scattered / 2**20, rel=0.1)
    assert record["wire_mib"] == pytest.approx((gathered + scattered + looked_up) / 2**20, rel=0.1)


def test_tensor_parallel_moves_activations():
    # Megatron with a split sequence (Korthikanti et al. 2022): a gather before and a scatter after
    # attention and feed-forward, in both passes; a scatter after the lookup and a gather before the
    # logits.
    record = measured(tensor=N)
    theory = ring() * (L * 2 * 2 * 2 + 2) * 2 * B * T * D
    assert record["wire_mib"] == pytest.approx(theory / 2**20, rel=0.1)


def test_context_gathers_keys_and_values():
    # Once for every layer: they are kept for the backward pass. Their gradients and those of the
    # weights are summed over the devices.
    record = measured(context=N)
    assert sent(record, "all-gather", "context") == pytest.approx(
        ring() * L * 2 * 2 * B * T * D / 2**20, rel=0.1
    )


def test_a_ring_passes_keys_and_values():
    # N - 1 times a part of both, and their gradients back.
    record = measured(context=N, context_attention="ring")
    assert sent(record, "collective-permute", "context") == pytest.approx(
        (N - 1) / N * L * 2 * 2 * 2 * B * T * D / 2**20, rel=0.1
    )
    weights = 2 * ring() * 2 * (MATRICES + 2 * V * D)
    assert sent(record, "all-reduce", "context") == pytest.approx(weights / 2**20, rel=0.1)


def test_a_pipeline_passes_a_microbatch_each_turn():
    # M + S - 1 turns, forward and backward; a device has its data-parallel part of a microbatch.
    stages = microbatches = 2
    record = measured(data=2, stage=stages)
    sent_bytes = 2 * B // microbatches // 2 * T * D
    assert sent(record, "collective-permute", "stage") == pytest.approx(
        2 * (microbatches + stages - 1) * sent_bytes / 2**20, rel=0.1
    )


def test_flops_of_scanned_layers_are_those_of_the_formula():
    # Every product once forward and twice backward. Nothing is recomputed, and this kind of
    # attention skips nothing.
    record = measured(data=N)
    assert record["unknown_loops"] == 0
    assert record["flops"] == pytest.approx(record["model_flops"], rel=0.002)


def test_the_compilers_own_count_of_unrolled_layers_agrees():
    from tpu import compiling, measure, slices

    tpu = slices.parse("v5e-4")
    counted = compiling.cost(config(mesh={"data": N}), tpu, measure.options(tpu, []))
    assert counted["flops"] == pytest.approx(
        measured(data=N)["flops"], rel=0.05
    )  # it counts additions and the like, too
    assert (
        measured(data=N)["traffic_gb"] * 1e9 < counted["bytes"]
    )  # it counts what stays on the chip, too


def test_offloaded_inputs_are_in_host_memory(tmp_path):
    from tpu import measure, slices

    tpu = slices.parse("v5e-4")
    offloaded = config(mesh={"data": 1, "fsdp": N}, model={"remat": "offload"})
    assert measure.measure(offloaded, tpu, measure.options(tpu, []), save=str(tmp_path / "hlo"))[
        "fits"
    ]
    assert f"bf16[{L},{B // N},{T},{D}]" in (tmp_path / "hlo").read_text()
    # S(5) is XLA's name for host memory.
    host = [line for line in (tmp_path / "hlo").read_text().splitlines() if "S(5)" in line]
    assert any(f"bf16[{L},{B // N},{T},{D}]" in line for line in host)


def test_the_record_of_memory():
    record = measured(fsdp=N)
    assert record["fits"] and record["held"]["parameters"] == pytest.approx(
        4 * record["parameters"] / N / 2**30, rel=0.01
    )
    assert record["held"]["optimizer"] == pytest.approx(2 * record["held"]["parameters"], rel=0.01)
    memory = record["memory"]
    assert (
        sum(record["held"].values()) <= memory["arguments"] * 1.01
        and memory["arguments"] < memory["peak"] < record["usable_gib"]
    )
    assert record["largest"] and record["largest"][0]["gib"] <= memory["peak"]


def test_the_step_is_its_largest_bound():
    record = measured(data=N)
    assert (
        record["step_seconds"]
        == max(record["ceilings"].values())
        == record["ceilings"][record["bound"]]
    )
    assert record["tokens_per_second_per_chip"] == pytest.approx(B * T / record["step_seconds"] / N)
    assert 0 < record["mfu"] < 1


def test_the_planners_memory_is_a_lower_bound():
    from tpu import cache, estimate, measure, search, slices

    tpu = slices.parse("v5e-4")
    planner = search.Search(config(), tpu, measure.options(tpu, []), cache.Cache(None))
    for mesh in ({"data": N}, {"fsdp": N}, {"tensor": N}):
        assert (
            estimate.memory(planner.sizes, estimate.Plan(**mesh))
            <= measured(**mesh)["memory"]["peak"]
        ), mesh


def test_a_step_that_is_too_large_gives_advice():
    from tpu import measure, slices

    tpu = slices.parse("v5e-4")
    large = copy.deepcopy(config(mesh={"data": N}))
    large["training"]["batch_size"] = B * 512
    record = measure.measure(large, tpu, measure.options(tpu, []))
    assert not record["fits"] and record["needs_gib"] > record["has_gib"] == 15.75
    assert any("remat=full" in flags for flags in record["advice"])
    assert any("--tpu=v5e-8" in flags for flags in record["advice"])


def test_an_unknown_option_raises():
    from lm.core.plugins import UserError
    from tpu import measure, slices

    with pytest.raises(UserError, match="has no option 'xla_nonsense'"):
        measure.measure(config(), slices.parse("v5e-4"), {"xla_nonsense": "true"})


def test_every_slice_is_known_to_the_compiler():
    from tpu import compiling, slices

    for name in (
        "v2-8",
        "v3-32",
        "v4-16",
        "v5e-1",
        "v5e-256",
        "v5p-64",
        "v6e-8",
        "tpu7x-8",
        "2xv5e-16",
    ):
        tpu = slices.parse(name)
        devices = compiling.devices(tpu)
        assert len(devices) == tpu.devices and math.prod(tpu.shape) * tpu.slices == tpu.chips
        assert len({getattr(device, "slice_index", None) or 0 for device in devices}) == tpu.slices
        assert any(devices[0].device_kind.startswith(kind) for kind in tpu.chip.kinds)


def test_the_compiler_knows_every_generations_options():
    import jax
    import jax.numpy as jnp
    from jax.sharding import SingleDeviceSharding

    from tpu import compiling, flags, slices

    for name in ("v2-8", "v3-8", "v4-8", "v5e-4", "v5p-8", "v6e-4", "tpu7x-8"):
        tpu = slices.parse(name)
        here = SingleDeviceSharding(compiling.devices(tpu)[0])
        jax.jit(jnp.negative).lower(
            jax.ShapeDtypeStruct((8, 128), jnp.float32, sharding=here)
        ).compile(flags.options(tpu.generation))
