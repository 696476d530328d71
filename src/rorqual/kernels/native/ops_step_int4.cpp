// int4 weights times int8 rows: exact sums of kGroupDepth products, shifted by the group's zero,
// scaled and added group by group.
//
// Levels are unsigned and activations signed, which is what the byte products of x86 multiply.
#include "step_tiles.h"
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
  const ByteGroup* groups_of[kTileRows];
  const float* scales;  // of the panel's columns

  const uint32_t* group_words(int64_t g) const {
    return words + g * (kWordsPerGroup * width + width / 2) + column;
  }
  const uint8_t* group_steps(int64_t g) const {
    return reinterpret_cast<const uint8_t*>(words + (g + 1) * kWordsPerGroup * width +
                                            g * (width / 2)) +
           column;
  }
};

RQ_INLINE Vec load_bytes(const uint8_t* p) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))};
#elif defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))};
#else
  return {Float4{float(p[0]), float(p[1]), float(p[2]), float(p[3])}};
#endif
}

RQ_INLINE void store_bytes(Vec whole, uint8_t* out) {
#if defined(__AVX512F__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                   _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(whole.v)));
#else
  float values[kWidth];
  store(values, whole);
  for (int i = 0; i < kWidth; ++i) {
    out[i] = static_cast<uint8_t>(static_cast<int8_t>(static_cast<int>(values[i])));
  }
#endif
}

// The levels in the low and in the high half of every byte; what the shift moves over a byte's edge
// is masked.
RQ_INLINE Ints low_levels(Ints words) { return words & broadcast_ints(0x0f0f0f0f); }
RQ_INLINE Ints high_levels(Ints words) { return low_levels(words >> 4); }

// totals += a group's sums with its zeros taken away, in units of the columns' scales. The sum with
// zero is exact: 20 bits before the point, 4 after it.
template <int rows, int vecs>
RQ_INLINE void add_group(const Problem& p, int64_t g, const Ints (*sums)[vecs],
                         Vec (*totals)[vecs]) {
#pragma GCC unroll 4
  for (int j = 0; j < vecs; ++j) {
    const uint8_t* steps = p.group_steps(g) + j * kWidth;
    const Vec step = load_bytes(steps), zeros = load_bytes(steps + p.width);
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      const ByteGroup& group = p.groups_of[i][g];
      const Vec sum = fma(zeros, broadcast(group.offset), to_floats(sums[i][j]));
      totals[i][j] = fma(sum, step * broadcast(group.scale), totals[i][j]);
    }
  }
}

template <int rows, int vecs>
RQ_INLINE void store_rows(const Problem& p, Vec (*totals)[vecs], float* out) {
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) {
      store(out + i * kPanelColumns + p.column + j * kWidth,
            totals[i][j] * load(p.scales + p.column + j * kWidth));
    }
  }
}

#if defined(__AVX512F__)
template <int rows, int vecs>
void tile_vnni(const Problem& p, float* out) {
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
      for (int j = 0; j < vecs; ++j) sums[i][j] = zero_ints();
    }
#  pragma GCC unroll 1
    for (int k = 0; k < kWordsPerGroup; ++k, words += p.width) {
      __m512i low[vecs], high[vecs];
#  pragma GCC unroll 4
      for (int j = 0; j < vecs; ++j) {
        const Ints both = load_ints(words + j * 16);
        __builtin_prefetch(words + 512 + j * 16);
        low[j] = low_levels(both);
        high[j] = high_levels(both);
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
    add_group<rows, vecs>(p, g, sums, totals);
  }
  store_rows<rows, vecs>(p, totals, out);
}
#endif

