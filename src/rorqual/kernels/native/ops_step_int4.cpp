// int4 weights times int8 rows: exact sums of kGroupDepth products, scaled and added group by
// group.
//
// With VNNI the unsigned operand is the nibble, value plus 8, so an activation's signed bytes are
// multiplied as they are and 8 times their sum is taken away. Elsewhere nibbles become signed
// bytes.
#include "step_gemm.h"
#include "step_ints.h"
#include "step_words.h"

namespace rq::RQ_ISA {
namespace {

constexpr int kWordsPerGroup = kGroupDepth / 8;

// What the loops read: a panel from some column on, and the rows.
struct Problem {
  int64_t groups;
  const uint32_t* words;
  int width, column;  // of the panel; first column
  const uint8_t* rows[kTileRows];
  const int32_t* sums[kTileRows];
  float scales[kTileRows];

  const uint32_t* group_words(int64_t g) const {
    return words + g * (kWordsPerGroup * width + width / 2) + column;
  }
  const Bf16* group_scales(int64_t g) const {
    return reinterpret_cast<const Bf16*>(words + (g + 1) * kWordsPerGroup * width +
                                         g * (width / 2)) +
           column;
  }
};

template <int rows, int vecs>
RQ_INLINE void store_rows(const Problem& p, Vec (*totals)[vecs], float* out) {
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) {
      store(out + i * kPanelColumns + p.column + j * kWidth, totals[i][j] * broadcast(p.scales[i]));
    }
  }
}

#if defined(__AVX512F__)
template <int rows, int vecs>
void tile_vnni(const Problem& p, float* out) {
  const __m512i nibble = _mm512_set1_epi32(0x0f0f0f0f);
  Vec totals[rows][vecs];
#  pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#  pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) totals[i][j] = zero();
  }
  for (int64_t g = 0; g < p.groups; ++g) {
    const uint32_t* words = p.group_words(g);
    __m512i sums[rows][vecs];
#  pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
#  pragma GCC unroll 4
      for (int j = 0; j < vecs; ++j) sums[i][j] = _mm512_set1_epi32(-p.sums[i][g]);
    }
#  pragma GCC unroll 1
    for (int k = 0; k < kWordsPerGroup; ++k, words += p.width) {
      __m512i low[vecs], high[vecs];
#  pragma GCC unroll 4
      for (int j = 0; j < vecs; ++j) {
        const __m512i both = load_ints(words + j * 16);
        __builtin_prefetch(words + 512 + j * 16);
        low[j] = _mm512_and_si512(both, nibble);
        high[j] = _mm512_and_si512(_mm512_srli_epi32(both, 4), nibble);
      }
#  pragma GCC unroll 6
      for (int i = 0; i < rows; ++i) {
        const uint8_t* a = p.rows[i] + g * kGroupDepth + 8 * k;
        const __m512i first_four = _mm512_set1_epi32(load_word(a));
        const __m512i last_four = _mm512_set1_epi32(load_word(a + 4));
#  pragma GCC unroll 4
        for (int j = 0; j < vecs; ++j) {
          __asm__("vpdpbusd %2, %1, %0" : "+v"(sums[i][j]) : "v"(low[j]), "v"(first_four));
          __asm__("vpdpbusd %2, %1, %0" : "+v"(sums[i][j]) : "v"(high[j]), "v"(last_four));
        }
      }
    }
#  pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) {
      const Vec scale = load(p.group_scales(g) + j * 16);
#  pragma GCC unroll 6
      for (int i = 0; i < rows; ++i) {
        totals[i][j] = fma(to_floats(sums[i][j]), scale, totals[i][j]);
      }
    }
  }
  store_rows<rows, vecs>(p, totals, out);
}
#endif

