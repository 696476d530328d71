// What the panel products share: the choice of a register tile's size, and the inner loop of those
// whose rows come in 32-bit words, several values in each.
#pragma once

#include "step_gemm.h"
#include "step_ints.h"

namespace rq::RQ_ISA {

// A tile is a function of its own: inlined beside its siblings, prefill is 4 % slower.
#define RQ_NOINLINE __attribute__((noinline))

template <int n>
struct Size {
  static constexpr int value = n;
};

// Calls function(Size<count>()), for 1 to kTileRows rows.
template <typename Function>
RQ_INLINE void with_rows(int count, Function function) {
  switch (count) {
    case 1:
      return function(Size<1>());
    case 2:
      return function(Size<2>());
    case 3:
      return function(Size<3>());
    case 4:
      return function(Size<4>());
    case 5:
      return function(Size<5>());
    default:
      return function(Size<kTileRows>());
  }
}

#if defined(__AVX512F__)
// Calls function(Size<count>()), for the 1 to 4 registers of a panel's width.
template <typename Function>
RQ_INLINE void with_vecs(int count, Function function) {
  switch (count) {
    case 1:
      return function(Size<1>());
    case 2:
      return function(Size<2>());
    case 3:
      return function(Size<3>());
    default:
      return function(Size<4>());
  }
}

// sums[i][j] = what the slice before left in `unfinished` (rows kPanelColumns apart; zero at the
// panel's beginning), plus the products of row i's words with those of column register j, k
// ascending. Product: the register of a sum, its zero, its `load` from `unfinished`, and `add(sum,
// row word in all lanes, weights)`.
template <typename Product, int rows, int vecs>
RQ_INLINE void multiply_words(const Pass& pass, const uint32_t* words, int width,
                              const uint8_t* const* a, const float* unfinished,
                              typename Product::Sum (&sums)[rows][vecs]) {
#  pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#  pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) {
      sums[i][j] = pass.begin == 0 ? Product::zero()
                                   : Product::load(unfinished + i * kPanelColumns + j * 16);
    }
  }
  words += pass.begin * width;
  const int64_t first = pass.first_ahead, second = pass.second_ahead, apart = pass.apart;
  const int64_t end = pass.end;
  for (int64_t k = pass.begin; k < end; ++k, words += width) {
    __m512i w[vecs];
#  pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) {
      w[j] = load_ints(words + j * 16);
      __builtin_prefetch(words + (j < 2 ? first : second) + j % 2 * apart);
    }
#  pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      const __m512i word = _mm512_set1_epi32(load_word(a[i] + 4 * k));
#  pragma GCC unroll 4
      for (int j = 0; j < vecs; ++j) Product::add(sums[i][j], word, w[j]);
    }
  }
}
#endif

}  // namespace rq::RQ_ISA
