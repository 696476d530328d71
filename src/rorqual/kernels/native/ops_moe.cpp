#include "engines.h"
#include "moe.h"

namespace rq::RQ_ISA {
namespace {

RQ_INLINE int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// The rows of one expert within one chunk.
struct Segment {
  int64_t begin, count;
};

RQ_INLINE Segment segment(const MoeArguments& g, int chunk, int64_t expert) {
  const int32_t* offsets = g.row_offsets + chunk * (g.experts + 1);
  return {offsets[expert], offsets[expert + 1] - offsets[expert]};
}

int64_t longest_segment(const MoeArguments& g) {
  int64_t longest = 0;
  for (int chunk = 0; chunk < g.chunks; ++chunk) {
    for (int64_t e = 0; e < g.experts; ++e) {
      const int64_t count = segment(g, chunk, e).count;
      longest = count > longest ? count : longest;
    }
  }
  return longest;
}

// Stable counting sort of the slots of tokens [begin, end) by expert. False: an index out of range.
bool sort_chunk(const MoeArguments& g, int chunk) {
  const int64_t first = slice_begin(g.tokens, g.chunks, chunk) * g.chosen;
  const int64_t last = slice_begin(g.tokens, g.chunks, chunk + 1) * g.chosen;
  int32_t* offsets = g.row_offsets + chunk * (g.experts + 1);
  memset(offsets, 0, static_cast<size_t>(g.experts + 1) * sizeof(int32_t));
  for (int64_t slot = first; slot < last; ++slot) {
    const int64_t expert = g.expert_idx[slot];
    if (expert < 0 || expert >= g.experts) return false;
    ++offsets[expert + 1];
  }
  offsets[0] = static_cast<int32_t>(first);
  for (int64_t e = 0; e < g.experts; ++e) offsets[e + 1] += offsets[e];
  for (int64_t slot = first; slot < last; ++slot) {
    const int32_t row = offsets[g.expert_idx[slot]]++;
    g.row_slot[row] = static_cast<int32_t>(slot);
    g.row_token[row] = static_cast<int32_t>(slot / g.chosen);
  }
  // Placing moved each start to the next expert's; move them back.
  for (int64_t e = g.experts; e > 0; --e) offsets[e] = offsets[e - 1];
  offsets[0] = static_cast<int32_t>(first);
  return true;
}

// w * SiLU(gate) * up of one expert's rows, computed when read.
template <typename T>
struct HiddenRows {
  const T* activations;
  int64_t width;
  const float* weight;
  const int32_t* slot;

  template <typename Packed>
  void read(int64_t row, int64_t column, int count, Packed* out) const {
    const T* gate = activations + row * 2 * width + column;
    const T* up = gate + width;
    const Vec scale = broadcast(weight[slot[row]]);
    int i = 0;
    for (; i + kWidth <= count; i += kWidth) {
      const Vec g = load(gate + i);
      store(out + i, scale * g * sigmoid(g) * load(up + i));
    }
    if (i < count) {
      const Vec g = load(gate + i, count - i);
      store(out + i, scale * g * sigmoid(g) * load(up + i, count - i), count - i);
    }
  }
  void prefetch(int64_t row, int64_t column, int count) const {
    prefetch_elements(activations + row * 2 * width + column, count);
    prefetch_elements(activations + (row * 2 + 1) * width + column, count);
  }
};

// One row of the backward of h = SiLU(gate) * up, y = w Down h: from dh = Down^T dy to the
// gradients of gate and up; returns that of w, which is dh . h.
template <typename T>
float activation_backward(const T* gate, const float* grad_hidden, int64_t width, float weight,
                          T* grad_gate) {
  const T* up = gate + width;
  T* grad_up = grad_gate + width;
  const Vec scale = broadcast(weight), one = broadcast(1.0f);
  Vec grad_weight = zero();
  for_each_vec(width, [&](int64_t i, int count) {
    const bool whole = count == kWidth;
    const Vec g = whole ? load(gate + i) : load(gate + i, count);
    const Vec u = whole ? load(up + i) : load(up + i, count);
    const Vec dh = whole ? load(grad_hidden + i) : load(grad_hidden + i, count);
    const Vec s = sigmoid(g), silu = g * s, d = scale * dh;
    grad_weight = fma(dh, silu * u, grad_weight);
    const Vec dg = d * u * fma(silu, one - s, s), du = d * silu;
    if (whole) {
      store(grad_gate + i, dg);
      store(grad_up + i, du);
    } else {
      store(grad_gate + i, dg, count);
      store(grad_up + i, du, count);
    }
  });
  return sum(grad_weight);
}

// fp32 rows that sums go to: the tensor itself, or scratch that is rounded to bf16 at the end.
float* sums_for(float* tensor, float*) { return tensor; }
float* sums_for(Bf16*, float* scratch) { return scratch; }

void finish_rows(const float*, float*, int64_t) {}
void finish_rows(const float* sums, Bf16* out, int64_t count) {
  for_each_vec(count, [&](int64_t i, int n) { convert(sums + i, n, out + i); });
}

template <typename T>
struct Experts {
  using Engine = typename EngineFor<T>::Type;
  using P = Panels<Engine>;
  static constexpr bool kNarrow = sizeof(T) == 2;
  static constexpr int64_t kBand = 64 * Engine::kRows;  // rows of a weight gradient at a time

