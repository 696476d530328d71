// Where every weight and buffer of a runtime lies in its arenas. Compiled once, not per set.
#include "runtime.h"

namespace rq {
namespace {

// Hands out 64-byte aligned pieces of an arena; with a null base it only counts.
class Arena {
 public:
  explicit Arena(char* base, bool bf16_pairs = false)
      : base_(reinterpret_cast<uintptr_t>(base)), bf16_pairs_(bf16_pairs) {}

  template <typename T>
  T* take(int64_t count) {
    const uintptr_t place = base_ + static_cast<uintptr_t>(used_);
    used_ += round_up(count * static_cast<int64_t>(sizeof(T)), 64);
    return reinterpret_cast<T*>(place);
  }

  Matrix matrix(Format format, int64_t columns, int64_t depth, bool paired = false) {
    Matrix m = {};
    m.format = format;
    m.paired = paired;
    m.rounds_rows = format == Format::kBf16 && bf16_pairs_;
    m.depth = depth;
    m.columns = columns;
    m.words = take<uint32_t>(m.bytes() / 4);
    if (format >= Format::kInt8) m.scales = take<float>(m.physical_columns());
    if (format == Format::kInt8) m.sums = take<int32_t>(m.physical_columns());
    return m;
  }

  // One whose rows stay floats where others are rounded to bf16.
  Matrix fine_matrix(Format format, int64_t columns, int64_t depth) {
    Matrix m = matrix(format, columns, depth);
    m.rounds_rows = false;
    return m;
  }

  int64_t used() const { return used_; }

