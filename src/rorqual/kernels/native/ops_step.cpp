// One engine step: every layer, for the whole batch. See step.h for the state the phases share.
//
// A layer of the latent (MLA) kind is six phases with one fork and join each: norm + latent
// projections; queries, absorption and cache; attention with the value up-projection; output
// projection; norm, router, gate and up with SiLU; down with the weighted sum.
#include "step.h"

namespace rq::RQ_ISA {

void rms_norm_row(const float* x, int64_t width, const float* weight, double eps, float* out) {
  Vec squares = zero();
  for_each_vec(width, [&](int64_t i, int wide) {
    const Vec v = wide == kWidth ? load(x + i) : load(x + i, wide);
    squares = fma(v, v, squares);
  });
  const float mean = sum(squares) / static_cast<float>(width);
  const Vec factor = broadcast(1.0f / __builtin_sqrtf(mean + static_cast<float>(eps)));
  for_each_vec(width, [&](int64_t i, int wide) {
    if (wide == kWidth) {
      store(out + i, load(x + i) * factor * load(weight + i));
    } else {
      store(out + i, load(x + i, wide) * factor * load(weight + i, wide), wide);
    }
  });
}

// Positions and sequences of the rows, and chunks of about kRowsPerTask rows that end where a
// cache block ends: two tasks never write one block.
void Step::plan_rows() {
  const StepArguments& a = arguments;
  for (int64_t s = 0; s < a.sequences; ++s) {
    for (int64_t row = a.first_rows[s]; row < a.first_rows[s + 1]; ++row) {
      b.row_sequence[row] = static_cast<int32_t>(s);
      b.position[row] = a.num_cached[s] + static_cast<int32_t>(row - a.first_rows[s]);
    }
  }
  int64_t begin = 0;
  num_chunks = 0;
  b.chunk_begin[0] = 0;
  for (int64_t row = 1; row <= rows; ++row) {
    const bool boundary = row == rows || b.row_sequence[row] != b.row_sequence[row - 1] ||
                          b.position[row] % kBlockTokens == 0;
    if (row < rows && (!boundary || row - begin < kRowsPerTask)) continue;
    b.chunk_begin[++num_chunks] = static_cast<int32_t>(row);
    begin = row;
  }
  int64_t tasks = 0;
  for (int64_t s = 0; s < a.sequences; ++s) {
    b.attention_begin[s] = static_cast<int32_t>(tasks);
    const AttentionTiles tiles = attention_tiles(*this, s);
    tasks += tiles.token_tiles * tiles.head_groups;
  }
  b.attention_begin[a.sequences] = static_cast<int32_t>(tasks);
}

// Whether the whole step, from its shapes alone, is long enough for more than one thread.
void Step::decide_threads() {
  if (session.threads() == 1) return;
  double total = product_microseconds(runtime.head, arguments.outputs);
  for (int64_t layer = arguments.first_layer; layer < arguments.last_layer; ++layer) {
    const LayerWeights& w = runtime.layers[layer];
    const double heads = static_cast<double>(shape.heads);
    total += attention_microseconds() + product_microseconds(w.output, rows);
    total += heads * product_microseconds(w.query_heads[0], rows);
    if (w.gate_up.words != nullptr) {
      total += product_microseconds(w.gate_up, rows) + product_microseconds(w.down, rows);
    }
    if (!w.moe) continue;
    const int64_t slots = rows * shape.chosen;
    const double experts = static_cast<double>(slots < shape.experts ? slots : shape.experts);
    const int64_t each = (slots + shape.experts - 1) / shape.experts;
    total += experts * (product_microseconds(w.expert_gate_up[0], each) +
                        product_microseconds(w.expert_down[0], each));
  }
  forks = total >= kWakeMicroseconds;
}

void Step::embed() {
  const int64_t width = shape.hidden;
  float* out = arguments.previous != nullptr ? b.joined : b.x;
  const int64_t stride = arguments.previous != nullptr ? 2 * width : width;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t token = arguments.token_ids[row];
    for_each_vec(width, [&](int64_t i, int wide) {
      const int64_t at = token * width + i;
      Vec v;
      if (runtime.wide_embedding) {
        const float* from = static_cast<const float*>(runtime.embedding) + at;
        v = wide == kWidth ? load(from) : load(from, wide);
      } else {
        const Bf16* from = static_cast<const Bf16*>(runtime.embedding) + at;
        v = wide == kWidth ? load(from) : load(from, wide);
      }
      float* to = out + row * stride + i;
      wide == kWidth ? store(to, v) : store(to, v, wide);
    });
  }
}

