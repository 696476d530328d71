// Routed experts, forward and backward: out[t] = sum_k w[t,k] Down_e(SiLU(Gate_e x) * Up_e x).
//
// Tokens are cut into chunks, one per thread. A chunk sorts its (token, k) slots by expert and runs
// expert after expert: rows are gathered straight into packed panels, gate and up are one product,
// SiLU * up * weight is computed while packing the second product, and that adds into the tokens'
// output rows (in ascending expert order). No buffer of gathered rows or of expert outputs exists.
#pragma once

#include <stdint.h>

#include "abi.h"
#include "isa.h"
#include "pool.h"

namespace rq {

// M tokens, H hidden, F expert width, E experts, K experts per token. Dense rows but for x,
// grad_out.
struct MoeArguments {
  int dtype;
  int64_t tokens, hidden, width, experts, chosen;
  const void* x;  // [M, H]
  int64_t x_stride;
  const int64_t* expert_idx;   // [M, K]
  const float* expert_weight;  // [M, K]
  const void* gate_up;         // [E, 2F, H]
  const void* down;            // [E, H, F]
  void* out;                   // [M, H]

  // Written by forward, read by backward. Rows are slots in sorted order.
  int chunks;
  void* activations;     // [M K, 2F] gate and up before SiLU
  int32_t* row_slot;     // [M K] t K + k of each row
  int32_t* row_token;    // [M K] t of each row
  int32_t* row_offsets;  // [chunks, E + 1] first row of each expert

  // Backward only.
  const void* grad_out;  // [M, H]
  int64_t grad_out_stride;
  void* grad_x;               // [M, H]
  float* grad_expert_weight;  // [M, K]
  void* grad_gate_up;         // [E, 2F, H]
  void* grad_down;            // [E, H, F]
};

RQ_PER_ISA(int moe_forward(Session& session, const MoeArguments& arguments))
RQ_PER_ISA(int moe_backward(Session& session, const MoeArguments& arguments))

}  // namespace rq
