// bf16 weights times rows rounded to bf16, two products at a time into fp32 (AVX-512 BF16): half
// the instructions of fp32 rows. As on GPUs, which round activations to bf16 as well.
//
// NOTE: the machine decides at run time (`has_bf16_pairs`): the AVX-512 copy is compiled without
// the extension, and the one instruction is written out. It flushes denormals and rounds twice a
// step; the order of k is that of every other path, whatever the number of rows.
#include "step_gemm.h"
#include "step_ints.h"

namespace rq::RQ_ISA {

#if defined(__AVX512F__) && defined(RQ_BF16_PAIRS)
namespace {

template <int rows, int vecs>
void tile(int64_t deep, const uint32_t* words, int width, const uint8_t* const* a, Ahead ahead,
          float* out) {
  __m512 sums[rows][vecs];
#  pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#  pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) sums[i][j] = _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < deep; ++k, words += width) {
    __m512i w[vecs];
#  pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) {
      w[j] = load_ints(words + j * 16);
      __builtin_prefetch(words + (j < 2 ? ahead.first : ahead.second) + j % 2 * 16);
    }
#  pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      const __m512i pair = _mm512_set1_epi32(load_word(a[i] + 4 * k));
#  pragma GCC unroll 4
      for (int j = 0; j < vecs; ++j) {
        __asm__("vdpbf16ps %2, %1, %0" : "+v"(sums[i][j]) : "v"(pair), "v"(w[j]));
      }
    }
  }
#  pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#  pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) {
      _mm512_storeu_ps(out + i * kPanelColumns + j * 16, sums[i][j]);
    }
  }
}

template <int rows>
void panel_rows(int64_t deep, const uint32_t* words, int width, const uint8_t* const* a,
                Ahead ahead, float* out) {
  switch (width / 16) {
    case 1:
      return tile<rows, 1>(deep, words, width, a, ahead, out);
    case 2:
      return tile<rows, 2>(deep, words, width, a, ahead, out);
    case 3:
      return tile<rows, 3>(deep, words, width, a, ahead, out);
    default:
      return tile<rows, 4>(deep, words, width, a, ahead, out);
  }
}

}  // namespace

void multiply_panel_pairs(const Matrix& m, int64_t panel, const Operand& operand,
                          const int64_t* rows, int count, Ahead ahead, float* out) {
  const uint8_t* a[kTileRows];
  for (int i = 0; i < count; ++i) a[i] = operand.bytes + rows[i] * operand.bytes_stride;
  const uint32_t* words = m.words + m.panel_words(panel);
  const int width = m.width(panel);
  const int64_t deep = m.words_deep();
  switch (count) {
    case 1:
      return panel_rows<1>(deep, words, width, a, ahead, out);
    case 2:
      return panel_rows<2>(deep, words, width, a, ahead, out);
    case 3:
      return panel_rows<3>(deep, words, width, a, ahead, out);
    case 4:
      return panel_rows<4>(deep, words, width, a, ahead, out);
    case 5:
      return panel_rows<5>(deep, words, width, a, ahead, out);
    default:
      return panel_rows<6>(deep, words, width, a, ahead, out);
  }
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