#if defined(__AVX512F__)
// Sums of a whole group in 16-bit halves of a lane: |sum| <= 2 * 8 * 15 * 127 < 2^15.
RQ_INLINE Ints add_levels(Ints halves, Ints levels, int32_t word) {
  return _mm512_add_epi16(halves, _mm512_maddubs_epi16(levels, _mm512_set1_epi32(word)));
}
RQ_INLINE Ints join_halves(Ints halves) { return _mm512_madd_epi16(halves, _mm512_set1_epi16(1)); }
#elif defined(__AVX2__)
RQ_INLINE Ints add_levels(Ints halves, Ints levels, int32_t word) {
  return _mm256_add_epi16(halves, _mm256_maddubs_epi16(levels, _mm256_set1_epi32(word)));
}
RQ_INLINE Ints join_halves(Ints halves) { return _mm256_madd_epi16(halves, _mm256_set1_epi16(1)); }
#else
RQ_INLINE Ints add_levels(Ints sums, Ints levels, int32_t word) {
  return add_products(sums, levels, word);
}
RQ_INLINE Ints join_halves(Ints sums) { return sums; }
#endif

template <int rows, int vecs>
void tile_plain(const Problem& p, float* out) {
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
        const Ints both = load_ints(words + j * kWidth);
        const Ints low = low_levels(both), high = high_levels(both);
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i) {
          const uint8_t* a = p.rows[i] + g * kGroupDepth + 8 * k;
          sums[i][j] = add_levels(sums[i][j], low, load_word(a));
          sums[i][j] = add_levels(sums[i][j], high, load_word(a + 4));
        }
      }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < vecs; ++j) sums[i][j] = join_halves(sums[i][j]);
    }
    add_group<rows, vecs>(p, g, sums, totals);
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
  for (; p.column < p.width; p.column += kVecs * kWidth) tile_plain<rows, kVecs>(p, out);
}

}  // namespace

void quantise_groups(const float* row, int64_t count, uint8_t* bytes, ByteGroup* groups) {
  Vec poison = zero();
  for_each_vec(count, [&](int64_t i, int wide) {
    poison = fma(wide == kWidth ? load(row + i) : load(row + i, wide), zero(), poison);
  });
  if (sum(poison) != 0.0f) {
    // A NaN or an infinity makes the whole row NaN.
    const int64_t padded = round_up(count, kGroupDepth);
    memset(bytes, 0, static_cast<size_t>(padded));
    for (int64_t g = 0; g < padded / kGroupDepth; ++g) groups[g] = {__builtin_nanf(""), 0.0f};
    return;
  }
  const int64_t whole = count / kGroupDepth;
  for (int64_t g = 0; g < whole; ++g) {
    const float* x = row + g * kGroupDepth;
    Vec most = zero(), total = zero();
    for (int i = 0; i < kGroupDepth; i += kWidth) {
      const Vec one = load(x + i);
      most = max(most, max(one, zero() - one));
    }
    const float largest = maximum(most);
    const bool any = largest >= 1e-30f;
    const Vec factor = broadcast(any ? 127.0f / largest : 0.0f);
    for (int i = 0; i < kGroupDepth; i += kWidth) {
      const Vec rounded = round(load(x + i) * factor);
      total = total + rounded;
      store_bytes(rounded, bytes + g * kGroupDepth + i);
    }
    groups[g] = {any ? largest / 127.0f : 0.0f, sum(total) * (-1.0f / 16.0f)};
  }
  if (whole * kGroupDepth < count) {
    const int64_t k = whole * kGroupDepth;
    const float scale = quantise_row(row + k, count - k, false, bytes + k);
    int32_t total = 0;
    for (int64_t i = k; i < k + kGroupDepth; ++i) total += static_cast<int8_t>(bytes[i]);
    groups[whole] = {scale, static_cast<float>(total) * (-1.0f / 16.0f)};
  }
}

void multiply_tile_int4(const Matrix& m, int64_t panel, const Operand& operand, Rows rows,
                        int count, float* out) {
  Problem p;
  p.groups = m.groups();
  p.words = m.words + m.panel_words(panel);
  p.width = m.width(panel);
  p.column = 0;
  p.scales = m.scales + panel * kPanelColumns;
  for (int i = 0; i < count; ++i) {
    p.rows[i] = operand.bytes + rows[i] * operand.bytes_stride;
    p.groups_of[i] = reinterpret_cast<const ByteGroup*>(p.rows[i] + operand.groups_offset);
  }
  with_rows(count, [&](auto height) { panel_rows<decltype(height)::value>(p, out); });
}

}  // namespace rq::RQ_ISA
