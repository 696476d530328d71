// Building blocks of attention: products of small blocks that stay in the first two cache levels,
// 8 x 8 transposes, rows converted to floats, rotations.
//
// A block pair is 64 queries by 64 keys. Scores are held as [key][query], queries in the lanes of a
// register: maxima, sums and masks then run down the columns, without shuffles inside a register.
// Every product has the form c[8, n] += a[8, k] b[k, n] with n a multiple of 16 and `a` addressed
// by compile-time strides, so no operand is repacked between the products that share it.
#pragma once

#include <math.h>
#include <string.h>

#include "vec.h"

namespace rq::RQ_ISA {

constexpr int64_t kBlock = 64;  // queries, and keys, of a block
constexpr int64_t kStrip = 8;   // rows of one product
constexpr int64_t kPad = 16;    // widths are padded to the widest register

RQ_INLINE int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

// c[rows, columns registers] (+)= a[rows, k_begin..k_end] b, all sums in registers.
template <int kRows, int kColumns, int kRowStride, int kDepthStride>
RQ_INLINE void tile(int64_t k_begin, int64_t k_end, const float* a, const float* b, int64_t ldb,
                    float* c, int64_t ldc, bool accumulate) {
  Vec sums[kRows][kColumns];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kColumns; ++j) {
      sums[i][j] = accumulate ? load(c + i * ldc + j * kWidth) : zero();
    }
  }
  a += k_begin * kDepthStride;
  b += k_begin * ldb;
  for (int64_t k = k_begin; k < k_end; ++k, a += kDepthStride, b += ldb) {
    Vec row[kColumns];
#pragma GCC unroll 4
    for (int j = 0; j < kColumns; ++j) row[j] = load(b + j * kWidth);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const Vec factor = broadcast(a[i * kRowStride]);
#pragma GCC unroll 4
      for (int j = 0; j < kColumns; ++j) sums[i][j] = fma(factor, row[j], sums[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kColumns; ++j) store(c + i * ldc + j * kWidth, sums[i][j]);
  }
}

template <int kColumns, int kRowStride, int kDepthStride>
RQ_INLINE void strip_tiles(int64_t k_begin, int64_t k_end, const float* a, const float* b,
                           int64_t ldb, float* c, int64_t ldc, bool accumulate) {
  constexpr int kRows = kWidth == 16 ? 8 : 4;  // as many sums as the register file holds
  for (int64_t r = 0; r < kStrip; r += kRows) {
    tile<kRows, kColumns, kRowStride, kDepthStride>(k_begin, k_end, a + r * kRowStride, b, ldb,
                                                    c + r * ldc, ldc, accumulate);
  }
}

// c[8, n_begin..n_end] (+)= a[8, k_begin..k_end] b. The bounds of n are multiples of kWidth.
template <int kRowStride, int kDepthStride>
static __attribute__((noinline)) void strip_product(int64_t k_begin, int64_t k_end, int64_t n_begin,
                                                    int64_t n_end, const float* a, const float* b,
                                                    int64_t ldb, float* c, int64_t ldc,
                                                    bool accumulate) {
  int64_t n = n_begin;
  while (n < n_end) {
    const int64_t left = (n_end - n) / kWidth;
    if (left == 1) {
      strip_tiles<1, kRowStride, kDepthStride>(k_begin, k_end, a, b + n, ldb, c + n, ldc,
                                               accumulate);
      n += kWidth;
    } else if (left == 2 || left == 4) {
      strip_tiles<2, kRowStride, kDepthStride>(k_begin, k_end, a, b + n, ldb, c + n, ldc,
                                               accumulate);
      n += 2 * kWidth;
    } else {
      strip_tiles<3, kRowStride, kDepthStride>(k_begin, k_end, a, b + n, ldb, c + n, ldc,
                                               accumulate);
      n += 3 * kWidth;
    }
  }
}

typedef float Float8 __attribute__((vector_size(32)));

