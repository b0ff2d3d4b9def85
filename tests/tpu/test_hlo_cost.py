"""FLOPs and traffic of programs written by hand."""

# ruff: noqa: E501 (HLO is quoted as the compiler prints it)

import pytest

from tpu import hlo
from tpu.hlo_cost import Cost


def cost_of(body: str, computations: str = "") -> Cost:
    entry = f"ENTRY %main (p: f32[8,128]) -> f32[8,128] {{\n{body}\n}}\n"
    return Cost(hlo.Module(f"HloModule m\n\n{computations}\n\n{entry}"))


PRODUCT = """
  %a = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[16,32]{1,0:T(8,128)(2,1)} parameter(1)
  %c = f32[8,32]{1,0:T(8,128)} convolution(%a, %b), dim_labels=bf_io->bf"""


def test_a_matrix_product():
    assert cost_of(PRODUCT).flops == 2 * 8 * 16 * 32


def test_a_dot():
    body = PRODUCT.replace(
        "convolution(%a, %b), dim_labels=bf_io->bf",
        "dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
    )
    assert cost_of(body).flops == 2 * 8 * 16 * 32


def test_a_batched_product_is_a_convolution_with_holes():
    # Attention scores for B 8, N 12, T = S = 128, H 64: the batch dimensions are spatial, dilated by
    # their size less one.
    body = """
  %q = bf16[8,128,12,64]{1,3,2,0} parameter(0)
  %k = bf16[8,128,12,64]{1,3,2,0} parameter(1)
  %s = f32[8,12,128,128]{2,3,1,0} convolution(%q, %k), window={size=8x12 stride=7x11 lhs_dilate=8x12}, dim_labels=0b1f_0o1i->01bf"""
    assert cost_of(body).flops == 2 * 8 * 12 * 128 * 128 * 64


def test_products_with_padding_do_not_count():
    # A window of 3 over 5 inputs, padded by one at both ends: 2 + 3 × 3 + 2 = 13 products.
    body = """
  %x = f32[1,5,1]{2,1,0} parameter(0)
  %w = f32[3,1,1]{2,1,0} parameter(1)
  %y = f32[1,5,1]{2,1,0} convolution(%x, %w), window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f"""
    assert cost_of(body).flops == 2 * 13


def test_traffic_is_of_hbm_alone():
    body = """
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %b = f32[8,128]{1,0:T(8,128)S(1)} negate(%a)
  %c = f32[8,128]{1,0:T(8,128)S(1)} negate(%b)
  %d = f32[8,128]{1,0:T(8,128)} add(%b, %c)"""
    assert cost_of(body).traffic == 4096 + 0 + 4096


def test_copies_between_memories():
    body = """
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %s = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
  %d = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%s)"""
    assert cost_of(body).traffic == 4096


STACKED = """%slice (a: f32[12,8,128], i: s32[]) -> f32[8,128] {
  %a.1 = f32[12,8,128]{2,1,0:T(8,128)} parameter(0)
  %i.1 = s32[]{:T(128)} parameter(1)
  %s.1 = f32[1,8,128]{2,1,0:T(8,128)} dynamic-slice(%a.1, %i.1, %z, %z), dynamic_slice_sizes={1,8,128}
  ROOT %b.1 = f32[8,128]{1,0:T(8,128)} bitcast(%s.1)
}

%update (a: f32[12,8,128], u: f32[8,128], i: s32[]) -> f32[12,8,128] {
  %a.2 = f32[12,8,128]{2,1,0:T(8,128)} parameter(0)
  %u.2 = f32[8,128]{1,0:T(8,128)} parameter(1)
  %i.2 = s32[]{:T(128)} parameter(2)
  %b.2 = f32[1,8,128]{2,1,0:T(8,128)} bitcast(%u.2)
  ROOT %d.2 = f32[12,8,128]{2,1,0:T(8,128)} dynamic-update-slice(%a.2, %b.2, %i.2, %z, %z)
}"""


def test_of_a_stacked_array_only_the_slice_counts():
    body = """
  %a = f32[12,8,128]{2,1,0:T(8,128)} parameter(0)
  %i = s32[]{:T(128)S(6)} parameter(1)
  %x = f32[8,128]{1,0:T(8,128)} fusion(%a, %i), kind=kLoop, calls=%slice"""
    assert cost_of(body, STACKED).traffic == 2 * 4096
    body = """
  %a = f32[12,8,128]{2,1,0:T(8,128)} parameter(0)
  %u = f32[8,128]{1,0:T(8,128)} parameter(1)
  %i = s32[]{:T(128)S(6)} parameter(2)
  %x = f32[12,8,128]{2,1,0:T(8,128)} fusion(%a, %u, %i), kind=kLoop, calls=%update"""
    assert cost_of(body, STACKED).traffic == 2 * 4096


LOOP = """%product (a: f32[8,16], b: f32[16,32]) -> f32[8,32] {
  %a.3 = f32[8,16]{1,0:T(8,128)} parameter(0)
  %b.3 = f32[16,32]{1,0:T(8,128)} parameter(1)
  ROOT %c.3 = f32[8,32]{1,0:T(8,128)} convolution(%a.3, %b.3), dim_labels=bf_io->bf
}

%body (t: (s32[], f32[8,16], f32[16,32])) -> (s32[], f32[8,16], f32[16,32]) {
  %t.4 = (s32[]{:T(128)S(6)}, f32[8,16]{1,0:T(8,128)}, f32[16,32]{1,0:T(8,128)}) parameter(0)
  %a.4 = f32[8,16]{1,0:T(8,128)} get-tuple-element(%t.4), index=1
  %b.4 = f32[16,32]{1,0:T(8,128)} get-tuple-element(%t.4), index=2
  %c.4 = f32[8,32]{1,0:T(8,128)} fusion(%a.4, %b.4), kind=kOutput, calls=%product
  ROOT %r.4 = (s32[]{:T(128)S(6)}, f32[8,16]{1,0:T(8,128)}, f32[16,32]{1,0:T(8,128)}) tuple(%i, %a.4, %b.4)
}

%cond (t: (s32[], f32[8,16], f32[16,32])) -> pred[] {
  %n = s32[]{:T(128)} constant(7)
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}"""


def test_a_loop_counts_as_often_as_it_runs():
    body = "  %w = (s32[], f32[8,16], f32[16,32]) while(%t), condition=%cond, body=%body"
    total = cost_of(body, LOOP)
    assert total.flops == 7 * 2 * 8 * 16 * 32
    # Padded to tiles of 8 × 128; the loop's counter adds a few bytes.
    assert total.traffic == pytest.approx(7 * (8 * 128 + 16 * 128 + 8 * 128) * 4, rel=1e-3)


@pytest.mark.parametrize(
    ("cost", "flops", "unknown"),
    [('"cost_estimate":{"flops":"500","bytes_accessed":"9"}', 500, 0), ('"x":1', 0, 1)],
)
def test_custom_kernels(cost, flops, unknown):
    body = (
        '  %k = f32[8]{0} custom-call(%p), custom_call_target="tpu_custom_call",'
        f' backend_config={{"custom_call_config":{{{cost}}}}}'
    )
    total = cost_of(body)
    assert (total.flops, total.unknown) == (flops, unknown)
