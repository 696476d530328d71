// Routing of tokens to experts, and the order in which expert rows are worked on.
#pragma once

#include "step_gemm.h"

namespace rq::RQ_ISA {

// The experts of rows [first, first + count) of normed activations: chosen [T, K] ascending, their
// weights, into the scratch; count <= kPanelRows. `replay` [T, MoE layers, K] (or null) fixes the
// choice.
void route_rows(const Runtime& runtime, const LayerWeights& weights, int64_t moe_layer,
                const int16_t* replay, int64_t first, int count, float* tile);

// Sorts the T K (token, expert) slots by expert, tokens ascending: expert_begin, row_token,
// row_weight and the active experts of the scratch. Returns the number of active experts.
int sort_by_expert(const Runtime& runtime, int64_t tokens);

}  // namespace rq::RQ_ISA
