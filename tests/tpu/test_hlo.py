"""The reader of compiled programs, on short programs in the format of the TPU compiler."""

# ruff: noqa: E501 (HLO is quoted as the compiler prints it)

import pytest

from tpu import groups, hlo

LAYOUT = groups.Layout(("data", "fsdp"), (2, 2))


def program(body: str, computations: str = "") -> hlo.Module:
    entry = f"ENTRY %main (p: f32[8,128]) -> f32[8,128] {{\n{body}\n}}\n"
    return hlo.Module(f"HloModule m, is_scheduled=true\n\n{computations}\n\n{entry}")


def only(module: hlo.Module) -> hlo.Collective:
    (collective,) = module.collectives(LAYOUT)
    return collective


@pytest.mark.parametrize(
    ("line", "kind", "buffer", "wire"),
    [
        (
            "f32[8,128]{1,0} all-reduce(%p), channel_id=1, replica_groups={{0,1},{2,3}}, to_apply=%add",
            "all-reduce",
            4096,
            4096,
        ),
        (
            "f32[16,128]{1,0} all-gather(%p), channel_id=1, replica_groups={{0,1},{2,3}}, dimensions={0}",
            "all-gather",
            8192,
            4096,
        ),
        (
            "f32[4,128]{1,0} reduce-scatter(%p), channel_id=1, replica_groups={{0,1},{2,3}}, to_apply=%add",
            "reduce-scatter",
            4096,
            2048,
        ),
        (
            "f32[8,128]{1,0} all-to-all(%p), channel_id=1, replica_groups={{0,1},{2,3}}, dimensions={0}",
            "all-to-all",
            4096,
            2048,
        ),
        (
            "bf16[8,128]{1,0} collective-permute(%p), channel_id=1, source_target_pairs={{0,1},{1,0}}",
            "collective-permute",
            2048,
            2048,
        ),
        (
            "(f32[8]{0}, f32[24]{0}) all-reduce(%p, %q), channel_id=1, replica_groups=[2,2]<=[4], to_apply=%add",
            "all-reduce",
            128,
            128,
        ),
    ],
)
def test_bytes_and_wire(line, kind, buffer, wire):
    collective = only(program(f"  %x = {line}"))
    assert (
        collective.kind,
        collective.bytes,
        collective.wire,
        collective.count,
        collective.axes,
    ) == (
        kind,
        buffer,
        wire,
        1,
        ("fsdp",),
    )


def test_a_ring_of_four_sends_three_quarters():
    line = (
        "  %x = f32[1024]{0} all-reduce(%p), channel_id=1, replica_groups=[1,4]<=[4], to_apply=%add"
    )
    collective = only(program(line))
    assert collective.wire == 2 * 3 / 4 * 4096 and collective.axes == ("data", "fsdp")


def test_a_started_operation_counts_once():
    body = """
  %s = (f32[8,128]{1,0}, f32[16,128]{1,0}, u32[]{:S(2)}) all-gather-start(%p), channel_id=1, replica_groups={{0,2},{1,3}}, dimensions={0}
  %d = f32[16,128]{1,0} all-gather-done(%s)
  %t = (bf16[8]{0:S(1)}, bf16[8]{0:S(1)}, u32[]{:S(2)}) collective-permute-start(%p), channel_id=2, source_target_pairs={{0,2},{2,0}}
  %u = bf16[8]{0:S(1)} collective-permute-done(%t)
  %v = (bf16[8]{0:S(3)}, bf16[8]{0:S(3)}, u32[]{:S(2)}) collective-permute-start(%p), channel_id=3, source_target_pairs={{0,2},{2,0}}"""
    gather, permute, on_v4 = program(body).collectives(LAYOUT)
    assert (gather.bytes, gather.wire, gather.axes) == (8192, 4096, ("data",))
    for sent in (permute, on_v4):
        assert (sent.bytes, sent.wire, sent.axes) == (16, 16, ("data",))


SPREAD = """%start.1 (a: f32[8,128]) -> f32[16,128] {
  %a = f32[8,128]{1,0} parameter(0)
  %g.1 = f32[16,128]{1,0} all-gather(%a), channel_id=7, replica_groups=[2,2]<=[4], dimensions={0}, backend_config={"async_collective_fusion_config":{"flag_start":"-1"}}
  ROOT %c.1 = (f32[8,128]{1,0}, f32[16,128]{1,0}) custom-call(%g.1), custom_call_target="AsyncCollectiveStart"
}

%middle.1 (a: f32[8,128]) -> f32[16,128] {
  %b = f32[8,128]{1,0} parameter(0)
  ROOT %g.2 = f32[16,128]{1,0} all-gather(%b), channel_id=7, replica_groups=[2,2]<=[4], dimensions={0}, backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
}

%done.1 (a: f32[8,128]) -> f32[16,128] {
  %d = f32[8,128]{1,0} parameter(0)
  %g.3 = f32[16,128]{1,0} all-gather(%d), channel_id=7, replica_groups=[2,2]<=[4], dimensions={0}, backend_config={"async_collective_fusion_config":{"flag_start":"-1"}}
  ROOT %c.3 = f32[16,128]{1,0} custom-call(%g.3), custom_call_target="AsyncCollectiveDone"
}"""


def test_an_operation_spread_over_fusions_counts_once():
    body = """
  %f.1 = f32[16,128]{1,0} fusion(%p), kind=kCustom, calls=%start.1
  %f.2 = f32[16,128]{1,0} fusion(%p), kind=kOutput, calls=%middle.1
  %f.3 = f32[16,128]{1,0} fusion(%p), kind=kCustom, calls=%done.1"""
    assert only(program(body, SPREAD)).wire == 4096


