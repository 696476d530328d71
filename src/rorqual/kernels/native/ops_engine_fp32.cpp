// The fp32 micro-kernels: one per number of rows and layout of the A panel. They stand in a file of
// their own because they are most of the compile time and every product uses the same ones.
#include "engine_fp32.h"

namespace rq::RQ_ISA {
namespace {

template <int rows, int row_stride, int depth_stride>
void block(int depth, const float* a, const float* b, float* const* c_rows, int64_t column,
           bool accumulate) {
  Vec sums[rows][2];
  if (accumulate) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      __builtin_prefetch(c_rows[i] + column, 1);
      __builtin_prefetch(c_rows[i] + column + kWidth, 1);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) sums[i][0] = sums[i][1] = zero();
#pragma GCC unroll 2
  for (int k = 0; k < depth; ++k) {
    const Vec b0 = load(b), b1 = load(b + kWidth);
    __builtin_prefetch(b + 8 * Fp32Engine::kColumns);
    __builtin_prefetch(b + 8 * Fp32Engine::kColumns + kWidth);
    b += Fp32Engine::kColumns;
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Vec scalar = broadcast(a[i * row_stride]);
      sums[i][0] = fma(scalar, b0, sums[i][0]);
      sums[i][1] = fma(scalar, b1, sums[i][1]);
    }
    a += depth_stride;
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
    float* out = c_rows[i] + column;
    if (accumulate) {
      sums[i][0] = sums[i][0] + load(out);
      sums[i][1] = sums[i][1] + load(out + kWidth);
    }
    store(out, sums[i][0]);
    store(out + kWidth, sums[i][1]);
  }
}

template <int rows>
void select(bool a_columns, int wanted, int depth, const float* a, const float* b,
            float* const* c_rows, int64_t column, bool accumulate) {
  if constexpr (rows < Fp32Engine::kRows) {
    if (wanted != rows) {
      return select<rows + 1>(a_columns, wanted, depth, a, b, c_rows, column, accumulate);
    }
  }
  if (a_columns) {
    block<rows, 1, Fp32Engine::kColumnStride>(depth, a, b, c_rows, column, accumulate);
  } else {
    block<rows, Fp32Engine::kPanelStride, 1>(depth, a, b, c_rows, column, accumulate);
  }
}

}  // namespace

void Fp32Engine::multiply(bool a_columns, int rows, int depth, const float* a, const float* b,
                          float* const* c_rows, int64_t column, int columns, bool accumulate) {
  if (columns == kColumns)
    return select<1>(a_columns, rows, depth, a, b, c_rows, column, accumulate);
  alignas(64) float tile[kColumnStride * kColumns];
  float* tile_rows[kColumnStride];
  for (int i = 0; i < rows; ++i) tile_rows[i] = tile + i * kColumns;
  select<1>(a_columns, rows, depth, a, b, tile_rows, 0, false);
  for (int i = 0; i < rows; ++i) {
    float* out = c_rows[i] + column;
    for (int j = 0; j < columns; ++j) out[j] = (accumulate ? out[j] : 0.0f) + tile_rows[i][j];
  }
}

}  // namespace rq::RQ_ISA
