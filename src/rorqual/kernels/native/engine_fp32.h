// The fp32 panel engine: how blocks of A and B are packed, and the micro-kernel over them.
//
// A micro-kernel holds kRows x kColumns sums in registers (14 x 32 with AVX-512: 28 of 32
// registers), reads one row of a packed B panel and kRows scalars of a packed A panel per step of
// k. The A panel stays in the first-level cache while B panels stream from the second. bf16 input
// is widened while packing, so machines without bf16 hardware run it at fp32 speed.
//
// A panels come in two layouts. Rows: row i at i * kPanelStride, so that packing rows is a copy.
// Columns: step k at k * kColumnStride, for operands whose contraction runs along memory rows (dW).
#pragma once

#include "vec.h"

namespace rq::RQ_ISA {

struct Fp32Engine {
  using Packed = float;
#if defined(__AVX512F__)
  static constexpr int kRows = 14;
  static constexpr int64_t kPanelBytes = 640 << 10;  // of B, per thread: most of 1 MiB L2
#else
  static constexpr int kRows = 6;
  static constexpr int64_t kPanelBytes = 192 << 10;
#endif
  static constexpr int kColumns = 2 * kWidth;
  static constexpr int kDepth = 384;  // steps of k per block
  static constexpr int kDepthUnit = 1;
  static constexpr int kPanelStride = kDepth + 16;  // off the 4 KiB aliases
  static constexpr int kColumnStride = 16;
  static constexpr int kStepsAtOnce = 8;
  // Of A, per thread: one row panel, or a block of column panels.
  static constexpr int64_t kAElements = kPanelBytes / 10;
  static_assert(kRows <= kColumnStride, "a column panel holds one row of sums");

  static void begin() {}
  static void end() {}

  // panel[i][k] = row(i)[k] for `rows` rows of `depth` elements.
  template <class Source>
  static void pack_a_rows(const Source& source, int64_t row, int rows, int64_t k, int depth,
                          float* panel) {
    for (int i = 0; i < rows; ++i) {
      float* out = panel + i * kPanelStride;
      source.read(row + i, k, depth, out);
    }
  }

  // Elements between the panels of a block; a line or two more than they hold, for panels that are
  // a power of two apart would share cache sets.
  static int64_t column_panel_size(int depth) { return (depth + 1) * kColumnStride; }
  static int64_t b_panel_size(int depth) { return static_cast<int64_t>(depth + 1) * kColumns; }

  // Panel p holds columns [p * kRows, ...) of the block: panel[k][i] = row(k)[i]. Rows of the
  // source are steps of k, read kStepsAtOnce side by side so that reads and writes both run along
  // lines.
  template <class Source>
  static void pack_a_columns(const Source& source, int64_t column, int columns, int64_t k,
                             int depth, float* panels) {
    const int64_t panel_size = column_panel_size(depth);
    for (int s = 0; s < depth; s += kStepsAtOnce) {
      const int last = s + kStepsAtOnce < depth ? s + kStepsAtOnce : depth;
      float* panel = panels;
      for (int i = 0; i < columns; i += kRows, panel += panel_size) {
        const int count = columns - i < kRows ? columns - i : kRows;
        for (int t = s; t < last; ++t) {
          source.read(k + t, column + i, count, panel + t * kColumnStride);
        }
      }
    }
  }

  // B panel p holds columns [p * kColumns, ...): panel[k][j], zeros past the last column.
  template <class Source>
  static void pack_b_rows(const Source& source, int64_t k, int depth, int64_t column, int columns,
                          float* panels) {
    const int64_t panel_size = b_panel_size(depth);
    for (int s = 0; s < depth; s += kStepsAtOnce) {
      const int last = s + kStepsAtOnce < depth ? s + kStepsAtOnce : depth;
      float* panel = panels;
      for (int j = 0; j < columns; j += kColumns, panel += panel_size) {
        const int count = columns - j < kColumns ? columns - j : kColumns;
        for (int t = s; t < last; ++t) {
          float* out = panel + t * kColumns;
          source.read(k + t, column + j, count, out);
          for (int z = count; z < kColumns; ++z) out[z] = 0.0f;
        }
      }
    }
  }

  // The same from a source whose rows are the columns of B (weights as [out, in]): transposes.
  template <class Source>
  static void pack_b_columns(const Source& source, int64_t k, int depth, int64_t column,
                             int columns, float* panels) {
    const int64_t panel_size = b_panel_size(depth);
    for (int j = 0; j < columns; j += kWidth) {
      float* out = panels + j / kColumns * panel_size + j % kColumns;
      const int count = columns - j < kWidth ? columns - j : kWidth;
      for (int s = 0; s < depth; s += kWidth) {
        const int steps = depth - s < kWidth ? depth - s : kWidth;
        float tile[kWidth * kWidth];
        for (int r = 0; r < kWidth; ++r) {
          if (r < count) {
            source.read(column + j + r, k + s, steps, tile + r * kWidth);
          } else {
            store(tile + r * kWidth, zero());
          }
        }
        transpose(tile);
        for (int t = 0; t < steps; ++t) {
          store(out + static_cast<int64_t>(s + t) * kColumns, load(tile + t * kWidth));
        }
      }
    }
    for (int j = (columns + kWidth - 1) / kWidth * kWidth; j % kColumns != 0; j += kWidth) {
      float* out = panels + j / kColumns * panel_size + j % kColumns;
      for (int s = 0; s < depth; ++s) store(out + static_cast<int64_t>(s) * kColumns, zero());
    }
  }

  // c_rows[i][column + j] (+)= sum_k a[i][k] b[k][j] for `rows` rows and `columns` columns.
  static void multiply(bool a_columns, int rows, int depth, const float* a, const float* b,
                       float* const* c_rows, int64_t column, int columns, bool accumulate);

  // In place: a square of kWidth x kWidth floats.
  static void transpose(float* tile) {
#if defined(__AVX512F__)
    __m512 r[16], t[16];
#  pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(tile + 16 * i);
#  pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
      t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#  pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
      r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
      r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
      r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    // r[4 g + c] now holds, in lane q, column 4 q + c of rows 4 g .. 4 g + 3.
#  pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const __m512 low0 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);
      const __m512 low1 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
      const __m512 high0 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
      const __m512 high1 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
      _mm512_storeu_ps(tile + 16 * c, _mm512_shuffle_f32x4(low0, low1, 0x88));
      _mm512_storeu_ps(tile + 16 * (8 + c), _mm512_shuffle_f32x4(low0, low1, 0xdd));
      _mm512_storeu_ps(tile + 16 * (4 + c), _mm512_shuffle_f32x4(high0, high1, 0x88));
      _mm512_storeu_ps(tile + 16 * (12 + c), _mm512_shuffle_f32x4(high0, high1, 0xdd));
    }
#else
    for (int i = 0; i < kWidth; ++i) {
      for (int j = i + 1; j < kWidth; ++j) {
        const float swap = tile[i * kWidth + j];
        tile[i * kWidth + j] = tile[j * kWidth + i];
        tile[j * kWidth + i] = swap;
      }
    }
#endif
  }
};

}  // namespace rq::RQ_ISA
