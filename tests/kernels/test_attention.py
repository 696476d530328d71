"""MLA attention: the native kernel against its twins, the twins against each other."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from rorqual.errors import ConfigError
from rorqual.kernels import fused_attention, twins_attention
from rorqual.kernels.library import Library

Attention = Callable[..., Tensor]

# B, T, N, D, R, Dv: odd lengths around the block of 64, widths on and off multiples of 16.
SHAPES = [
    (2, 130, 3, 20, 6, 12),
    (1, 1, 2, 8, 4, 8),
    (3, 7, 2, 33, 2, 17),
    (1, 65, 2, 64, 32, 64),
    (2, 128, 2, 32, 16, 32),
    (1, 100, 1, 128, 64, 128),
    (1, 70, 2, 24, 0, 48),
]
DOCUMENTS = ["none", "packed", "arbitrary", "branches", "arbitrary gaps"]


@dataclass(frozen=True)
class Case:
    q: Tensor
    kv: Tensor
    k_rope: Tensor
    cos: Tensor
    sin: Tensor
    document_start: Tensor | None
    softmax_scale: float
    nope_head_dim: int
    grad_out: Tensor
    gap: tuple[Tensor, Tensor] | None = None

    def to(self, dtype: torch.dtype) -> "Case":
        angles = torch.promote_types(dtype, torch.float32)
        return replace(
            self,
            q=self.q.to(dtype),
            kv=self.kv.to(dtype),
            k_rope=self.k_rope.to(dtype),
            cos=self.cos.to(angles),
            sin=self.sin.to(angles),
            grad_out=self.grad_out.to(dtype),
        )

    def run(self, attention: Attention) -> list[Tensor]:
        """Output and the gradients of q, kv and k_rope."""
        inputs = [t.detach().clone().requires_grad_() for t in (self.q, self.kv, self.k_rope)]
        out = attention(
            *inputs,
            self.cos,
            self.sin,
            self.document_start,
            self.softmax_scale,
            self.nope_head_dim,
            self.gap,
        )
        return [out.detach(), *torch.autograd.grad(out, inputs, self.grad_out)]


def make_document_start(kind: str, batch: int, tokens: int) -> Tensor | None:
    if kind == "none":
        return None
    if kind.startswith("arbitrary"):  # in no order; some queries see nothing
        return torch.randint(0, tokens + 2, (batch, tokens), dtype=torch.int32)
    borders = torch.rand(batch, tokens) < 0.05
    positions = torch.arange(tokens).expand(batch, tokens)
    return torch.where(borders, positions, 0).cummax(dim=1).values.to(torch.int32)


def make_gap(kind: str, document_start: Tensor | None) -> tuple[Tensor, Tensor] | None:
    if kind not in ("branches", "arbitrary gaps"):
        return None
    assert document_start is not None
    batch, tokens = document_start.shape
    if kind == "arbitrary gaps":  # some empty, some over everything
        begin, end = torch.randint(0, tokens + 2, (2, batch, tokens), dtype=torch.int32)
        return begin, end
    # In every document the fourth token ends the shared part; later ones open a branch at times.
    column = torch.arange(tokens, dtype=torch.int32).expand(batch, tokens)
    shared_end = document_start + 4
    opens = (torch.rand(batch, tokens) < 0.1) & (column >= shared_end)
    opened = torch.where(opens, column, 0).cummax(dim=1).values
    own = torch.maximum(opened, shared_end)
    inside = column >= shared_end
    return torch.where(inside, shared_end, 0), torch.where(inside, own, 0)


def make_case(shape: tuple[int, ...], documents: str = "none", seed: int = 0) -> Case:
    batch, tokens, heads, nope, rope, value = shape
    torch.manual_seed(seed)
    frequencies = 1e4 ** (-torch.arange(0, rope, 2) / max(rope, 1))
    angles = torch.outer(torch.arange(tokens).float(), frequencies)  # [T, R/2]
    document_start = make_document_start(documents, batch, tokens)
    gap = make_gap(documents, document_start)
    if gap is not None:  # then rows have their own angles
        angles = torch.randint(0, tokens, (batch, tokens, 1)) * frequencies  # [B, T, R/2]
    return Case(
        torch.randn(batch, tokens, heads, nope + rope),
        torch.randn(batch, tokens, heads, nope + value),
        torch.randn(batch, tokens, rope),
        angles.cos(),
        angles.sin(),
        document_start,
        (nope + rope) ** -0.5,
        nope,
        torch.randn(batch, tokens, heads, value),
        gap,
    )


def largest_error(actual: list[Tensor], expected: list[Tensor]) -> float:
    """max|difference| / max|expected|; the floor serves gradients that are zero by cancellation."""
    return max(
        ((a.double() - e.double()).abs().max() / e.double().abs().max().clamp_min(0.1)).item()
        for a, e in zip(actual, expected, strict=True)
        if e.numel()
    )


def distances(actual: list[Tensor], expected: list[Tensor]) -> list[float]:
    return [(a.double() - e.double()).norm().item() for a, e in zip(actual, expected, strict=True)]


def native(library: Library) -> Attention:
    return lambda *arguments: fused_attention.mla_attention(library, *arguments)


@pytest.mark.parametrize("documents", DOCUMENTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sdpa_form_equals_explicit_form(shape: tuple[int, ...], documents: str) -> None:
    case = make_case(shape, documents).to(torch.float64)
    explicit = case.run(twins_attention.mla_attention_explicit)
    assert largest_error(case.run(twins_attention.mla_attention), explicit) < 1e-12


@pytest.mark.parametrize("documents", DOCUMENTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_native_matches_fp64_twin_on_every_instruction_set(
    library: Library, shape: tuple[int, ...], documents: str
) -> None:
    case = make_case(shape, documents)
    expected = case.to(torch.float64).run(twins_attention.mla_attention_explicit)
    for isa in library.instruction_sets():
        actual = case.run(native(library.using(isa=isa)))
        assert all(t.dtype == torch.float32 for t in actual)
        assert largest_error(actual, expected) < 1e-5, isa


@pytest.mark.parametrize("shape", [(2, 130, 3, 20, 6, 12), (1, 200, 2, 64, 32, 64)])
def test_bf16_is_as_close_to_fp32_as_the_twin(library: Library, shape: tuple[int, ...]) -> None:
    case = make_case(shape, "packed").to(torch.bfloat16)
    exact = case.to(torch.float32).run(twins_attention.mla_attention_explicit)
    allowed = distances(case.run(twins_attention.mla_attention_explicit), exact)
    for isa in library.instruction_sets():
        actual = case.run(native(library.using(isa=isa)))
        assert all(t.dtype == torch.bfloat16 for t in actual)
        for got, limit in zip(distances(actual, exact), allowed, strict=True):
            assert got <= 1.2 * limit, isa


def test_result_is_bitwise_equal_on_repetition_and_for_any_thread_count(library: Library) -> None:
    case = make_case((3, 130, 3, 20, 6, 12), "packed")
    first = case.run(native(library.using(num_threads=1)))
    for num_threads in (1, 2, 3, 5):
        again = case.run(native(library.using(num_threads=num_threads)))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_packed_documents_equal_separate_sequences(library: Library) -> None:
    case = make_case((1, 150, 2, 16, 8, 16))
    start = torch.zeros(1, 150, dtype=torch.int32)
    start[:, 90:] = 90
    packed = replace(case, document_start=start).run(native(library))
    parts = []
    for begin, end in ((0, 90), (90, 150)):
        # Rotary scores depend on distances alone, so a document may keep its positions.
        piece = slice(begin, end)
        parts.append(
            replace(
                case,
                q=case.q[:, piece],
                kv=case.kv[:, piece],
                k_rope=case.k_rope[:, piece],
                cos=case.cos[: end - begin],
                sin=case.sin[: end - begin],
                grad_out=case.grad_out[:, piece],
            ).run(native(library))
        )
    separate = [torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True)]
    assert largest_error(packed[:2], separate[:2]) < 1e-5
    assert largest_error(packed[2:], separate[2:]) < 1e-5


def test_branches_equal_sequences_of_their_own(library: Library) -> None:
    """A prefix of 30 tokens, then continuations of 70, 1 and 49, each at places 30, 31, ..."""
    case, prefix, lengths = make_case((1, 150, 2, 16, 8, 16)), 30, (70, 1, 49)
    cos, sin = case.cos, case.sin
    place = torch.cat([torch.arange(prefix), *(torch.arange(n) + prefix for n in lengths)])
    begins = [prefix, prefix + 70, prefix + 71]
    end = torch.tensor([0] * prefix + [begins[0]] * 70 + [begins[1]] + [begins[2]] * 49)
    start = torch.where(end > 0, prefix, 0)
    gap = (start.to(torch.int32)[None], end.to(torch.int32)[None])
    forked = replace(
        case, cos=cos[place][None], sin=sin[place][None], gap=gap,
        document_start=torch.zeros(1, 150, dtype=torch.int32),
    ).run(native(library))  # fmt: skip
    expected = [torch.zeros_like(t) for t in forked]
    for begin, length in zip([0, *begins], [0, *lengths], strict=True):
        columns = torch.cat([torch.arange(prefix), torch.arange(begin, begin + length)])
        grad = case.grad_out[:, columns].clone()
        if length:  # what the prefix's own outputs say counts once
            grad[:, :prefix] = 0
        alone = replace(
            case, q=case.q[:, columns], kv=case.kv[:, columns], k_rope=case.k_rope[:, columns],
            cos=cos[: len(columns)], sin=sin[: len(columns)], grad_out=grad,
        ).run(native(library))  # fmt: skip
        expected[0][:, columns] = alone[0]
        for total, part in zip(expected[1:], alone[1:], strict=True):
            total[:, columns] += part
    assert largest_error(forked, expected) < 1e-5


def test_padding_that_sees_only_itself_returns_its_own_value(library: Library) -> None:
    case = make_case((1, 70, 2, 16, 8, 16))
    start = torch.arange(70, dtype=torch.int32)[None]
    out, _, grad_kv, _ = replace(case, document_start=start).run(native(library))
    assert torch.allclose(out, case.kv[..., 16:], rtol=0, atol=1e-6)
    assert torch.allclose(grad_kv[..., 16:], case.grad_out, rtol=0, atol=1e-6)


def test_query_without_keys_yields_zeros(library: Library) -> None:
    case = make_case((1, 70, 2, 16, 8, 16))
    start = torch.full((1, 70), 1000, dtype=torch.int32)
    for attention in (native(library), twins_attention.mla_attention):
        for result in replace(case, document_start=start).run(attention):
            assert torch.count_nonzero(result) == 0


def test_later_tokens_do_not_change_earlier_outputs(library: Library) -> None:
    case = make_case((1, 100, 2, 16, 8, 16))
    before = case.run(native(library))[0]
    changed = replace(case, kv=case.kv.clone(), k_rope=case.k_rope.clone())
    changed.kv[:, 71:], changed.k_rope[:, 71:] = 1e3, 1e3
    after = changed.run(native(library))[0]
    assert torch.equal(before[:, :71], after[:, :71])
    assert not torch.isclose(before[:, 71:], after[:, 71:]).all()


def test_nan_in_a_visible_key_or_value_is_not_hidden(library: Library) -> None:
    case = make_case((1, 100, 2, 16, 8, 16))
    for column in (3, 16 + 3):
        broken = replace(case, kv=case.kv.clone())
        broken.kv[:, 71, :, column] = torch.nan
        assert broken.run(native(library))[0][:, 71:].isnan().any(dim=-1).all()


def test_sharp_softmax_neither_overflows_nor_loses_digits(library: Library) -> None:
    case = replace(make_case((1, 130, 2, 16, 8, 16)), softmax_scale=40.0)
    expected = case.to(torch.float64).run(twins_attention.mla_attention_explicit)
    twin = case.run(twins_attention.mla_attention_explicit)
    # Scores reach a thousand, so fp32 itself leaves about 1e-4.
    assert largest_error(case.run(native(library)), expected) < 3 * largest_error(twin, expected)


def test_strided_inputs_give_the_contiguous_result(library: Library) -> None:
    case = make_case((2, 66, 3, 16, 8, 16))
    strided = replace(
        case,
        q=case.q.transpose(1, 2).contiguous().transpose(1, 2),
        kv=torch.cat((case.kv, case.kv), dim=-1)[..., : case.kv.shape[-1]],
        k_rope=case.k_rope.transpose(0, 1).contiguous().transpose(0, 1),
        grad_out=case.grad_out.transpose(1, 2).contiguous().transpose(1, 2),
    )
    inputs = (strided.q, strided.kv, strided.k_rope)
    assert not any(tensor.is_contiguous() for tensor in inputs)
    out = native(library)(*inputs, case.cos, case.sin, None, case.softmax_scale, 16)
    assert torch.equal(out, case.run(native(library))[0])
    assert all(
        torch.equal(a, b)
        for a, b in zip(strided.run(native(library)), case.run(native(library)), strict=True)
    )


def test_what_the_kernel_cannot_read_takes_the_twin(library: Library) -> None:
    case = make_case((1, 20, 2, 16, 8, 16), "packed")
    for other in (case.to(torch.float64), replace(case, cos=case.cos.double())):
        expected = other.run(twins_attention.mla_attention)
        assert all(
            torch.equal(a, b) for a, b in zip(other.run(native(library)), expected, strict=True)
        )


def test_operands_that_do_not_fit_are_named(library: Library) -> None:
    case = make_case((1, 20, 2, 16, 8, 16))
    with pytest.raises(ConfigError, match="cos"):
        replace(case, cos=case.cos[:-1]).run(native(library))
    with pytest.raises(ConfigError, match="k_rope"):
        replace(case, k_rope=case.k_rope[..., :-2]).run(native(library))
    with pytest.raises(ConfigError, match="nope_head_dim=17"):
        replace(case, nope_head_dim=17).run(native(library))
    with pytest.raises(ConfigError, match="document_start"):
        replace(case, document_start=torch.zeros(1, 19, dtype=torch.int32)).run(native(library))