  const MoeArguments& g;
  char* memory;
  int64_t part_bytes;
  float* token_sums;   // [M, H] for bf16 only
  T* grad_activation;  // [M K, 2F] for backward only

  const T* x() const { return static_cast<const T*>(g.x); }
  const T* gate_up(int64_t e) const {
    return static_cast<const T*>(g.gate_up) + e * 2 * g.width * g.hidden;
  }
  const T* down(int64_t e) const { return static_cast<const T*>(g.down) + e * g.hidden * g.width; }
  T* activations(int64_t row) const { return static_cast<T*>(g.activations) + row * 2 * g.width; }
  T* grad_activations(int64_t row) const { return grad_activation + row * 2 * g.width; }
  float* scratch(int part) const {
    return reinterpret_cast<float*>(memory + part * part_bytes + P::kBytes);
  }
  P panels(int part) const { return P(memory + part * part_bytes); }

  // Takes workspace: panels and `floats` of scratch for each part, then what all parts share.
  static bool reserve(Session& session, const MoeArguments& g, int64_t floats, bool backward,
                      Experts* out) {
    out->part_bytes = round_up(P::kBytes + floats * 4, 4096) + 64;
    const int64_t own = round_up(out->part_bytes * session.threads(), 64);
    const int64_t sums = kNarrow ? round_up(g.tokens * g.hidden * 4, 64) : 0;
    const int64_t gradients = backward ? g.tokens * g.chosen * 2 * g.width * sizeof(T) : 0;
    out->memory =
        static_cast<char*>(session.workspace(static_cast<size_t>(own + sums + gradients)));
    if (out->memory == nullptr) return false;
    out->token_sums = reinterpret_cast<float*>(out->memory + own);
    out->grad_activation = reinterpret_cast<T*>(out->memory + own + sums);
    return true;
  }

  void forward_chunk(int part, int chunk) const {
    const P p = panels(part);
    float* sums = sums_for(static_cast<T*>(g.out), token_sums);
    const int64_t t0 = slice_begin(g.tokens, g.chunks, chunk);
    const int64_t t1 = slice_begin(g.tokens, g.chunks, chunk + 1);
    memset(sums + t0 * g.hidden, 0, static_cast<size_t>((t1 - t0) * g.hidden) * sizeof(float));
    for (int64_t e = 0; e < g.experts; ++e) {
      const Segment rows = segment(g, chunk, e);
      if (rows.count == 0) continue;
      const int32_t* token = g.row_token + rows.begin;
      float* kept = sums_for(activations(rows.begin), scratch(part));
      multiply_blocked<Engine, Along::kElements, Along::kElements>(
          GatheredRows<T>{x(), g.x_stride, token}, MatrixRows<T>{gate_up(e), g.hidden},
          MatrixSink{kept, 2 * g.width}, rows.count, 2 * g.width, g.hidden, false, p);
      finish_rows(kept, activations(rows.begin), rows.count * 2 * g.width);
      multiply_blocked<Engine, Along::kElements, Along::kElements>(
          HiddenRows<float>{kept, g.width, g.expert_weight, g.row_slot + rows.begin},
          MatrixRows<T>{down(e), g.width}, ScatteredSink{sums, g.hidden, token}, rows.count,
          g.hidden, g.width, true, p);
    }
    finish_rows(sums + t0 * g.hidden, static_cast<T*>(g.out) + t0 * g.hidden, (t1 - t0) * g.hidden);
  }

