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
  RQ_INLINE void add(Sum& sum, __m512i row, __m512i weights) { add_pairs(sum, {row}, {weights}); }
};

template <int rows, int vecs>
RQ_NOINLINE void tile(int64_t deep, const uint32_t* words, int width, const uint8_t* const* a,
                      Ahead ahead, float* out) {
  Pairs::Sum sums[rows][vecs];
  multiply_words<Pairs>(deep, words, width, a, ahead, sums);
#  pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#  pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) {
      store(out + i * kPanelColumns + j * 16, sums[i][j]);
    }
  }
}

}  // namespace

void multiply_panel_pairs(const Matrix& m, int64_t panel, const Operand& operand,
                          const int64_t* rows, int count, Ahead ahead, float* out) {
  const uint8_t* a[kTileRows];
  for (int i = 0; i < count; ++i) a[i] = operand.bytes + rows[i] * operand.bytes_stride;
  const uint32_t* words = m.words + m.panel_words(panel);
  const int width = m.width(panel);
  with_rows(count, [&](auto height) {
    with_vecs(width / 16, [&](auto vecs) {
      tile<decltype(height)::value, decltype(vecs)::value>(m.words_deep(), words, width, a, ahead,
                                                           out);
    });
  });
}
#else
void multiply_panel_pairs(const Matrix&, int64_t, const Operand&, const int64_t*, int, Ahead,
                          float*) {}  // `Runtime::bf16_pairs` is never set
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
