// Vec: one register of floats, for kernels that are written once and compiled per instruction set.
//
// kWidth floats wide: 16 with AVX-512, 8 with AVX2, 4 elsewhere (compiler vectors: SSE2, NEON).
// Loads and stores take float or Bf16 memory; the `count` forms touch only the first count elements
// and read zeros for the rest. exp is exact to about 2 units in the last place, keeps NaN, and is
// exactly 0 below -87.3.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#  include <immintrin.h>
#endif

#ifndef RQ_ISA
#  error "vec.h is for ops_*.cpp, which CMake compiles with RQ_ISA set"
#endif

#define RQ_INLINE static inline __attribute__((always_inline))

namespace rq::RQ_ISA {

struct Bf16 {
  uint16_t bits;
};

RQ_INLINE float to_float(float x) { return x; }
RQ_INLINE float to_float(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

// Round to nearest even; a NaN stays a NaN.
RQ_INLINE void from_float(float value, float* out) { *out = value; }
RQ_INLINE void from_float(float value, Bf16* out) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  out->bits = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40u
                                        : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#if defined(__AVX512F__)

constexpr int kWidth = 16;
struct Vec {
  __m512 v;
};

RQ_INLINE Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
RQ_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
RQ_INLINE Vec widen(__m256i half) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
}
RQ_INLINE Vec load(const Bf16* p) {
  return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
RQ_INLINE __mmask16 first(int count) { return static_cast<__mmask16>((1u << count) - 1u); }
RQ_INLINE Vec load(const float* p, int count) { return {_mm512_maskz_loadu_ps(first(count), p)}; }
RQ_INLINE Vec load(const Bf16* p, int count) {
  return widen(_mm256_maskz_loadu_epi16(first(count), p));
}
RQ_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
RQ_INLINE void store(float* p, Vec a, int count) { _mm512_mask_storeu_ps(p, first(count), a.v); }
RQ_INLINE __m256i narrow(Vec a) {
#  if defined(__AVX512BF16__)
  return (__m256i)_mm512_cvtneps_pbh(a.v);
#  else
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
#  endif
}
RQ_INLINE void store(Bf16* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(a));
}
RQ_INLINE void store(Bf16* p, Vec a, int count) {
  _mm256_mask_storeu_epi16(p, first(count), narrow(a));
}
RQ_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
RQ_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
RQ_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
RQ_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
RQ_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// If one operand is NaN the result is the second.
RQ_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
RQ_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
RQ_INLINE Vec round(Vec a) { return {_mm512_roundscale_ps(a.v, 8)}; }
RQ_INLINE Vec scale_by_power(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }
RQ_INLINE Vec zero_below(Vec value, Vec x, float limit) {
  const __mmask16 below = _mm512_cmp_ps_mask(x.v, _mm512_set1_ps(limit), _CMP_LT_OQ);
  return {_mm512_mask_mov_ps(value.v, below, _mm512_setzero_ps())};
}
RQ_INLINE float sum(Vec a) { return _mm512_reduce_add_ps(a.v); }
RQ_INLINE float maximum(Vec a) { return _mm512_reduce_max_ps(a.v); }

#elif defined(__AVX2__)

constexpr int kWidth = 8;
struct Vec {
  __m256 v;
};

RQ_INLINE Vec broadcast(float x) { return {_mm256_set1_ps(x)}; }
RQ_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
RQ_INLINE Vec load(const Bf16* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16))};
}
RQ_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
RQ_INLINE void store(Bf16* p, Vec a) {
  const __m256i bits = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  const __m128i packed =
      _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
}
RQ_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
RQ_INLINE Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
RQ_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
RQ_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
RQ_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
RQ_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
RQ_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
RQ_INLINE Vec round(Vec a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// In two steps, so that n from -252 to 254 works although one factor holds -126 to 127 only.
RQ_INLINE Vec scale_by_power(Vec a, Vec n) {
  const __m256i whole = _mm256_cvtps_epi32(n.v), half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i one = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i two = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
  return {_mm256_mul_ps(_mm256_mul_ps(a.v, _mm256_castsi256_ps(one)), _mm256_castsi256_ps(two))};
}
RQ_INLINE Vec zero_below(Vec value, Vec x, float limit) {
  return {_mm256_andnot_ps(_mm256_cmp_ps(x.v, _mm256_set1_ps(limit), _CMP_LT_OQ), value.v)};
}

#else

constexpr int kWidth = 4;
typedef float Float4 __attribute__((vector_size(16)));
typedef int32_t Int4 __attribute__((vector_size(16)));
struct Vec {
  Float4 v;
};

RQ_INLINE Vec broadcast(float x) { return {Float4{x, x, x, x}}; }
RQ_INLINE Vec load(const float* p) {
  Vec a;
  memcpy(&a.v, p, sizeof(a.v));
  return a;
}
RQ_INLINE Vec load(const Bf16* p) {
  return {Float4{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])}};
}
RQ_INLINE void store(float* p, Vec a) { memcpy(p, &a.v, sizeof(a.v)); }
RQ_INLINE void store(Bf16* p, Vec a) {
  for (int i = 0; i < 4; ++i) from_float(a.v[i], p + i);
}
RQ_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
RQ_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
RQ_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
RQ_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
RQ_INLINE Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
RQ_INLINE Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
RQ_INLINE Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
// Adding and subtracting 1.5 * 2^23 leaves the nearest integer (|a| < 2^22).
RQ_INLINE Vec round(Vec a) {
  Float4 shifted = a.v + broadcast(12582912.0f).v;
  __asm__ volatile("" : "+m"(shifted));
  return {shifted - broadcast(12582912.0f).v};
}
RQ_INLINE Vec scale_by_power(Vec a, Vec n) {
  const Int4 whole = __builtin_convertvector(n.v, Int4), half = whole >> 1;
  const Int4 one = (half + 127) << 23, two = (whole - half + 127) << 23;
  Float4 first, second;
  memcpy(&first, &one, 16);
  memcpy(&second, &two, 16);
  return {a.v * first * second};
}
RQ_INLINE Vec zero_below(Vec value, Vec x, float limit) {
  return {x.v < broadcast(limit).v ? broadcast(0.0f).v : value.v};
}