  // Gradients of gate and up before SiLU, of the weights of the choice, and of x.
  void backward_chunk(int part, int chunk) const {
    const P p = panels(part);
    const T* grad_out = static_cast<const T*>(g.grad_out);
    float* sums = sums_for(static_cast<T*>(g.grad_x), token_sums);
    float* grad_hidden = scratch(part);
    const int64_t t0 = slice_begin(g.tokens, g.chunks, chunk);
    const int64_t t1 = slice_begin(g.tokens, g.chunks, chunk + 1);
    memset(sums + t0 * g.hidden, 0, static_cast<size_t>((t1 - t0) * g.hidden) * sizeof(float));
    for (int64_t e = 0; e < g.experts; ++e) {
      const Segment rows = segment(g, chunk, e);
      if (rows.count == 0) continue;
      const int32_t* token = g.row_token + rows.begin;
      multiply_blocked<Engine, Along::kElements, Along::kRows>(
          GatheredRows<T>{grad_out, g.grad_out_stride, token}, MatrixRows<T>{down(e), g.width},
          MatrixSink{grad_hidden, g.width}, rows.count, g.width, g.hidden, false, p);
      for (int64_t i = 0; i < rows.count; ++i) {
        const int32_t slot = g.row_slot[rows.begin + i];
        g.grad_expert_weight[slot] =
            activation_backward(activations(rows.begin + i), grad_hidden + i * g.width, g.width,
                                g.expert_weight[slot], grad_activations(rows.begin + i));
      }
      multiply_blocked<Engine, Along::kElements, Along::kRows>(
          MatrixRows<T>{grad_activations(rows.begin), 2 * g.width},
          MatrixRows<T>{gate_up(e), g.hidden}, ScatteredSink{sums, g.hidden, token}, rows.count,
          g.hidden, 2 * g.width, true, p);
    }
    finish_rows(sums + t0 * g.hidden, static_cast<T*>(g.grad_x) + t0 * g.hidden,
                (t1 - t0) * g.hidden);
  }

  // Rows [m0, m1) of the gradient of gate_up[e], summed over the chunks' rows in order.
  void grad_gate_up_rows(int part, int64_t e, int64_t m0, int64_t m1) const {
    T* grad = static_cast<T*>(g.grad_gate_up) + (e * 2 * g.width + m0) * g.hidden;
    weight_gradient(part, e, m1 - m0, g.hidden, grad, [&](const Segment& rows, float* c, bool add) {
      multiply_blocked<Engine, Along::kRows, Along::kRows>(
          MatrixRows<T>{grad_activations(rows.begin) + m0, 2 * g.width},
          GatheredRows<T>{x(), g.x_stride, g.row_token + rows.begin}, MatrixSink{c, g.hidden},
          m1 - m0, g.hidden, rows.count, add, panels(part));
    });
  }

  void grad_down_rows(int part, int64_t e, int64_t m0, int64_t m1) const {
    T* grad = static_cast<T*>(g.grad_down) + (e * g.hidden + m0) * g.width;
    const T* grad_out = static_cast<const T*>(g.grad_out) + m0;
    weight_gradient(part, e, m1 - m0, g.width, grad, [&](const Segment& rows, float* c, bool add) {
      multiply_blocked<Engine, Along::kRows, Along::kRows>(
          GatheredRows<T>{grad_out, g.grad_out_stride, g.row_token + rows.begin},
          HiddenRows<T>{activations(rows.begin), g.width, g.expert_weight, g.row_slot + rows.begin},
          MatrixSink{c, g.width}, m1 - m0, g.width, rows.count, add, panels(part));
    });
  }

  template <typename Product>
  void weight_gradient(int part, int64_t e, int64_t rows, int64_t columns, T* grad,
                       const Product& product) const {
    float* sums = sums_for(grad, scratch(part));
    bool any = false;
    for (int chunk = 0; chunk < g.chunks; ++chunk) {
      const Segment found = segment(g, chunk, e);
      if (found.count == 0) continue;
      product(found, sums, any);
      any = true;
    }
    if (any) {
      finish_rows(sums, grad, rows * columns);
    } else {
      memset(grad, 0, static_cast<size_t>(rows * columns) * sizeof(T));
    }
  }

  // The rows of all weight gradients stand in one line: expert by expert, 2F rows of gate_up (H
  // long) and H rows of down (F long). A place in that line where `share` of the arithmetic is
  // done:
  struct Place {
    int64_t expert, row;
  };

