// Registers of 32-bit integers and exact sums of byte products, for the int8 and int4 kernels.
#pragma once

#include "vec.h"

namespace rq::RQ_ISA {

#if defined(__AVX512F__)
using Ints = __m512i;
RQ_INLINE Ints zero_ints() { return _mm512_setzero_si512(); }
RQ_INLINE Ints broadcast_ints(int32_t x) { return _mm512_set1_epi32(x); }
RQ_INLINE Ints load_ints(const void* p) { return _mm512_loadu_si512(p); }
RQ_INLINE Vec to_floats(Ints a) { return {_mm512_cvtepi32_ps(a)}; }
RQ_INLINE Ints subtract(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
#elif defined(__AVX2__)
using Ints = __m256i;
RQ_INLINE Ints zero_ints() { return _mm256_setzero_si256(); }
RQ_INLINE Ints broadcast_ints(int32_t x) { return _mm256_set1_epi32(x); }
RQ_INLINE Ints load_ints(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
RQ_INLINE Vec to_floats(Ints a) { return {_mm256_cvtepi32_ps(a)}; }
#else
typedef int32_t Ints __attribute__((vector_size(16)));
RQ_INLINE Ints zero_ints() { return Ints{0, 0, 0, 0}; }
RQ_INLINE Ints broadcast_ints(int32_t x) { return Ints{x, x, x, x}; }
RQ_INLINE Ints load_ints(const void* p) {
  Ints a;
  memcpy(&a, p, sizeof(a));
  return a;
}
RQ_INLINE Vec to_floats(Ints a) { return {__builtin_convertvector(a, Float4)}; }
#endif

RQ_INLINE int32_t load_word(const uint8_t* p) {
  int32_t word;
  memcpy(&word, p, 4);
  return word;
}

// sum += the four products of each lane's weights with the four activations in `word`.
#if defined(__AVX512F__)
// Without VNNI: 16-bit products in two halves. |product| <= 127 * 127, so pairs fit 32 bits.
RQ_INLINE Ints add_products(Ints sum, Ints weights, int32_t word) {
  const __m256i four = _mm256_set1_epi32(word);
  const __m512i a = _mm512_cvtepi8_epi16(four);
  const __m512i low = _mm512_madd_epi16(_mm512_cvtepi8_epi16(_mm512_castsi512_si256(weights)), a);
  const __m512i high =
      _mm512_madd_epi16(_mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(weights, 1)), a);
  // Lane 2 i and 2 i + 1 of `low` belong to column i, of `high` to column 8 + i.
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  const __m512i pairs = _mm512_add_epi32(_mm512_permutex2var_epi32(low, even, high),
                                         _mm512_permutex2var_epi32(low, odd, high));
  return _mm512_add_epi32(sum, pairs);
}
#elif defined(__AVX2__)
// |a| unsigned times weight with a's sign: pairs stay below 2^15, so nothing saturates.
RQ_INLINE Ints add_products(Ints sum, Ints weights, int32_t word) {
  const __m256i a = _mm256_set1_epi32(word);
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(weights, a));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#else
RQ_INLINE Ints add_products(Ints sum, Ints weights, int32_t word) {
#  pragma GCC unroll 4
  for (int byte = 0; byte < 4; ++byte) {
    const int shift = 24 - 8 * byte;
    const Ints w = (weights << shift) >> 24;
    const int32_t a = static_cast<int32_t>(static_cast<uint32_t>(word) << shift) >> 24;
    sum += w * a;
  }
  return sum;
}
#endif

}  // namespace rq::RQ_ISA
