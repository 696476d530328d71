// bf16 weights times rows rounded to bf16, two products at a time into fp32 (AVX-512 BF16): half
// the instructions of fp32 rows. As on GPUs, which round activations to bf16 as well.
//
// NOTE: the machine decides at run time (`has_bf16_pairs`). The order of k is that of every other
// path, whatever the number of rows.
#include "step_tiles.h"
#include "step_words.h"

namespace rq::RQ_ISA {

#if defined(__AVX512F__) && defined(RQ_BF16_PAIRS)
namespace {

struct Pairs {
  using Sum = Vec;
  RQ_INLINE Sum zero() { return broadcast(0.0f); }
  RQ_INLINE Sum load(const float* unfinished) { return RQ_ISA::load(unfinished); }
  RQ_INLINE void add(Sum& sum, __m512i row, __m512i weights) { add_pairs(sum, {row}, {weights}); }
};

template <int rows, int vecs>
RQ_NOINLINE void tile(const Pass& pass, const uint32_t* words, int width, const uint8_t* const* a,
                      float* out) {
  Pairs::Sum sums[rows][vecs];
  multiply_words<Pairs>(pass, words, width, a, out, sums);
#  pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#  pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) {
      store(out + i * kPanelColumns + j * 16, sums[i][j]);
    }
  }
}

}  // namespace

void multiply_tile_pairs(const Matrix& m, int64_t panel, const Operand& operand, Rows rows,
                         int count, const Pass& pass, float* out) {
  const uint8_t* a[kTileRows];
  for (int i = 0; i < count; ++i) a[i] = operand.bytes + rows[i] * operand.bytes_stride;
  const uint32_t* words = m.words + m.panel_words(panel);
  const int width = m.width(panel);
  with_rows(count, [&](auto height) {
    with_vecs(width / 16, [&](auto vecs) {
      tile<decltype(height)::value, decltype(vecs)::value>(pass, words, width, a, out);
    });
  });
}
#else
void multiply_tile_pairs(const Matrix&, int64_t, const Operand&, Rows, int, const Pass&, float*) {
}  // `Runtime::bf16_pairs` is never set
#endif

void round_to_bf16(const float* from, int64_t count, Bf16* to) {
  for_each_vec(count, [&](int64_t i, int wide) {
    if (wide == kWidth) {
      store(to + i, load(from + i));
    } else {
      store(to + i, load(from + i, wide), wide);
    }
  });
}

}  // namespace rq::RQ_ISA
