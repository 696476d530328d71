// int8 weights times int8 rows: exact 32-bit sums, so every instruction set gives the same integer.
//
// With VNNI an activation byte is stored plus 128, because vpdpbusd multiplies unsigned by signed;
// `Matrix::sums` takes 128 * sum_k weight away again. Elsewhere bytes are signed.
// NOTE: the machine decides at run time (`has_vnni`): the AVX-512 copy is compiled without VNNI,
// and the one instruction is written out.
#include "step_tiles.h"

namespace rq::RQ_ISA {

bool slices_int8() {
#if defined(__AVX512F__)
  return has_vnni();
#else
  return false;
#endif
}

namespace {

// Finished sums to floats: (sum * weight scale) * row scale, the same order everywhere.
RQ_INLINE void store_scaled(Ints sum, const float* scales, float row_scale, float* out) {
  store(out, to_floats(sum) * load(scales) * broadcast(row_scale));
}

template <int rows, int vecs>
void tile_signed(const Matrix& m, const uint32_t* words, int64_t column, int width,
                 const uint8_t* const* a, const float* row_scales, float* out) {
  Ints sums[rows][vecs];
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) sums[i][j] = zero_ints();
  }
  const int64_t deep = m.words_deep();
  for (int64_t k = 0; k < deep; ++k, words += width) {
#pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) {
      const Ints w = load_ints(words + j * kWidth);
#pragma GCC unroll 6
      for (int i = 0; i < rows; ++i) {
        sums[i][j] = add_products(sums[i][j], w, load_word(a[i] + 4 * k));
      }
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) {
      store_scaled(sums[i][j], m.scales + column + j * kWidth, row_scales[i],
                   out + i * kPanelColumns + j * kWidth);
    }
  }
}

template <int rows>
void panel_signed(const Matrix& m, const uint32_t* words, int64_t column, int width,
                  const uint8_t* const* a, const float* row_scales, float* out) {
  constexpr int kVecs = kWidth == 16 ? 1 : 2;
  for (int j = 0; j < width; j += kVecs * kWidth) {
    tile_signed<rows, kVecs>(m, words + j, column + j, width, a, row_scales, out + j);
  }
}

#if defined(__AVX512F__)
struct Bytes {
  using Sum = __m512i;
  RQ_INLINE Sum zero() { return zero_ints(); }
  RQ_INLINE Sum load(const float* unfinished) { return _mm512_loadu_si512(unfinished); }
  RQ_INLINE void add(Sum& sum, __m512i row, __m512i weights) {
    // NOTE: as the intrinsic, g++ 12 keeps the sums in memory.
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(row), "v"(weights));
  }
};

template <int rows, int vecs>
RQ_NOINLINE void tile_vnni(const Matrix& m, const uint32_t* words, int64_t column, int width,
                           const uint8_t* const* a, const float* row_scales, const Pass& pass,
                           float* out) {
  Bytes::Sum sums[rows][vecs];
  multiply_words<Bytes>(pass, words, width, a, out, sums);
  if (pass.end < m.words_deep()) {
#  pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
#  pragma GCC unroll 4
      for (int j = 0; j < vecs; ++j) {
        _mm512_storeu_si512(out + i * kPanelColumns + j * 16, sums[i][j]);
      }
    }
    return;
  }
#  pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#  pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) {
      const __m512i exact = subtract(sums[i][j], load_ints(m.sums + column + j * 16));
      store_scaled(exact, m.scales + column + j * 16, row_scales[i],
                   out + i * kPanelColumns + j * 16);
    }
  }
}
#endif

template <int rows>
void panel_any(const Matrix& m, const uint32_t* words, int64_t column, int width,
               const uint8_t* const* a, const float* row_scales, [[maybe_unused]] const Pass& pass,
               float* out) {
#if defined(__AVX512F__)
  if (slices_int8()) {
    return with_vecs(width / 16, [&](auto vecs) {
      tile_vnni<rows, decltype(vecs)::value>(m, words, column, width, a, row_scales, pass, out);
    });
  }
#endif
  panel_signed<rows>(m, words, column, width, a, row_scales, out);
}

}  // namespace

void multiply_tile_int8(const Matrix& m, int64_t panel, const Operand& operand, Rows rows,
                        int count, const Pass& pass, float* out) {
  const uint8_t* a[kTileRows];
  float scales[kTileRows];
  for (int i = 0; i < count; ++i) {
    a[i] = operand.bytes + rows[i] * operand.bytes_stride;
    scales[i] = operand.scales[rows[i]];
  }
  const int64_t column = panel * kPanelColumns;
  const uint32_t* words = m.words + m.panel_words(panel);
  const int width = m.width(panel);
  with_rows(count, [&](auto height) {
    panel_any<decltype(height)::value>(m, words, column, width, a, scales, pass, out);
  });
}

float quantise_row(const float* row, int64_t count, bool offset, uint8_t* bytes) {
  Vec most = zero(), poison = zero();
  for_each_vec(count, [&](int64_t i, int wide) {
    const Vec x = wide == kWidth ? load(row + i) : load(row + i, wide);
    most = max(most, max(x, zero() - x));
    poison = fma(x, zero(), poison);
  });
  const float largest = maximum(most);
  const uint8_t middle = offset ? 128 : 0;
  const int64_t padded = round_up(count, kGroupDepth);
  const bool finite = sum(poison) == 0.0f;
  if (!finite || largest < 1e-30f) {
    // A NaN or an infinity makes the whole row NaN; a row of zeros stays one.
    for (int64_t i = 0; i < padded; ++i) bytes[i] = middle;
    return finite ? 0.0f : __builtin_nanf("");
  }
  const Vec factor = broadcast(127.0f / largest);
#if defined(__AVX512F__)
  const __m512i shift = _mm512_set1_epi32(middle);
  for_each_vec(count, [&](int64_t i, int wide) {
    const Vec x = (wide == kWidth ? load(row + i) : load(row + i, wide)) * factor;
    const __m128i four = _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_cvtps_epi32(x.v), shift));
    _mm_mask_storeu_epi8(bytes + i, first(wide), four);
  });
#else
  for_each_vec(count, [&](int64_t i, int wide) {
    float rounded[kWidth];
    store(rounded, round((wide == kWidth ? load(row + i) : load(row + i, wide)) * factor));
    for (int j = 0; j < wide; ++j) {
      bytes[i + j] = static_cast<uint8_t>(static_cast<int>(rounded[j]) + middle);
    }
  });
#endif
  for (int64_t i = count; i < padded; ++i) bytes[i] = middle;
  return largest / 127.0f;
}

}  // namespace rq::RQ_ISA
