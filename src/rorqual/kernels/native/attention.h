// Arguments of the MLA attention kernels, shared by the C functions and every instruction set.
#pragma once

#include <stdint.h>

#include "isa.h"

namespace rq {

// q [B,T,N,D+R], kv [B,T,N,D+V], k_rope [B,T,R], out [B,T,N,V] of `dtype`; cos and sin [T,R/2], or
// [B,T,R/2] if angles_per_row; lse [B,N,T] in base 2 (+inf where a query sees no key).
struct AttentionArgs {
  int dtype;
  int64_t batch, tokens, heads, nope, rope, value;
  float softmax_scale;
  const void *q, *kv, *k_rope;
  const float *cos, *sin;
  bool angles_per_row;
  const int32_t* document_start;       // [B,T], or null: every document starts at 0
  const int32_t *gap_start, *gap_end;  // [B,T], keys from start up to end are not seen; or null
  void* out;
  float* lse;
  // Backward only; `out` and `lse` are inputs there.
  const void* grad_out;
  void *grad_q, *grad_kv, *grad_k_rope;
};

RQ_PER_ISA(int attention_forward(const AttentionArgs& args, int threads))
RQ_PER_ISA(int attention_backward(const AttentionArgs& args, int threads))

}  // namespace rq