// target[c][r] = source[r][c] for 8 x 8 floats.
RQ_INLINE void transpose_8x8(const float* source, int64_t source_stride, float* target,
                             int64_t target_stride) {
  Float8 r[8], t[8];
  for (int i = 0; i < 8; ++i) memcpy(&r[i], source + i * source_stride, 32);
  for (int i = 0; i < 8; i += 2) {
    t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    r[i + 1] = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    r[i + 2] = __builtin_shufflevector(t[i + 1], t[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
    r[i + 3] = __builtin_shufflevector(t[i + 1], t[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = __builtin_shufflevector(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    t[i + 4] = __builtin_shufflevector(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
  for (int i = 0; i < 8; ++i) memcpy(target + i * target_stride, &t[i], 32);
}

// [rows][width] -> [width][rows]; rows and width are multiples of 8.
RQ_INLINE void transpose(const float* source, int64_t source_stride, int64_t rows, int64_t width,
                         float* target, int64_t target_stride) {
  for (int64_t c = 0; c < width; c += 8) {
    for (int64_t r = 0; r < rows; r += 8) {
      transpose_8x8(source + r * source_stride + c, source_stride, target + c * target_stride + r,
                    target_stride);
    }
  }
}

// Rows of floats, scaled, out of and into rows of float or Bf16.
template <typename T>
RQ_INLINE void read_row(const T* source, int64_t count, float* target) {
  for_each_vec(count, [&](int64_t i, int n) {
    if (n == kWidth) {
      store(target + i, load(source + i));
    } else {
      store(target + i, load(source + i, n), n);
    }
  });
}

template <typename T>
RQ_INLINE void write_row(T* target, const float* source, int64_t count, float scale) {
  for_each_vec(count, [&](int64_t i, int n) {
    if (n == kWidth) {
      store(target + i, load(source + i) * broadcast(scale));
    } else {
      store(target + i, load(source + i, n) * broadcast(scale), n);
    }
  });
}

// A head's rows lie a page apart in memory, out of reach of the hardware's prefetcher.
constexpr int64_t kRowsAhead = 8;
template <typename T>
RQ_INLINE void prefetch_row(const T* row, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(T))) {
    __builtin_prefetch(row + i);
  }
}

RQ_INLINE void clear(float* target, int64_t count) {
  memset(target, 0, static_cast<size_t>(count) * sizeof(float));
}

// count is a multiple of kPad.
RQ_INLINE void scale_row(float* row, int64_t count, float scale) {
  for (int64_t i = 0; i < count; i += kWidth) store(row + i, load(row + i) * broadcast(scale));
}

RQ_INLINE Vec swap_pairs(Vec a) {
#if defined(__AVX512F__)
  return {_mm512_permute_ps(a.v, 0xb1)};
#elif defined(__AVX2__)
  return {_mm256_permute_ps(a.v, 0xb1)};
#else
  return {__builtin_shufflevector(a.v, a.v, 1, 0, 3, 2)};
#endif
}

// Rotates the pairs (2i, 2i+1) of a row in place by `direction` (1 or -1) times the angle. cosine
// holds each value twice; sine holds (-s, s).
RQ_INLINE void rotate_row(float* row, const float* cosine, const float* sine, int64_t count,
                          float direction) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    const Vec x = load(row + i), s = load(sine + i) * broadcast(direction);
    store(row + i, fma(x, load(cosine + i), swap_pairs(x) * s));
  }
  for (; i < count; i += 2) {
    const float even = row[i], odd = row[i + 1];
    row[i] = even * cosine[i] + odd * (sine[i] * direction);
    row[i + 1] = odd * cosine[i + 1] + even * (sine[i + 1] * direction);
  }
}

// 2^x to a relative error of 1e-7 (degree-6 minimax on [-1/2, 1/2]); exactly 0 below -126.
RQ_INLINE Vec exp2(Vec x) {
  const Vec n = round(x), r = x - n;
  Vec p = broadcast(1.535336196e-04f);
  p = fma(p, r, broadcast(1.339887502e-03f));
  p = fma(p, r, broadcast(9.618436918e-03f));
  p = fma(p, r, broadcast(5.550332367e-02f));
  p = fma(p, r, broadcast(2.402264774e-01f));
  p = fma(p, r, broadcast(6.931471825e-01f));
  p = fma(p, r, broadcast(1.0f));
  return zero_below(scale_by_power(p, n), x, -126.0f);
}

}  // namespace rq::RQ_ISA