def test_a_fused_all_reduce_and_slice_is_a_reduce_scatter():
    inside = """%all-reduce-scatter.3 (a: f32[8,128]) -> f32[4,128] {
  %a = f32[8,128]{1,0} parameter(0)
  %r = f32[8,128]{1,0} all-reduce(%a), channel_id=1, replica_groups={{0,2},{1,3}}, to_apply=%add
  ROOT %d = f32[4,128]{1,0} dynamic-slice(%r, %i, %j), dynamic_slice_sizes={4,128}
}"""
    collective = only(
        program(
            "  %f = f32[4,128]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.3", inside
        )
    )
    assert (collective.kind, collective.bytes, collective.wire, collective.axes) == (
        "reduce-scatter",
        4096,
        2048,
        ("data",),
    )


LOOPS = """%inner_cond (t: (s32[])) -> pred[] {
  %three = s32[]{:T(128)} constant(3)
  %t = (s32[]{:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%t), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %three), direction=LT
}

%inner_body (t: (s32[])) -> (s32[]) {
  %t.1 = (s32[]{:T(128)}) parameter(0)
  %r = f32[256]{0} all-reduce(%x), channel_id=4, replica_groups={{0,1},{2,3}}, to_apply=%add, metadata={op_name="jit(_train_step)/while/body/dot_general" stack_frame_id=4}
  %f = f32[256]{0} fusion(%r), kind=kLoop, calls=%fused, backend_config={"window_config":{"estimated_cycles":"10"}}
  ROOT %t.2 = (s32[]{:T(128)}) tuple(%i)
}

%fused (x: f32[256]) -> f32[256] {
  ROOT %y = f32[256]{0} negate(%x), backend_config={"window_config":{"estimated_cycles":"1000"}}
}

%outer_body (t: (s32[])) -> (s32[]) {
  %t.3 = (s32[]{:T(128)}) parameter(0)
  ROOT %w.1 = (s32[]{:T(128)}) while(%t.3), condition=%inner_cond, body=%inner_body
}

%outer_cond (t: (s32[])) -> pred[] {
  ROOT %lt.1 = pred[] fusion(%t), kind=kLoop, calls=%compare
}"""


def reordered(loops: str) -> str:
    """Callees before callers, as the compiler prints them."""
    blocks = {block.split(" ")[0]: block for block in loops.split("\n\n")}
    return "\n\n".join(
        blocks[name]
        for name in ("%inner_cond", "%fused", "%inner_body", "%outer_cond", "%outer_body")
    )


def test_trips_of_nested_loops_multiply():
    known = 'backend_config={"known_trip_count":{"n":"5"}}'
    body = f"  %w = (s32[]{{:T(128)}}) while(%t), condition=%outer_cond, body=%outer_body, {known}\n  %c = f32[8]{{0}} copy(%p), x={{"
    body += '"estimated_cycles":"7"}'
    module = program(body, reordered(LOOPS))
    assert sorted(module.loops) == [3, 5]
    collective = only(module)
    assert (collective.count, collective.source) == (15, "while/body/dot_general")
    assert module.cycles() == 15 * 10 + 7  # a fusion's estimate includes its body


def test_a_loop_of_unknown_length_counts_once_and_is_marked():
    body = "  %w = (s32[]{:T(128)}) while(%t), condition=%outer_cond, body=%outer_body"
    module = program(body, reordered(LOOPS))
    assert sorted(module.loops, key=str) == [3, None] and only(module).count == 3


def test_between_slices():
    line = (
        "  %s = (f32[128,8,128]{2,1,0}, u32[], token[]) send(%p, %a), channel_id=2, is_host_transfer=true,"
        ' frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_transfer_type="ALL_REDUCE"}'
    )
    layout = groups.Layout(("slice", "fsdp"), (2, 2), (0, 0, 1, 1), dcn=1e9)
    (collective,) = program(line).collectives(layout)
    assert (
        collective.kind,
        collective.bytes,
        collective.wire,
        collective.axes,
        collective.dcn,
    ) == (
        "all-reduce",
        2**19,
        2**19,
        ("slice",),
        True,
    )
    assert collective.seconds == pytest.approx(2**19 / 1e9)


def test_largest_buffers_are_padded_and_in_hbm():
    body = """
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  %a = f32[64,64]{1,0:T(8,128)} add(%p, %p), metadata={op_name="jit(_train_step)/add"}
  %b = bf16[512,512]{1,0:T(8,128)(2,1)S(1)} fusion(%a), kind=kLoop, calls=%f
  %c = (bf16[8,4096]{1,0:T(8,128)(2,1)}, f32[2]{0:T(128)}) fusion(%a), kind=kLoop, calls=%f
  %d = f32[1024,1024]{1,0:T(8,128)} bitcast(%a)"""
    assert program(body).largest(2) == [("bf16[8,4096]", 65536, ""), ("f32[64,64]", 32768, "add")]


def test_shapes():
    (array,) = hlo.arrays("bf16[4,12,1000]{1,2,0:T(8,128)(2,1)S(1)}")
    assert (array.dtype, array.sizes, array.bytes, array.padded, array.space) == (
        "bf16",
        (4, 12, 1000),
        96000,
        4 * 1000 * 128 * 2,
        1,
    )


def test_text_that_is_not_hlo_raises():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.Module("nothing")