// MTP (V3 eq. 21): x = eh_proj([norm(embedding), norm(previous state)]).
void Step::join_previous() {
  const int64_t width = shape.hidden;
  const int64_t layer = arguments.first_layer;
  const LayerWeights& w = runtime.layers[layer];
  for_rows(rows, 0.3, [&](int64_t first, int count, int) {
    for (int64_t row = first; row < first + count; ++row) {
      float* joined = b.joined + row * 2 * width;
      const float* state = arguments.previous + row * width;
      rms_norm_row(joined, width, w.embedding_norm, shape.eps, joined);
      if (layer == shape.layers) {
        // The main model hands over its state before the final norm.
        rms_norm_row(state, width, runtime.final_norm, shape.eps, joined + width);
        state = joined + width;
      }
      rms_norm_row(state, width, w.hidden_norm, shape.eps, joined + width);
    }
  });
  memset(b.x, 0, static_cast<size_t>(rows * width) * sizeof(float));
  quantise_rows(w.joined, b.joined, 2 * width, 2 * width, 0, rows);
  for_panels(w.joined, [&](int64_t panel, int64_t first, int64_t count, int part) {
    add_panel(w.joined, panel, operand(b.joined, 2 * width), first, count, part);
  });
}

void Step::norm_rows(const Matrix& next, const float* values, int64_t stride, int64_t width,
                     const float* weight, double eps) {
  for_rows(rows, static_cast<double>(width) * 4e-4, [&](int64_t first, int count, int) {
    for (int64_t row = first; row < first + count; ++row) {
      float* out = b.normed + row * width;
      rms_norm_row(values + row * stride, width, weight, eps, out);
      quantise(next, out, width, row);
    }
  });
}

void Step::quantise_rows(const Matrix& next, const float* values, int64_t stride, int64_t width,
                         int64_t first_row, int64_t count) {
  if (!quantises(next)) return;
  for_rows(count, static_cast<double>(width) * 4e-4, [&](int64_t first, int wanted, int) {
    for (int64_t row = first; row < first + wanted; ++row) {
      quantise(next, values + row * stride, width, first_row + row);
    }
  });
}

void Step::write_outputs() {
  const int64_t wanted = arguments.outputs, width = shape.hidden;
  const int64_t layer = arguments.last_layer - 1;
  const float* weight =
      arguments.previous != nullptr ? runtime.layers[layer].head_norm : runtime.final_norm;
  for_rows(wanted, static_cast<double>(width) * 4e-4, [&](int64_t first, int count, int) {
    for (int64_t i = first; i < first + count; ++i) {
      const float* x = b.x + arguments.output_rows[i] * width;
      rms_norm_row(x, width, weight, shape.eps, b.normed + i * width);
      quantise(runtime.head, b.normed + i * width, width, i);
    }
  });
  const Matrix& head = runtime.head;
  const int64_t chunks = (wanted + kRowsPerTask - 1) / kRowsPerTask;
  for_tasks(head.panels() * chunks, product_microseconds(head, wanted),
            [&](int64_t task, int part) {
              const int64_t begin = task % chunks * kRowsPerTask;
              const int64_t end = begin + kRowsPerTask < wanted ? begin + kRowsPerTask : wanted;
              write_panel(head, task / chunks, operand(b.normed, width), begin, end - begin,
                          arguments.logits + begin * shape.vocabulary, shape.vocabulary, part);
            });
}

int runtime_step(Session& session, const Runtime& runtime, const StepArguments& arguments) {
  Step step(session, runtime, arguments);
  step.plan_rows();
  step.decide_threads();
  step.embed();
  if (arguments.previous != nullptr) step.join_previous();
  for (int64_t layer = arguments.first_layer; layer < arguments.last_layer; ++layer) {
    step.attention_layer(layer);
    step.feed_forward_layer(layer);
  }
  if (arguments.hidden != nullptr) {
    const size_t bytes = static_cast<size_t>(step.rows * step.shape.hidden) * sizeof(float);
    memcpy(arguments.hidden, step.b.x, bytes);
  }
  if (arguments.outputs > 0) step.write_outputs();
  return kOk;
}

}  // namespace rq::RQ_ISA
