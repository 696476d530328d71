// fp32 and bf16 weights times fp32 rows, one panel at a time.
#include "step_tiles.h"
#include "step_words.h"

namespace rq::RQ_ISA {
namespace {

template <int vecs>
RQ_INLINE void prefetch_words(const uint32_t* words, Ahead ahead) {
  __builtin_prefetch(words + ahead.first);
  if (vecs * kWidth > 16) __builtin_prefetch(words + ahead.first + 16);
  if (vecs * kWidth > 32) {
    __builtin_prefetch(words + ahead.second);
    __builtin_prefetch(words + ahead.second + 16);
  }
}

template <int rows, int vecs>
void tile_fp32(int64_t depth, const uint32_t* words, int width, const float* const* a, Ahead ahead,
               float* out) {
  Vec sums[rows][vecs];
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < vecs; ++j) sums[i][j] = zero();
  }
  for (int64_t k = 0; k < depth; ++k, words += width) {
    Vec b[vecs];
#pragma GCC unroll 8
    for (int j = 0; j < vecs; ++j) b[j] = load(reinterpret_cast<const float*>(words) + j * kWidth);
    prefetch_words<vecs>(words, ahead);
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      const Vec scalar = broadcast(a[i][k]);
#pragma GCC unroll 8
      for (int j = 0; j < vecs; ++j) sums[i][j] = fma(scalar, b[j], sums[i][j]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < vecs; ++j) store(out + i * kPanelColumns + j * kWidth, sums[i][j]);
  }
}

template <int rows, int vecs>
void tile_bf16(int64_t depth, const uint32_t* words, int width, const float* const* a, Ahead ahead,
               float* out) {
  Vec sums[rows][vecs];
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < vecs; ++j) sums[i][j] = zero();
  }
  int64_t k = 0;
  for (; k + 2 <= depth; k += 2, words += width) {
    Words b[vecs];
#pragma GCC unroll 8
    for (int j = 0; j < vecs; ++j) b[j] = load_words(words + j * kWidth);
    prefetch_words<vecs>(words, ahead);
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      const Vec scalar = broadcast(a[i][k]);
#pragma GCC unroll 8
      for (int j = 0; j < vecs; ++j) sums[i][j] = fma(scalar, low_half(b[j]), sums[i][j]);
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      const Vec scalar = broadcast(a[i][k + 1]);
#pragma GCC unroll 8
      for (int j = 0; j < vecs; ++j) sums[i][j] = fma(scalar, high_half(b[j]), sums[i][j]);
    }
  }
  if (k < depth) {
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      const Vec scalar = broadcast(a[i][k]);
#pragma GCC unroll 8
      for (int j = 0; j < vecs; ++j) {
        sums[i][j] = fma(scalar, low_half(load_words(words + j * kWidth)), sums[i][j]);
      }
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < vecs; ++j) store(out + i * kPanelColumns + j * kWidth, sums[i][j]);
  }
}

template <int rows, int vecs>
RQ_INLINE void tile(const Matrix& m, const uint32_t* words, int width, const float* const* a,
                    Ahead ahead, float* out) {
  if (m.format == Format::kFp32) return tile_fp32<rows, vecs>(m.depth, words, width, a, ahead, out);
  tile_bf16<rows, vecs>(m.depth, words, width, a, ahead, out);
}

#if defined(__AVX512F__)
// A whole panel at once: up to 6 x 4 sums in 32 registers.
template <int rows>
void panel_rows(const Matrix& m, const uint32_t* words, int width, const float* const* a,
                Ahead ahead, float* out) {
  with_vecs(width / kWidth,
            [&](auto vecs) { tile<rows, decltype(vecs)::value>(m, words, width, a, ahead, out); });
}
#else
// 16 registers of sums and operands: the fewer rows, the more columns at once.
template <int rows>
void panel_rows(const Matrix& m, const uint32_t* words, int width, const float* const* a,
                Ahead ahead, float* out) {
  constexpr int kVecs = rows == 1 ? 8 : rows <= 3 ? 4 : 2;
  int column = 0;
  for (; column + kVecs * kWidth <= width; column += kVecs * kWidth) {
    tile<rows, kVecs>(m, words + column, width, a, ahead, out + column);
  }
  for (; column < width; column += 2 * kWidth) {
    tile<rows, 2>(m, words + column, width, a, ahead, out + column);
  }
}
#endif

}  // namespace

void multiply_panel(const Matrix& m, int64_t panel, const Operand& operand, const int32_t* index,
                    int64_t first, int count, Progress progress, float* out) {
  int64_t rows[kTileRows];
  const float* a[kTileRows];
  for (int i = 0; i < count; ++i) {
    rows[i] = index != nullptr ? index[i] : first + i;
    a[i] = operand.values + rows[i] * operand.stride;
  }
  const Ahead ahead = look_ahead(m, panel, progress);
  if (m.rounds_rows) return multiply_panel_pairs(m, panel, operand, rows, count, ahead, out);
  if (m.format == Format::kInt8)
    return multiply_panel_int8(m, panel, operand, rows, count, ahead, out);
  if (m.format == Format::kInt4) return multiply_panel_int4(m, panel, operand, rows, count, out);
  const uint32_t* words = m.words + m.panel_words(panel);
  const int width = m.width(panel);
  with_rows(count, [&](auto height) {
    panel_rows<decltype(height)::value>(m, words, width, a, ahead, out);
  });
}

}  // namespace rq::RQ_ISA
