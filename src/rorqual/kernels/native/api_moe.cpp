#include "moe.h"

namespace {

rq::MoeArguments common(int dtype, int64_t tokens, int64_t hidden, int64_t width, int64_t experts,
                        int64_t chosen, const void* x, int64_t x_stride, const float* expert_weight,
                        const void* gate_up, const void* down, int chunks, void* activations,
                        int32_t* plan) {
  rq::MoeArguments g = {};
  g.dtype = dtype;
  g.tokens = tokens;
  g.hidden = hidden;
  g.width = width;
  g.experts = experts;
  g.chosen = chosen;
  g.x = x;
  g.x_stride = x_stride;
  g.expert_weight = expert_weight;
  g.gate_up = gate_up;
  g.down = down;
  g.chunks = chunks;
  g.activations = activations;
  g.row_slot = plan;
  g.row_token = plan + tokens * chosen;
  g.row_offsets = plan + 2 * tokens * chosen;
  return g;
}

}  // namespace

// `plan` holds 2 M K + chunks (E + 1) ints, `activations` M K rows of 2 F; backward reads both.
RQ_API int rq_moe_forward(int isa, int threads, int dtype, int64_t tokens, int64_t hidden,
                          int64_t width, int64_t experts, int64_t chosen, const void* x,
                          int64_t x_stride, const int64_t* expert_idx, const float* expert_weight,
                          const void* gate_up, const void* down, int chunks, void* activations,
                          int32_t* plan, void* out) {
  rq::Session session(threads);
  rq::MoeArguments g = common(dtype, tokens, hidden, width, experts, chosen, x, x_stride,
                              expert_weight, gate_up, down, chunks, activations, plan);
  g.expert_idx = expert_idx;
  g.out = out;
  RQ_DISPATCH(isa, moe_forward(session, g))
}

RQ_API int rq_moe_backward(int isa, int threads, int dtype, int64_t tokens, int64_t hidden,
                           int64_t width, int64_t experts, int64_t chosen, const void* x,
                           int64_t x_stride, const float* expert_weight, const void* gate_up,
                           const void* down, int chunks, void* activations, int32_t* plan,
                           const void* grad_out, int64_t grad_out_stride, void* grad_x,
                           float* grad_expert_weight, void* grad_gate_up, void* grad_down) {
  rq::Session session(threads);
  rq::MoeArguments g = common(dtype, tokens, hidden, width, experts, chosen, x, x_stride,
                              expert_weight, gate_up, down, chunks, activations, plan);
  g.grad_out = grad_out;
  g.grad_out_stride = grad_out_stride;
  g.grad_x = grad_x;
  g.grad_expert_weight = grad_expert_weight;
  g.grad_gate_up = grad_gate_up;
  g.grad_down = grad_down;
  RQ_DISPATCH(isa, moe_backward(session, g))
}
