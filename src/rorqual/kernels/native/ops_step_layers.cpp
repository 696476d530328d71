// The feed-forward half of a layer: dense SwiGLU, or routed experts beside shared ones.
#include "step.h"

namespace rq::RQ_ISA {

// Hidden activations SiLU(gate) * up of one panel for rows index[i] (or first + i), written to rows
// out_row + i of `activation`.
void Step::activate_panel(const Matrix& m, int64_t panel, const Operand& input,
                          const int32_t* index, int64_t first, int64_t count, int64_t out_row,
                          int part) {
  const int half = m.width(panel) / 2;
  const int64_t column = panel * kPanelColumns / 2;
  for_products(m, panel, input, {index, first}, count, part, [&](int64_t i, const float* gate) {
    float* out = b.activation + (out_row + i) * b.activation_stride + column;
    // Rows are padded to whole groups of columns, so the last group may be written whole.
    for (int j = 0; j < half; j += kWidth) {
      const Vec g = load(gate + j);
      store(out + j, g * sigmoid(g) * load(gate + half + j));
    }
  });
}

// x[first + i] += rows of `input` times one panel.
void Step::add_panel(const Matrix& m, int64_t panel, const Operand& input, int64_t first,
                     int64_t count, int part) {
  const int64_t column = panel * kPanelColumns, left = shape.hidden - column;
  const int columns = static_cast<int>(left < kPanelColumns ? left : kPanelColumns);
  for_products(m, panel, input, {nullptr, first}, count, part, [&](int64_t i, const float* sums) {
    float* x = b.x + (first + i) * shape.hidden + column;
    for (int j = 0; j < columns; ++j) x[j] += sums[j];
  });
}

void Step::feed_forward_layer(int64_t layer) {
  const LayerWeights& w = runtime.layers[layer];
  if (w.moe) {
    moe_layer = layer - shape.first_moe_layer;
    return routed_layer(w);
  }
  norm_rows(w.gate_up, b.x, shape.hidden, shape.hidden, w.post_norm, shape.eps);
  const Operand normed = operand(b.normed, shape.hidden);
  for_panels(w.gate_up, [&](int64_t panel, int64_t first, int64_t count, int part) {
    activate_panel(w.gate_up, panel, normed, nullptr, first, count, first, part);
  });
  quantise_rows(w.down, b.activation, b.activation_stride, shape.intermediate, 0, rows);
  const Operand activation = operand(b.activation, b.activation_stride);
  for_panels(w.down, [&](int64_t panel, int64_t first, int64_t count, int part) {
    add_panel(w.down, panel, activation, first, count, part);
  });
}

namespace {

// First of rows [begin, end) whose token is not below `token`; tokens ascend.
int64_t first_row_of(const int32_t* row_token, int64_t begin, int64_t end, int64_t token) {
  while (begin < end) {
    const int64_t middle = (begin + end) / 2;
    if (row_token[middle] < token) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

}  // namespace

// x of tokens [begin, end) += shared experts, then routed ones in ascending order of the expert.
void Step::expert_down_panel(const LayerWeights& w, int64_t panel, int64_t begin, int64_t end,
                             int part) {
  const Operand activation = operand(b.activation, b.activation_stride);
  if (shape.shared_width > 0) add_panel(w.down, panel, activation, begin, end - begin, part);
  const int64_t column = panel * kPanelColumns, left = shape.hidden - column;
  const int columns = static_cast<int>(left < kPanelColumns ? left : kPanelColumns);
  for (int n = 0; n < num_active; ++n) {
    const int64_t e = b.active[n];
    int64_t from = b.expert_begin[e], to = b.expert_begin[e + 1];
    if (begin > 0) from = first_row_of(b.row_token, from, to, begin);
    if (end < rows) to = first_row_of(b.row_token, from, to, end);
    for_products(w.expert_down[e], panel, activation, {nullptr, rows + from}, to - from, part,
                 [&](int64_t i, const float* sums) {
                   float* x = b.x + b.row_token[from + i] * shape.hidden + column;
                   const float weight = b.row_weight[from + i];
                   for (int j = 0; j < columns; ++j) x[j] += weight * sums[j];
                 });
  }
}

void Step::routed_layer(const LayerWeights& w) {
  const int64_t hidden = shape.hidden, slots = rows * shape.chosen;
  for_rows(rows, static_cast<double>(hidden) * (4e-4 + 4e-5 * static_cast<double>(shape.experts)),
           [&](int64_t first, int count, int part) {
             for (int64_t row = first; row < first + count; ++row) {
               float* out = b.normed + row * hidden;
               rms_norm_row(b.x + row * hidden, hidden, w.post_norm, shape.eps, out);
               quantise(w.expert_gate_up[0], out, hidden, row);
             }
             route_rows(runtime, w, moe_layer, arguments.replay, first, count, part_sums(part));
           });
  num_active = sort_by_expert(runtime, rows);
  if (arguments.routes != nullptr) {
    const int64_t moe_layers = shape.moe_layers();
    for (int64_t i = 0; i < slots; ++i) {
      const int64_t row = i / shape.chosen;
      arguments.routes[(row * moe_layers + moe_layer) * shape.chosen + i % shape.chosen] =
          static_cast<int16_t>(b.chosen[i]);
    }
  }

  const Operand normed = operand(b.normed, hidden);
  const bool shared = shape.shared_width > 0;
  const int64_t shared_tasks = shared ? w.gate_up.panels() * num_chunks : 0;
  const int64_t expert_panels = w.expert_gate_up[0].panels();
  double cost = shared ? product_microseconds(w.gate_up, rows) : 0.0;
  const int64_t mean_rows = (slots + num_active - 1) / num_active;
  cost += num_active * product_microseconds(w.expert_gate_up[0], mean_rows);
  for_tasks(shared_tasks + num_active * expert_panels, cost, [&](int64_t task, int part) {
    if (task < shared_tasks) {
      const int64_t chunk = task % num_chunks, first = b.chunk_begin[chunk];
      return activate_panel(w.gate_up, task / num_chunks, normed, nullptr, first,
                            b.chunk_begin[chunk + 1] - first, first, part);
    }
    const int64_t e = b.active[(task - shared_tasks) / expert_panels];
    const int64_t begin = b.expert_begin[e];
    activate_panel(w.expert_gate_up[e], (task - shared_tasks) % expert_panels, normed,
                   b.row_token + begin, 0, b.expert_begin[e + 1] - begin, rows + begin, part);
  });

  if (shared) quantise_rows(w.down, b.activation, b.activation_stride, shape.shared_width, 0, rows);
  quantise_rows(w.expert_down[0], b.activation + rows * b.activation_stride, b.activation_stride,
                shape.expert_width, rows, slots);
  // As many token ranges as it takes to give every thread several tasks.
  const int64_t panels = w.expert_down[0].panels();
  const int64_t most = (rows + kRowsPerTask - 1) / kRowsPerTask;
  int64_t ranges = (4 * session.threads() + panels - 1) / panels;
  ranges = ranges < most ? ranges : most;
  cost = shared ? product_microseconds(w.down, rows) : 0.0;
  cost += num_active * product_microseconds(w.expert_down[0], mean_rows);
  for_tasks(panels * ranges, cost, [&](int64_t task, int part) {
    const int64_t range = task % ranges;
    expert_down_panel(w, task / ranges, rows * range / ranges, rows * (range + 1) / ranges, part);
  });
}

}  // namespace rq::RQ_ISA
