// fp32 and bf16 weights times fp32 rows, one panel at a time.
#include "step_tiles.h"
#include "step_words.h"

namespace rq::RQ_ISA {
namespace {

template <int vecs>
RQ_INLINE void prefetch_words(const uint32_t* words, const Pass& pass) {
  __builtin_prefetch(words + pass.first_ahead);
  if (vecs * kWidth > 16) __builtin_prefetch(words + pass.first_ahead + pass.apart);
  if (vecs * kWidth > 32) {
    __builtin_prefetch(words + pass.second_ahead);
    __builtin_prefetch(words + pass.second_ahead + pass.apart);
  }
}

template <int rows, int vecs>
void tile_fp32(int64_t depth, const uint32_t* words, int width, const float* const* a,
               const Pass& pass, float* out) {
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
    prefetch_words<vecs>(words, pass);
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
void tile_bf16(int64_t depth, const uint32_t* words, int width, const float* const* a,
               const Pass& pass, float* out) {
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
    prefetch_words<vecs>(words, pass);
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
                    const Pass& pass, float* out) {
  if (m.format == Format::kFp32) return tile_fp32<rows, vecs>(m.depth, words, width, a, pass, out);
  tile_bf16<rows, vecs>(m.depth, words, width, a, pass, out);
}

#if defined(__AVX512F__)
// A whole panel at once: up to 6 x 4 sums in 32 registers.
template <int rows>
void panel_rows(const Matrix& m, const uint32_t* words, int width, const float* const* a,
                const Pass& pass, float* out) {
  with_vecs(width / kWidth,
            [&](auto vecs) { tile<rows, decltype(vecs)::value>(m, words, width, a, pass, out); });
}
#else
// 16 registers of sums and operands: the fewer rows, the more columns at once.
template <int rows>
void panel_rows(const Matrix& m, const uint32_t* words, int width, const float* const* a,
                const Pass& pass, float* out) {
  constexpr int kVecs = rows == 1 ? 8 : rows <= 3 ? 4 : 2;
  int column = 0;
  for (; column + kVecs * kWidth <= width; column += kVecs * kWidth) {
    tile<rows, kVecs>(m, words + column, width, a, pass, out + column);
  }
  for (; column < width; column += 2 * kWidth) {
    tile<rows, 2>(m, words + column, width, a, pass, out + column);
  }
}
#endif

// Rows rows[0] to rows[count - 1] of the operand, count <= kTileRows.
void multiply_tile(const Matrix& m, int64_t panel, const Operand& operand, Rows rows, int count,
                   const Pass& pass, float* out) {
  if (m.rounds_rows) return multiply_tile_pairs(m, panel, operand, rows, count, pass, out);
  if (m.format == Format::kInt8) {
    return multiply_tile_int8(m, panel, operand, rows, count, pass, out);
  }
  if (m.format == Format::kInt4) return multiply_tile_int4(m, panel, operand, rows, count, out);
  const float* a[kTileRows];
  for (int i = 0; i < count; ++i) a[i] = operand.values + rows[i] * operand.stride;
  const uint32_t* words = m.words + m.panel_words(panel);
  const int width = m.width(panel);
  with_rows(count, [&](auto height) {
    panel_rows<decltype(height)::value>(m, words, width, a, pass, out);
  });
}

// Several tiles multiply a panel slice by slice. With few rows memory sets the pace: slices so
// small that the next one, fetched meanwhile, stays beside this one in a first cache of 48 KB. With
// many rows arithmetic does, and only a panel that the second cache cannot hold is cut. Smaller
// panels gained nothing.
constexpr int64_t kNearSlice = 16 << 10, kNearWhole = 64 << 10;  // bytes
constexpr int64_t kFarSlice = 64 << 10, kFarWhole = 512 << 10;

// Words of depth of a slice. Pairs and the bytes of VNNI alone heed where a pass begins and ends.
int64_t slice_depth(const Matrix& m, int64_t deep, int width, int64_t total) {
  const int64_t bytes = 4 * deep * width;
  const bool stops = m.rounds_rows || (m.format == Format::kInt8 && slices_int8());
  const bool few = total <= kPanelRows;
  if (!stops || bytes <= (few ? kNearWhole : kFarWhole)) return deep;
  const int64_t most = few ? kNearSlice : kFarSlice;
  const int64_t slices = (bytes + most - 1) / most;
  return (deep + slices - 1) / slices;
}

// The tiles of the first rows share out the reading of what comes `next` words later, so that
// memory works while they calculate: of its four lines a row of words two and two; one, two and
// one; or one each. (AVX2's tiles go over the columns one line at a time, and each reads them all.)
void look_ahead(int64_t next, int tile, int tiles, Progress progress, Pass& pass) {
  const int line = (4 * tile + 1) / tiles, lines = (4 * tile + 5) / tiles - line;
  pass.first_ahead = progress.done > 0 ? 0 : next + 16 * line;
  pass.apart = progress.done > 0 || lines < 2 ? 0 : 16;
  pass.second_ahead = pass.first_ahead;
}

}  // namespace

void multiply_panel(const Matrix& m, int64_t panel, const Operand& operand, Rows rows, int count,
                    Progress progress, float* sums) {
  const int64_t deep = m.words_deep();
  if (progress.total <= kTileRows) {
    // A single tile reads a little ahead of itself.
    const Pass whole = {0, deep, 1024, 1024 + 32, 16};
    return multiply_tile(m, panel, operand, rows, count, whole, sums);
  }
  const int width = m.width(panel);
  const int64_t depth = slice_depth(m, deep, width, progress.total);
  const int tiles = (count + kTileRows - 1) / kTileRows;
  // Two tiles are cut evenly. More are not: five rows take nearly as long as six.
  const int height = tiles == 2 ? (count + 1) / 2 : kTileRows;
  Pass pass;
  for (pass.begin = 0; pass.begin < deep; pass.begin = pass.end) {
    pass.end = pass.begin + depth < deep ? pass.begin + depth : deep;
    const int64_t next = (pass.end - pass.begin) * width;
    for (int t = 0; t < tiles; ++t) {
      const int from = t * height, some = count - from < height ? count - from : height;
      look_ahead(next, t, tiles, progress, pass);
      multiply_tile(m, panel, operand, rows.from(from), some, pass, sums + from * kPanelColumns);
    }
  }
}

}  // namespace rq::RQ_ISA
