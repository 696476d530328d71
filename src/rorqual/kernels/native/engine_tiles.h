// The bf16 panel engine on AMX tiles: same interface as Fp32Engine, bf16 panels, fp32 sums.
//
// A micro-kernel is 2 x 2 tiles of 16 x 16 sums. An A panel is 32 rows at a fixed stride (a tile
// load takes a stride, so rows need no shuffling); a B panel holds pairs of steps of k side by
// side, [k / 2][32 columns][2], as tdpbf16ps reads them. k is padded with zeros to multiples of 32.
//
// NOTE: tested on emulated tiles only, so its block sizes are reasoned, not measured.
#pragma once

#include "engine_fp32.h"
#include "tiles.h"

namespace rq::RQ_ISA {

struct TileEngine {
  using Packed = Bf16;
  static constexpr int kRows = 32;
  static constexpr int kColumns = 32;
  static constexpr int kDepth = 512;
  static constexpr int kDepthUnit = 32;
  static constexpr int kPanelStride = kDepth + 32;
  static constexpr int64_t kAElements = 8 * kRows * kPanelStride;
  static constexpr int64_t kPanelBytes = 1 << 20;  // of B, per thread: half of 2 MiB L2

  static void begin() { Tiles::configure(TileConfig{}); }
  static void end() { Tiles::release(); }

  template <class Source>
  static void pack_a_rows(const Source& source, int64_t row, int rows, int64_t k, int depth,
                          Bf16* panel) {
    for (int i = 0; i < rows; ++i) {
      Bf16* out = panel + i * kPanelStride;
      source.read(row + i, k, depth, out);
      for (int s = depth; s % kDepthUnit != 0; ++s) out[s] = {0};
    }
  }

  static int64_t column_panel_size(int) { return kRows * kPanelStride; }
  static int64_t b_panel_size(int depth) { return static_cast<int64_t>(depth + 2) * kColumns; }

  // Rows of the source are steps of k: transposes, 32 x 32 at a time.
  template <class Source>
  static void pack_a_columns(const Source& source, int64_t column, int columns, int64_t k,
                             int depth, Bf16* panels) {
    for (int s = 0; s < depth; s += kDepthUnit) {
      for (int i = 0; i < columns; i += kRows) {
        const int count = columns - i < kRows ? columns - i : kRows;
        Bf16 steps[kDepthUnit][kRows] = {};
        for (int t = 0; t < kDepthUnit && s + t < depth; ++t) {
          source.read(k + s + t, column + i, count, steps[t]);
        }
        Bf16* panel = panels + i / kRows * column_panel_size(depth) + s;
        for (int r = 0; r < count; ++r) {
          for (int t = 0; t < kDepthUnit; ++t) panel[r * kPanelStride + t] = steps[t][r];
        }
      }
    }
  }

  template <class Source>
  static void pack_b_rows(const Source& source, int64_t k, int depth, int64_t column, int columns,
                          Bf16* panels) {
    const int padded = (depth + kDepthUnit - 1) / kDepthUnit * kDepthUnit;
    for (int s = 0; s < padded; s += 2) {
      for (int j = 0; j < columns; j += kColumns) {
        Bf16* out = panels + j / kColumns * b_panel_size(padded) + s * kColumns;
        const int count = columns - j < kColumns ? columns - j : kColumns;
        Bf16 even[kColumns] = {}, odd[kColumns] = {};
        if (s < depth) source.read(k + s, column + j, count, even);
        if (s + 1 < depth) source.read(k + s + 1, column + j, count, odd);
        for (int i = 0; i < kColumns; ++i) {
          out[2 * i] = even[i];
          out[2 * i + 1] = odd[i];
        }
      }
    }
  }

  // Rows of the source are columns of B: a pair of steps is 4 bytes, so pairs transpose as floats.
  template <class Source>
  static void pack_b_columns(const Source& source, int64_t k, int depth, int64_t column,
                             int columns, Bf16* panels) {
    const int padded = (depth + kDepthUnit - 1) / kDepthUnit * kDepthUnit;
    constexpr int kSteps = 2 * kWidth;
    for (int j = 0; j < columns; j += kColumns) {
      for (int part = 0; part < kColumns; part += kWidth) {
        for (int s = 0; s < padded; s += kSteps) {
          alignas(64) Bf16 pairs[kWidth * kSteps] = {};
          const int steps = depth - s < kSteps ? depth - s : kSteps;
          for (int r = 0; r < kWidth && j + part + r < columns && steps > 0; ++r) {
            source.read(column + j + part + r, k + s, steps, pairs + r * kSteps);
          }
          float tile[kWidth * kWidth];
          memcpy(tile, pairs, sizeof(tile));
          Fp32Engine::transpose(tile);
          for (int t = 0; t < kWidth; ++t) {
            memcpy(panels + j / kColumns * b_panel_size(padded) + (s + 2 * t) * kColumns + 2 * part,
                   tile + t * kWidth, sizeof(float) * kWidth);
          }
        }
      }
    }
  }

  static void multiply(bool, int rows, int depth, const Bf16* a, const Bf16* b,
                       float* const* c_rows, int64_t column, int columns, bool accumulate) {
    alignas(64) float sums[kRows * kColumns];
    if (rows > 16) {
      columns > 16 ? block<true, true>(depth, a, b, sums) : block<true, false>(depth, a, b, sums);
    } else {
      columns > 16 ? block<false, true>(depth, a, b, sums) : block<false, false>(depth, a, b, sums);
    }
    for (int i = 0; i < rows; ++i) {
      float* out = c_rows[i] + column;
      const float* row = sums + i * kColumns;
      for_each_vec(columns, [&](int64_t j, int count) {
        if (count == kWidth) {
          store(out + j, accumulate ? load(out + j) + load(row + j) : load(row + j));
        } else {
          const Vec sum = load(row + j, count);
          store(out + j, accumulate ? load(out + j, count) + sum : sum, count);
        }
      });
    }
  }

 private:
  template <bool lower, bool right>
  static void block(int depth, const Bf16* a, const Bf16* b, float* sums) {
    constexpr int64_t kABytes = kPanelStride * 2, kBBytes = kColumns * 4, kSumBytes = kColumns * 4;
    Tiles::clear<0>();
    if constexpr (right) Tiles::clear<1>();
    if constexpr (lower) Tiles::clear<2>();
    if constexpr (lower && right) Tiles::clear<3>();
    for (int k = 0; k < depth; k += kDepthUnit) {
      Tiles::load<4>(a + k, kABytes);
      Tiles::load<6>(b, kBBytes);
      Tiles::multiply<0, 4, 6>();
      if constexpr (right) {
        Tiles::load<7>(b + 32, kBBytes);
        Tiles::multiply<1, 4, 7>();
      }
      if constexpr (lower) {
        Tiles::load<5>(a + 16 * kPanelStride + k, kABytes);
        Tiles::multiply<2, 5, 6>();
      }
      if constexpr (lower && right) Tiles::multiply<3, 5, 7>();
      b += kDepthUnit * kColumns;
    }
    Tiles::store<0>(sums, kSumBytes);
    if constexpr (right) Tiles::store<1>(sums + 16, kSumBytes);
    if constexpr (lower) Tiles::store<2>(sums + 16 * kColumns, kSumBytes);
    if constexpr (lower && right) Tiles::store<3>(sums + 16 * kColumns + 16, kSumBytes);
  }
};

}  // namespace rq::RQ_ISA
