// The whole-model runtime: what a model is in packed memory, and what one engine step gets.
//
// One call runs a step: every fed token of every sequence through every layer. Weights are packed
// once into one arena of panels, which the few-row (decode) and many-row (prefill) products both
// read, in the same order of k: so a row's result does not depend on the rows beside it.
//
// Letters: T fed tokens, H hidden, N heads, C kv_lora_rank, R rope dim, D head dim, E experts, K
// experts a token, F expert width.
#pragma once

#include <stdint.h>

#include "abi.h"
#include "isa.h"
#include "pool.h"

namespace rq {

constexpr int kPanelColumns = 64;  // output columns of a full panel
constexpr int kColumnUnit = 16;    // a matrix's columns are padded to a multiple of this
constexpr int kBlockTokens = 32;   // tokens of a cache block
constexpr int kSplitTokens = 256;  // attention merges partial sums at these absolute positions
constexpr int kTileRows = 6;       // most rows of one register tile
constexpr int kPanelRows = 24;     // most rows of one panel product, tile by tile

// A number is the logarithm of how many values a 32-bit word holds.
enum class Format : int { kFp32 = 0, kBf16 = 1, kInt8 = 2, kInt4 = 3 };
constexpr int kGroupDepth = 32;  // successive k that share an int4 scale and zero

static inline int64_t round_up(int64_t count, int64_t unit) {
  return (count + unit - 1) / unit * unit;
}

// What int4 needs of kGroupDepth successive activation bytes.
struct ByteGroup {
  float scale;
  float offset;  // - sum of the bytes / 16: what a weight's zero of 1 adds to the products
};

static inline int values_per_word(Format format) { return 1 << static_cast<int>(format); }

// y = x W^T with W [columns, depth]. Panel p holds output columns [64 p, 64 p + width) as 32-bit
// words [depth / values][width], each word holding 1 fp32, 2 bf16 or 4 int8 values of successive k
// (zeros past the end). int8: weight = value * scales[column], sums[column] = 128 * sum_k value.
// int4: words of 8 levels from 0 to 15; in byte b of a word level b stands low and level 4 + b
// high. After the 4 words of every kGroupDepth levels come the panel's bytes for them, steps
// [width] and zeros [width]: weight = scales[column] * step * (level - zero / 16). A paired matrix
// interleaves two of equal shape (SwiGLU's gate and up): a panel's first half belongs to the one,
// its second half to the other.
struct Matrix {
  Format format;
  bool paired;
  bool rounds_rows;        // bf16: its rows are rounded to bf16 and multiplied in pairs
  int64_t depth, columns;  // columns of one of the two if paired
  uint32_t* words;
  float* scales;
  int32_t* sums;

  int64_t physical_columns() const { return round_up(columns, kColumnUnit) * (paired ? 2 : 1); }
  int64_t words_deep() const {
    if (format == Format::kInt4) return groups() * (kGroupDepth / 8);
    return (depth + values_per_word(format) - 1) >> static_cast<int>(format);
  }
  int64_t groups() const { return (depth + kGroupDepth - 1) / kGroupDepth; }
  // Bytes of one column, steps and zeros within the panel included.
  int64_t column_bytes() const {
    return words_deep() * 4 + (format == Format::kInt4 ? groups() * 2 : 0);
  }
  int64_t panel_words(int64_t panel) const { return panel * kPanelColumns * column_bytes() / 4; }
  int64_t panels() const { return (physical_columns() + kPanelColumns - 1) / kPanelColumns; }
  int width(int64_t panel) const {
    const int64_t left = physical_columns() - panel * kPanelColumns;
    return static_cast<int>(left < kPanelColumns ? left : kPanelColumns);
  }
  int64_t bytes() const { return physical_columns() * column_bytes(); }
};

enum Attention : int64_t { kLatent = 0, kGrouped = 1 };
enum Scoring : int64_t { kSigmoid = 0, kSoftmax = 1 };
enum Selection : int64_t { kGreedy = 0, kBiasedGroups = 1, kMaximumGroups = 2 };

// Filled in by runtime_layout.py, which declares the same fields in the same order.
struct ModelShape {
  int64_t attention;  // kLatent: MLA; kGrouped: GQA, where nope = 0 and rope = value = D
  int64_t layers, mtp_layers, vocabulary, hidden, intermediate;
  int64_t heads, kv_heads, q_rank, kv_rank, nope, rope, value;
  int64_t experts, chosen, expert_width, shared_width, first_moe_layer;
  int64_t groups, kept_groups, scoring, selection, normalise, scale_normalised;
  int64_t qk_norm, qkv_bias, tied;
  int64_t format;  // Format of the large matrices
  int64_t num_blocks, max_tokens, max_positions;
  double eps, latent_eps, softmax_scale, routed_scale;