#endif

#if !defined(__AVX512F__)
template <typename T>
RQ_INLINE Vec load(const T* p, int count) {
  float buffer[kWidth] = {};
  for (int i = 0; i < count; ++i) buffer[i] = to_float(p[i]);
  return load(buffer);
}
template <typename T>
RQ_INLINE void store(T* p, Vec a, int count) {
  float buffer[kWidth];
  store(buffer, a);
  for (int i = 0; i < count; ++i) from_float(buffer[i], p + i);
}
// Pairwise, in a fixed order.
RQ_INLINE float sum(Vec a) {
  float buffer[kWidth];
  store(buffer, a);
  for (int half = kWidth / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) buffer[i] += buffer[i + half];
  }
  return buffer[0];
}
RQ_INLINE float maximum(Vec a) {
  float buffer[kWidth];
  store(buffer, a);
  float best = buffer[0];
  for (int i = 1; i < kWidth; ++i) best = buffer[i] > best ? buffer[i] : best;
  return best;
}
#endif

RQ_INLINE Vec zero() { return broadcast(0.0f); }

// 2^n (1 + r + r^2 q(r)) with n = round(x / ln 2) and r = x - n ln 2. ln 2 is split into 15 bits,
// whose product with n is exact, and the rest; q is the Chebyshev fit of degree 5 on |r| <= ln 2
// / 2.
RQ_INLINE Vec exp(Vec x) {
  const Vec bounded = min(broadcast(89.0f), max(broadcast(-88.0f), x));
  const Vec n = round(bounded * broadcast(1.44269504f));
  Vec r = fma(n, broadcast(-22713.0f / 32768.0f), bounded);
  r = fma(n, broadcast(-1.428606765e-6f), r);
  Vec q = broadcast(1.989939192e-4f);
  q = fma(q, r, broadcast(1.393373357e-3f));
  q = fma(q, r, broadcast(8.333298378e-3f));
  q = fma(q, r, broadcast(4.166646302e-2f));
  q = fma(q, r, broadcast(1.666666716e-1f));
  q = fma(q, r, broadcast(0.5f));
  const Vec value = fma(q, r * r, r + broadcast(1.0f));
  return zero_below(scale_by_power(value, n), x, -87.3f);
}

RQ_INLINE Vec sigmoid(Vec x) { return broadcast(1.0f) / (broadcast(1.0f) + exp(zero() - x)); }

// Calls function(start, count) over [0, count) in registers; count < kWidth only for the last.
template <typename Function>
RQ_INLINE void for_each_vec(int64_t count, Function function) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) function(i, kWidth);
  if (i < count) function(i, static_cast<int>(count - i));
}

}  // namespace rq::RQ_ISA
