// Matrix product, C (+)= op(A) op(B), on all threads of a session.
#pragma once

#include <stdint.h>

#include "abi.h"
#include "isa.h"
#include "pool.h"

namespace rq {

// How A and B lie in memory, rows first: NN A[M,K] B[K,N], NT A[M,K] B[N,K], TN A[K,M] B[K,N].
enum GemmLayout : int { kNN = 0, kNT = 1, kTN = 2 };

// Row strides are in elements; elements of a row are contiguous.
struct GemmArguments {
  int input_dtype, output_dtype, layout;
  int64_t m, n, k;
  const void* a;
  int64_t a_stride;
  const void* b;
  int64_t b_stride;
  void* c;
  int64_t c_stride;
  bool accumulate;
};

RQ_PER_ISA(int gemm(Session& session, const GemmArguments& arguments))

}  // namespace rq