  int64_t total_layers() const { return layers + mtp_layers; }
  bool is_moe(int64_t layer) const { return experts > 0 && layer >= first_moe_layer; }
  int64_t moe_layers() const {
    return experts > 0 && layers > first_moe_layer ? layers - first_moe_layer : 0;
  }
  int64_t query_width() const { return attention == kLatent ? kv_rank + rope : value; }
  int64_t value_width() const { return attention == kLatent ? kv_rank : value; }
  // Cached numbers of one token in one layer.
  int64_t cached_channels() const {
    return attention == kLatent ? kv_rank + rope : 2 * kv_heads * value;
  }
};

struct LayerWeights {
  bool moe;
  float *input_norm, *post_norm;
  // Latent attention. first: [q_a | kv_a] over H, or kv_a alone without q_rank.
  Matrix first;
  float *query_norm, *key_norm;  // latent norms [Q], [C]; grouped: head norms [D] or null
  Matrix* query_heads;   // [N] D+R columns each; grouped: N query, then key, then value heads
  Matrix* absorb_key;    // [N] nope -> C
  Matrix* absorb_value;  // [N] C -> value
  float* head_bias;      // grouped with biases: [N + 2 kv_heads, D]
  Matrix output;
  // Feed-forward: dense, or routed with shared experts.
  Matrix gate_up, down;  // dense, or the shared experts
  Matrix router;
  float* router_bias;
  Matrix *expert_gate_up, *expert_down;  // [E]
  // MTP modules only.
  float *embedding_norm, *hidden_norm, *head_norm;
  Matrix joined;  // 2H -> H
};

// Buffers of one step, for up to max_tokens rows.
struct Scratch {
  float* x;              // [T, H] residual stream
  float* normed;         // [T, max(H, Q)] input of the next product
  uint8_t* bytes;        // [max rows, widest] the same in the form that products want, if any
  float* byte_scales;    // [max rows], int8 only
  float* first_out;      // [T, Q + C + R]
  float* query;          // [T, N, C+R or D]
  float* mixed;          // [T, N * value]
  float* activation;     // [T (1 + K), widest feed-forward] hidden activations
  float* joined;         // [T, 2H] MTP input
  float* router_scores;  // [T, E padded]
  int32_t *chosen, *row_token, *expert_begin;  // [T, K], [T K], [E + 1]
  float *chosen_weight, *row_weight;           // [T, K], [T K]
  int32_t* active;                             // [E] experts that have rows
  int32_t *row_sequence, *position;            // [T]
  int32_t *chunk_begin, *attention_begin;      // [T + 1]
  char* per_thread;
  int64_t bytes_stride, groups_offset, per_thread_bytes, activation_stride;
};

struct Runtime {
  ModelShape shape;
  LayerWeights* layers;  // [layers + mtp_layers]
  float* final_norm;
  void* embedding;  // [V, H] fp32 or bf16
  bool wide_embedding;
  Matrix head;
  const float *rope_cos, *rope_sin;  // [max_positions, rope / 2], owned by Python
  char* cache;                       // [layers, num_blocks, cached_channels, kBlockTokens]
  bool narrow_cache;                 // bf16, else fp32
  Scratch scratch;
  int64_t max_threads;
  bool byte_offset;  // int8 activations are stored plus 128 (what VNNI multiplies)
  bool bf16_pairs;   // bf16 weights, and caches, multiply numbers rounded to bf16, two at a time

  int64_t block_bytes() const {
    return shape.cached_channels() * kBlockTokens * (narrow_cache ? 2 : 4);
  }
  char* layer_cache(int64_t layer) const {
    return cache + layer * shape.num_blocks * block_bytes();
  }
};

struct StepArguments {
  int64_t tokens, sequences, table_width, outputs;
  const int32_t *token_ids, *first_rows, *num_cached, *block_tables, *output_rows;
  float* logits;          // [outputs, V]
  float* hidden;          // [T, H] of every fed row, before the final norm, or null
  int16_t* routes;        // [T, MoE layers, K], or null
  const int16_t* replay;  // the same shape, or null
  const float* previous;  // MTP only: [T, H] the state below, before its norm
  int64_t first_layer, last_layer;
};

// A source of weights: element (column, k) at data[column * column_stride + k * depth_stride].
struct PackSource {
  const float* data;
  int64_t columns, column_stride, depth_stride;
  int64_t first_column;  // where its columns begin in the matrix
  int half;              // paired: 0 first, 1 second
};

RQ_PER_ISA(int runtime_step(Session& session, const Runtime& runtime, const StepArguments& step))
RQ_PER_ISA(int runtime_pack(Session& session, const Matrix& matrix, const PackSource& source))
// Copies `count` floats, to bf16 unless `wide`.
RQ_PER_ISA(int runtime_copy(Session& session, const float* from, int64_t count, bool wide,
                            void* to))

// Points every weight of `runtime` into the arena at `base` (null: only counts) and returns its
// bytes. `matrices` must hold count_matrices(shape) entries.
int64_t lay_out_weights(Runtime& runtime, Matrix* matrices, char* base);
int64_t count_matrices(const ModelShape& shape);
int64_t lay_out_scratch(Runtime& runtime, char* base, int64_t threads);

}  // namespace rq