 private:
  uintptr_t base_;
  int64_t used_ = 0;
  bool bf16_pairs_;
};

int64_t largest(int64_t a, int64_t b) { return a > b ? a : b; }

int64_t head_matrices(const ModelShape& s) {
  return s.attention == kLatent ? 3 * s.heads : s.heads + 2 * s.kv_heads;
}

void lay_out_attention(const ModelShape& s, LayerWeights& w, Matrix*& next, Arena& arena,
                       Format format) {
  // The absorbed halves of kv_b are small and multiply unquantised activations.
  const Format fine = format == Format::kFp32 ? format : Format::kBf16;
  if (s.attention == kLatent) {
    w.first = arena.matrix(format, s.q_rank + s.kv_rank + s.rope, s.hidden);
    w.query_norm = s.q_rank > 0 ? arena.take<float>(s.q_rank) : nullptr;
    w.key_norm = arena.take<float>(s.kv_rank);
    const int64_t query_depth = s.q_rank > 0 ? s.q_rank : s.hidden;
    w.query_heads = next;
    w.absorb_key = next + s.heads;
    w.absorb_value = next + 2 * s.heads;
    for (int64_t h = 0; h < s.heads; ++h) {
      w.query_heads[h] = arena.matrix(format, s.nope + s.rope, query_depth);
      w.absorb_key[h] = arena.fine_matrix(fine, s.kv_rank, s.nope);
    }
    for (int64_t h = 0; h < s.heads; ++h) {
      w.absorb_value[h] = arena.fine_matrix(fine, s.value, s.kv_rank);
    }
  } else {
    w.query_heads = next;
    for (int64_t h = 0; h < s.heads + 2 * s.kv_heads; ++h) {
      w.query_heads[h] = arena.matrix(format, s.value, s.hidden);
    }
    if (s.qk_norm) {
      w.query_norm = arena.take<float>(s.value);
      w.key_norm = arena.take<float>(s.value);
    }
    if (s.qkv_bias) w.head_bias = arena.take<float>((s.heads + 2 * s.kv_heads) * s.value);
  }
  next += head_matrices(s);
  w.output = arena.matrix(format, s.hidden, s.heads * s.value);
}

void lay_out_feed_forward(const ModelShape& s, LayerWeights& w, Matrix*& next, Arena& arena,
                          Format format) {
  const int64_t width = w.moe ? s.shared_width : s.intermediate;
  if (w.moe) {
    w.router = arena.matrix(Format::kFp32, s.experts, s.hidden);
    w.router_bias = arena.take<float>(s.experts);
  }
  if (width > 0) w.gate_up = arena.matrix(format, width, s.hidden, true);
  if (w.moe) {
    w.expert_gate_up = next;
    w.expert_down = next + s.experts;
    next += 2 * s.experts;
    for (int64_t e = 0; e < s.experts; ++e) {
      w.expert_gate_up[e] = arena.matrix(format, s.expert_width, s.hidden, true);
    }
  }
  if (width > 0) w.down = arena.matrix(format, s.hidden, width);
  if (w.moe) {
    for (int64_t e = 0; e < s.experts; ++e) {
      w.expert_down[e] = arena.matrix(format, s.hidden, s.expert_width);
    }
  }
}

}  // namespace

int64_t count_matrices(const ModelShape& s) {
  return s.total_layers() * (head_matrices(s) + 2 * s.experts);
}

int64_t lay_out_weights(Runtime& runtime, Matrix* matrices, char* base) {
  const ModelShape& s = runtime.shape;
  const Format format = static_cast<Format>(s.format);
  Arena arena(base, runtime.bf16_pairs);
  Matrix* next = matrices;
  for (int64_t layer = 0; layer < s.total_layers(); ++layer) {
    LayerWeights& w = runtime.layers[layer];
    w = LayerWeights{};
    w.moe = s.is_moe(layer);
    if (layer >= s.layers) {
      w.embedding_norm = arena.take<float>(s.hidden);
      w.hidden_norm = arena.take<float>(s.hidden);
      w.head_norm = arena.take<float>(s.hidden);
      w.joined = arena.matrix(format, s.hidden, 2 * s.hidden);
    }
    w.input_norm = arena.take<float>(s.hidden);
    w.post_norm = arena.take<float>(s.hidden);
    lay_out_attention(s, w, next, arena, format);
    lay_out_feed_forward(s, w, next, arena, format);
  }
  runtime.final_norm = arena.take<float>(s.hidden);
  // The head decides between close logits: it keeps int8 where the rest is int4, and its rows, of
  // which there are few, stay floats in bf16.
  const Format head = format == Format::kInt4 ? Format::kInt8 : format;
  runtime.head = arena.fine_matrix(head, s.vocabulary, s.hidden);
  runtime.wide_embedding = format == Format::kFp32;
  runtime.narrow_cache = format != Format::kFp32;
  runtime.embedding = arena.take<char>(s.vocabulary * s.hidden * (runtime.wide_embedding ? 4 : 2));
  // Kernels prefetch a little past the end of a panel.
  return arena.used() + 4096;
}

int64_t lay_out_scratch(Runtime& runtime, char* base, int64_t threads) {
  const ModelShape& s = runtime.shape;
  Scratch& b = runtime.scratch;
  Arena arena(base);
  const int64_t t = s.max_tokens, slots = t * s.chosen;
  const int64_t routed = s.experts > 0 ? slots : 0;
  int64_t widest = largest(s.hidden * (s.mtp_layers > 0 ? 2 : 1), s.q_rank);
  widest = largest(widest, s.heads * s.value);
  b.x = arena.take<float>(t * s.hidden);
  b.normed = arena.take<float>(t * largest(s.hidden, s.q_rank));
  b.first_out = arena.take<float>(t * (s.q_rank + s.kv_rank + s.rope));
  b.query = arena.take<float>(t * s.heads * s.query_width());
  b.mixed = arena.take<float>(t * s.heads * s.value);
  b.joined = arena.take<float>(s.mtp_layers > 0 ? t * 2 * s.hidden : 0);
  // Rows of the dense or shared feed-forward, then one row per routed (token, expert) slot.
  int64_t width = s.shared_width;
  if (s.experts == 0 || s.first_moe_layer > 0) width = largest(width, s.intermediate);
  b.activation_stride = round_up(largest(width, routed > 0 ? s.expert_width : 0), kColumnUnit);
  b.activation = arena.take<float>((t + routed) * b.activation_stride);
  b.groups_offset = round_up(largest(widest, b.activation_stride), 64);
  const int64_t groups = b.groups_offset / kGroupDepth;
  b.bytes_stride = b.groups_offset + round_up(groups * static_cast<int64_t>(sizeof(ByteGroup)), 64);
  const Format format = static_cast<Format>(s.format);
  if (format == Format::kBf16) b.bytes_stride = 2 * b.groups_offset;
  if (format >= Format::kInt8 || (format == Format::kBf16 && runtime.bf16_pairs)) {
    b.bytes = arena.take<uint8_t>((t + routed) * b.bytes_stride);
    b.byte_scales = arena.take<float>(t + routed);
  }
  b.router_scores = arena.take<float>(t * round_up(s.experts, kColumnUnit));
  b.chosen = arena.take<int32_t>(routed);
  b.chosen_weight = arena.take<float>(routed);
  b.row_token = arena.take<int32_t>(routed);
  b.row_weight = arena.take<float>(routed);
  b.expert_begin = arena.take<int32_t>(s.experts + 1);
  b.active = arena.take<int32_t>(s.experts);
  b.row_sequence = arena.take<int32_t>(t);
  b.position = arena.take<int32_t>(t);
  b.chunk_begin = arena.take<int32_t>(t + 1);
  b.attention_begin = arena.take<int32_t>(t + 1);
  // A panel's products, a tile of heads, and attention's scores, sums and outputs.
  const int64_t head_width = round_up(largest(s.nope + s.rope, s.value), kPanelColumns);
  const int64_t value_width = round_up(s.value_width(), kColumnUnit);
  const int64_t key_width = round_up(s.query_width(), kColumnUnit);
  const int64_t floats = kPanelRows * kPanelColumns + kTileRows * head_width +
                         24 * (kSplitTokens + key_width + 3 * value_width + 16) +
                         kColumnUnit * kSplitTokens;
  b.per_thread_bytes = round_up(floats * 4, 4096);
  b.per_thread = arena.take<char>(threads * b.per_thread_bytes);
  return arena.used();
}

}  // namespace rq