  Place place_at(int part, int parts) const {
    if (part == parts) return {g.experts, 0};
    const auto cost = [&](int64_t e) {
      int64_t rows = 8;  // an empty expert is written too
      for (int chunk = 0; chunk < g.chunks; ++chunk) rows += segment(g, chunk, e).count;
      return static_cast<double>(rows);
    };
    double left = (static_cast<double>(g.tokens * g.chosen) + 8.0 * g.experts) * part / parts;
    int64_t e = 0;
    for (; e < g.experts && left >= cost(e); ++e) left -= cost(e);
    if (e == g.experts) return {e, 0};
    // Within an expert gate_up is two thirds of the work.
    const double within = left / cost(e) * 3.0;
    const int64_t row = within < 2.0
                            ? static_cast<int64_t>(within * g.width)
                            : 2 * g.width + static_cast<int64_t>((within - 2.0) * g.hidden);
    return {e, row / Engine::kRows * Engine::kRows};
  }

  void grad_weights(int part, int parts) const {
    const Place from = place_at(part, parts), to = place_at(part + 1, parts);
    for (int64_t e = from.expert; e <= to.expert && e < g.experts; ++e) {
      const int64_t first = e == from.expert ? from.row : 0;
      const int64_t last = e == to.expert ? to.row : 2 * g.width + g.hidden;
      for (int64_t row = first; row < last;) {
        const int64_t border = row < 2 * g.width && last > 2 * g.width ? 2 * g.width : last;
        const int64_t end = row + kBand < border ? row + kBand : border;
        if (row < 2 * g.width) {
          grad_gate_up_rows(part, e, row, end);
        } else {
          grad_down_rows(part, e, row - 2 * g.width, end - 2 * g.width);
        }
        row = end;
      }
    }
  }
};

template <typename T>
int forward_typed(Session& session, const MoeArguments& g) {
  bool bad_index = false;
  auto sort = [&](int part) {
    for (int chunk = part; chunk < g.chunks; chunk += session.threads()) {
      if (!sort_chunk(g, chunk)) __atomic_store_n(&bad_index, true, __ATOMIC_RELAXED);
    }
  };
  run_phase(session, sort);
  if (bad_index) return kBadIndex;
  Experts<T> experts{g, nullptr, 0, nullptr, nullptr};
  const int64_t floats = Experts<T>::kNarrow ? longest_segment(g) * 2 * g.width : 0;
  if (!Experts<T>::reserve(session, g, floats, false, &experts)) return kOutOfMemory;
  auto chunks = [&](int part) {
    Experts<T>::Engine::begin();
    for (int chunk = part; chunk < g.chunks; chunk += session.threads()) {
      experts.forward_chunk(part, chunk);
    }
    Experts<T>::Engine::end();
  };
  run_phase(session, chunks);
  return kOk;
}

template <typename T>
int backward_typed(Session& session, const MoeArguments& g) {
  Experts<T> experts{g, nullptr, 0, nullptr, nullptr};
  const int64_t grad_hidden = longest_segment(g) * g.width;
  const int64_t band = Experts<T>::kNarrow ? Experts<T>::kBand * (g.hidden + g.width) : 0;
  const int64_t floats = grad_hidden > band ? grad_hidden : band;
  if (!Experts<T>::reserve(session, g, floats, true, &experts)) return kOutOfMemory;
  auto chunks = [&](int part) {
    Experts<T>::Engine::begin();
    for (int chunk = part; chunk < g.chunks; chunk += session.threads()) {
      experts.backward_chunk(part, chunk);
    }
    Experts<T>::Engine::end();
  };
  run_phase(session, chunks);
  auto weights = [&](int part) {
    Experts<T>::Engine::begin();
    experts.grad_weights(part, session.threads());
    Experts<T>::Engine::end();
  };
  run_phase(session, weights);
  return kOk;
}

}  // namespace

int moe_forward(Session& session, const MoeArguments& g) {
  return g.dtype == kFloat32 ? forward_typed<float>(session, g) : forward_typed<Bf16>(session, g);
}

int moe_backward(Session& session, const MoeArguments& g) {
  return g.dtype == kFloat32 ? backward_typed<float>(session, g) : backward_typed<Bf16>(session, g);
}

}  // namespace rq::RQ_ISA