// Signed bytes from nibbles: value plus 8, one to a byte, minus 8.
RQ_INLINE Ints center(Ints nibbles) {
#if defined(__AVX512F__)
  return _mm512_sub_epi8(nibbles, _mm512_set1_epi8(8));
#elif defined(__AVX2__)
  return _mm256_sub_epi8(nibbles, _mm256_set1_epi8(8));
#else
  typedef int8_t Bytes __attribute__((vector_size(16)));
  Bytes bytes;
  memcpy(&bytes, &nibbles, sizeof(bytes));
  bytes -= 8;
  memcpy(&nibbles, &bytes, sizeof(bytes));
  return nibbles;
#endif
}
RQ_INLINE Ints low_nibbles(const uint32_t* words) {
#if defined(__AVX512F__)
  return center(_mm512_and_si512(load_ints(words), _mm512_set1_epi32(0x0f0f0f0f)));
#elif defined(__AVX2__)
  return center(_mm256_and_si256(load_ints(words), _mm256_set1_epi32(0x0f0f0f0f)));
#else
  return center(load_ints(words) & 0x0f0f0f0f);
#endif
}
RQ_INLINE Ints high_nibbles(const uint32_t* words) {
#if defined(__AVX512F__)
  return center(
      _mm512_and_si512(_mm512_srli_epi32(load_ints(words), 4), _mm512_set1_epi32(0x0f0f0f0f)));
#elif defined(__AVX2__)
  return center(
      _mm256_and_si256(_mm256_srli_epi32(load_ints(words), 4), _mm256_set1_epi32(0x0f0f0f0f)));
#else
  return center((load_ints(words) >> 4) & 0x0f0f0f0f);
#endif
}

template <int rows, int vecs>
void tile_signed(const Problem& p, float* out) {
  Vec totals[rows][vecs];
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) totals[i][j] = zero();
  }
  for (int64_t g = 0; g < p.groups; ++g) {
    const uint32_t* words = p.group_words(g);
    Ints sums[rows][vecs];
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < vecs; ++j) sums[i][j] = zero_ints();
    }
    for (int k = 0; k < kWordsPerGroup; ++k, words += p.width) {
#pragma GCC unroll 4
      for (int j = 0; j < vecs; ++j) {
        const Ints low = low_nibbles(words + j * kWidth), high = high_nibbles(words + j * kWidth);
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i) {
          const uint8_t* a = p.rows[i] + g * kGroupDepth + 8 * k;
          sums[i][j] = add_products(sums[i][j], low, load_word(a));
          sums[i][j] = add_products(sums[i][j], high, load_word(a + 4));
        }
      }
    }
#pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) {
      const Vec scale = load(p.group_scales(g) + j * kWidth);
#pragma GCC unroll 6
      for (int i = 0; i < rows; ++i) {
        totals[i][j] = fma(to_floats(sums[i][j]), scale, totals[i][j]);
      }
    }
  }
  store_rows<rows, vecs>(p, totals, out);
}

template <int rows>
void panel_rows(Problem& p, float* out) {
#if defined(__AVX512F__)
  if (has_vnni()) {
    constexpr int kVecs = rows <= 2 ? 4 : 2;
    for (; p.column + kVecs * kWidth <= p.width; p.column += kVecs * kWidth) {
      tile_vnni<rows, kVecs>(p, out);
    }
    for (; p.column < p.width; p.column += kWidth) tile_vnni<rows, 1>(p, out);
    return;
  }
#endif
  constexpr int kVecs = kWidth == 16 ? 1 : 2;
  for (; p.column < p.width; p.column += kVecs * kWidth) tile_signed<rows, kVecs>(p, out);
}

}  // namespace

void multiply_panel_int4(const Matrix& m, int64_t panel, const Operand& operand,
                         const int64_t* rows, int count, float* out) {
  Problem p;
  p.groups = m.groups();
  p.words = m.words + m.panel_words(panel);
  p.width = m.width(panel);
  p.column = 0;
  for (int i = 0; i < count; ++i) {
    p.rows[i] = operand.bytes + rows[i] * operand.bytes_stride;
    p.sums[i] = reinterpret_cast<const int32_t*>(p.rows[i] + operand.sums_offset);
    p.scales[i] = operand.scales[rows[i]];
  }
  switch (count) {
    case 1:
      return panel_rows<1>(p, out);
    case 2:
      return panel_rows<2>(p, out);
    case 3:
      return panel_rows<3>(p, out);
    case 4:
      return panel_rows<4>(p, out);
    case 5:
      return panel_rows<5>(p, out);
    default:
      return panel_rows<6>(p, out);
  }
}

}  // namespace rq::RQ_ISA
