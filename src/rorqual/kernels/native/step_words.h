// Registers of bf16 pairs: widened by a shift or a mask instead of a shuffle, or multiplied as they
// are where the machine can.
#pragma once

#include "vec.h"

namespace rq::RQ_ISA {

// kWidth 32-bit words of bf16 pairs, and their low and high halves as floats.
#if defined(__AVX512F__)
struct Words {
  __m512i v;
};
RQ_INLINE Words load_words(const uint32_t* p) { return {_mm512_loadu_si512(p)}; }
RQ_INLINE Vec low_half(Words w) { return {_mm512_castsi512_ps(_mm512_slli_epi32(w.v, 16))}; }
RQ_INLINE Vec high_half(Words w) {
  return {
      _mm512_castsi512_ps(_mm512_and_si512(w.v, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}
#  if defined(RQ_BF16_PAIRS)
// sum += the two products of each lane's bf16 pairs. Flushes denormals and rounds twice.
// NOTE: only if `has_bf16_pairs`. The AVX-512 copy is compiled without the extension, so the one
// instruction is written out.
RQ_INLINE void add_pairs(Vec& sum, Words a, Words b) {
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum.v) : "v"(a.v), "v"(b.v));
}
// Words of two registers of floats, the first low.
RQ_INLINE Words to_pairs(Vec low, Vec high) {
  const __m512i a = _mm512_cvtepu16_epi32(narrow(low)), b = _mm512_cvtepu16_epi32(narrow(high));
  return {_mm512_or_si512(a, _mm512_slli_epi32(b, 16))};
}
#  endif
#elif defined(__AVX2__)
struct Words {
  __m256i v;
};
RQ_INLINE Words load_words(const uint32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
RQ_INLINE Vec low_half(Words w) { return {_mm256_castsi256_ps(_mm256_slli_epi32(w.v, 16))}; }
RQ_INLINE Vec high_half(Words w) {
  return {
      _mm256_castsi256_ps(_mm256_and_si256(w.v, _mm256_set1_epi32(static_cast<int>(0xffff0000u))))};
}
#else
typedef uint32_t Word4 __attribute__((vector_size(16)));
struct Words {
  Word4 v;
};
RQ_INLINE Words load_words(const uint32_t* p) {
  Words w;
  memcpy(&w.v, p, sizeof(w.v));
  return w;
}
RQ_INLINE Vec from_bits(Word4 bits) {
  Vec a;
  memcpy(&a.v, &bits, sizeof(bits));
  return a;
}
RQ_INLINE Vec low_half(Words w) { return from_bits(w.v << 16); }
RQ_INLINE Vec high_half(Words w) { return from_bits(w.v & 0xffff0000u); }
#endif

}  // namespace rq::RQ_ISA
