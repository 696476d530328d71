// The attention half of a layer: latent (MLA, absorbed) and grouped-query, over the paged cache.
#include "step.h"

namespace rq::RQ_ISA {
namespace {

// Rotates neighbouring pairs (DeepSeek), times `scale`.
void rotate_pairs(const float* x, int64_t width, const float* cosine, const float* sine,
                  float scale, float* out) {
  for (int64_t i = 0; i < width / 2; ++i) {
    const float even = x[2 * i], odd = x[2 * i + 1];
    out[2 * i] = (even * cosine[i] - odd * sine[i]) * scale;
    out[2 * i + 1] = (odd * cosine[i] + even * sine[i]) * scale;
  }
}

// Rotates the halves of a head against each other (Llama, Qwen), times `scale`, in place.
void rotate_halves(float* x, int64_t width, const float* cosine, const float* sine, float scale) {
  const int64_t half = width / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float low = x[i], high = x[half + i];
    x[i] = (low * cosine[i] - high * sine[i]) * scale;
    x[half + i] = (high * cosine[i] + low * sine[i]) * scale;
  }
}

}  // namespace

// Writes a row's channels [channel, channel + width) into its block (see step_attention.h). The
// first token of a block clears the lanes after it: what an earlier owner left there must never be
// read, not even multiplied by zero.
template <typename Cached>
void append_channels(char* block, int64_t channel, int64_t lane, const float* values,
                     int64_t width) {
  Cached* out = reinterpret_cast<Cached*>(block) + channel * kBlockTokens;
  if (lane == 0) memset(out, 0, static_cast<size_t>(width * kBlockTokens) * sizeof(Cached));
  out += token_place(sizeof(Cached) == 2, lane);
  for (int64_t c = 0; c < width; ++c) from_float(values[c], out + c * kBlockTokens);
}

void Step::append(int64_t layer, int64_t row, int64_t channel, const float* values, int64_t width) {
  const int64_t position = b.position[row], lane = position % kBlockTokens;
  const int32_t* table = arguments.block_tables + b.row_sequence[row] * arguments.table_width;
  char* block = runtime.layer_cache(layer) + table[position / kBlockTokens] * runtime.block_bytes();
  if (runtime.narrow_cache) return append_channels<Bf16>(block, channel, lane, values, width);
  append_channels<float>(block, channel, lane, values, width);
}

// kv_a's rows: the latent normed, the key part rotated, both into the cache.
void Step::append_latents(const LayerWeights& w, int64_t layer, int64_t first, int64_t count) {
  const int64_t rank = shape.kv_rank, stride = shape.q_rank + rank + shape.rope;
  for (int64_t row = first; row < first + count; ++row) {
    float* latent = b.first_out + row * stride + shape.q_rank;
    rms_norm_row(latent, rank, w.key_norm, shape.latent_eps, latent);
    const int64_t angle = b.position[row] * (shape.rope / 2);
    rotate_pairs(latent + rank, shape.rope, runtime.rope_cos + angle, runtime.rope_sin + angle,
                 1.0f, latent + rank);
    append(layer, row, 0, latent, rank + shape.rope);
  }
}

// out[i] = row first + i of `input` times one panel, cut to the matrix's columns.
void Step::write_panel(const Matrix& m, int64_t panel, const Operand& input, int64_t first,
                       int64_t count, float* out, int64_t stride, int part) {
  const int64_t column = panel * kPanelColumns, left = m.columns - column;
  const int columns = static_cast<int>(left < kPanelColumns ? left : kPanelColumns);
  for_products(m, panel, input, {nullptr, first}, count, part, [&](int64_t i, const float* sums) {
    memcpy(out + i * stride + column, sums, sizeof(float) * columns);
  });
}

void Step::write_product(const Matrix& m, const Operand& input, int64_t first, int64_t count,
                         float* out, int64_t stride, int part) {
  for (int64_t panel = 0; panel < m.panels(); ++panel) {
    write_panel(m, panel, input, first, count, out, stride, part);
  }
}

// One head's queries in the space of the cache: W_UK folded in, rotated, scaled. [C + R] a row.
void Step::latent_head(const LayerWeights& w, const Operand& input, int64_t head, int64_t first,
                       int64_t count, int part) {
  float* queries = part_head(part);
  const int64_t stride = head_stride(), width = shape.query_width();
  const float scale = static_cast<float>(shape.softmax_scale);
  const Operand nope = {queries, stride, nullptr, 0, nullptr, 0};
  for (int64_t i = first; i < first + count; i += kTileRows) {
    const int64_t left = first + count - i;
    const int some = static_cast<int>(left < kTileRows ? left : kTileRows);
    write_product(w.query_heads[head], input, i, some, queries, stride, part);
    float* out = b.query + (i * shape.heads + head) * width;
    for (int r = 0; r < some; ++r) {
      float* query = queries + r * stride;
      const int64_t angle = b.position[i + r] * (shape.rope / 2);
      rotate_pairs(query + shape.nope, shape.rope, runtime.rope_cos + angle,
                   runtime.rope_sin + angle, scale, out + r * shape.heads * width + shape.kv_rank);
      for (int64_t c = 0; c < shape.nope; ++c) query[c] *= scale;
    }
    write_product(w.absorb_key[head], nope, 0, some, out, shape.heads * width, part);
  }
}

void Step::latent_queries(const LayerWeights& w, int64_t layer) {
  norm_rows(w.first, b.x, shape.hidden, shape.hidden, w.input_norm, shape.eps);
  const Operand normed = operand(b.normed, shape.hidden);
  const double head_cost =
      static_cast<double>(shape.heads) *
      (product_microseconds(w.query_heads[0], rows) + product_microseconds(w.absorb_key[0], rows));
  const int64_t stride = shape.q_rank + shape.kv_rank + shape.rope;
  if (shape.q_rank == 0) {
    // Per chunk: the latents into the cache, then every head.
    const double cost = head_cost + product_microseconds(w.first, rows);
    for_tasks((1 + shape.heads) * num_chunks, cost, [&](int64_t task, int part) {
      const int64_t chunk = task % num_chunks, first = b.chunk_begin[chunk];
      const int64_t count = b.chunk_begin[chunk + 1] - first;
      if (task >= num_chunks) {
        return latent_head(w, normed, task / num_chunks - 1, first, count, part);
      }
      write_product(w.first, normed, first, count, b.first_out + first * stride, stride, part);
      append_latents(w, layer, first, count);
    });
    return;
  }
  for_panels(w.first, [&](int64_t panel, int64_t first, int64_t count, int part) {
    write_panel(w.first, panel, normed, first, count, b.first_out + first * stride, stride, part);
  });
  norm_rows(w.query_heads[0], b.first_out, stride, shape.q_rank, w.query_norm, shape.latent_eps);
  const Operand latent = operand(b.normed, shape.q_rank);
  for_tasks((1 + shape.heads) * num_chunks, head_cost, [&](int64_t task, int part) {
    const int64_t chunk = task % num_chunks, first = b.chunk_begin[chunk];
    const int64_t count = b.chunk_begin[chunk + 1] - first;
    if (task < num_chunks) return append_latents(w, layer, first, count);
    latent_head(w, latent, task / num_chunks - 1, first, count, part);
  });
}

// One head of q, k or v: product, bias, norm, rotation; into `query` or the cache.
void Step::grouped_head(const LayerWeights& w, int64_t layer, int64_t head, int64_t first,
                        int64_t count, int part) {
  float* buffer = part_head(part);
  const int64_t dim = shape.value, stride = head_stride();
  const bool is_query = head < shape.heads, is_value = head >= shape.heads + shape.kv_heads;
  const Operand normed = operand(b.normed, shape.hidden);
  for (int64_t i = first; i < first + count; i += kTileRows) {
    const int64_t left = first + count - i;
    const int some = static_cast<int>(left < kTileRows ? left : kTileRows);
    write_product(w.query_heads[head], normed, i, some, buffer, stride, part);
    for (int r = 0; r < some; ++r) {
      float* x = buffer + r * stride;
      if (w.head_bias != nullptr) {
        for (int64_t c = 0; c < dim; ++c) x[c] += w.head_bias[head * dim + c];
      }
      if (!is_value) {
        const float* norm = is_query ? w.query_norm : w.key_norm;
        if (norm != nullptr) rms_norm_row(x, dim, norm, shape.eps, x);
        const int64_t angle = b.position[i + r] * (dim / 2);
        const float scale = is_query ? static_cast<float>(shape.softmax_scale) : 1.0f;
        rotate_halves(x, dim, runtime.rope_cos + angle, runtime.rope_sin + angle, scale);
      }
      if (is_query) {
        memcpy(b.query + ((i + r) * shape.heads + head) * dim, x,
               static_cast<size_t>(dim) * sizeof(float));
      } else {
        // Key head j stands at channels [2 j D, ...), its values after it.
        const int64_t kv = head - shape.heads;
        const int64_t place = is_value ? 2 * (kv - shape.kv_heads) + 1 : 2 * kv;
        append(layer, i + r, place * dim, x, dim);
      }
    }
  }
}

void Step::grouped_heads(const LayerWeights& w, int64_t layer) {
  norm_rows(w.query_heads[0], b.x, shape.hidden, shape.hidden, w.input_norm, shape.eps);
  const int64_t heads = shape.heads + 2 * shape.kv_heads;
  const double cost = static_cast<double>(heads) * product_microseconds(w.query_heads[0], rows);
  for_tasks(heads * num_chunks, cost, [&](int64_t task, int part) {
    const int64_t chunk = task % num_chunks, first = b.chunk_begin[chunk];
    grouped_head(w, layer, task / num_chunks, first, b.chunk_begin[chunk + 1] - first, part);
  });
}

// Decode: one token by as many heads as share a cached head, but enough tasks for all threads.
// Prefill: a few tokens by a few heads.
AttentionTiles attention_tiles(const Step& step, int64_t sequence) {
  const ModelShape& s = step.shape;
  const StepArguments& a = step.arguments;
  const int64_t tokens = a.first_rows[sequence + 1] - a.first_rows[sequence];
  const int64_t sharing = s.attention == kLatent ? s.heads : s.heads / s.kv_heads;
  AttentionTiles tiles;
  tiles.heads = sharing < kQueryRows ? sharing : kQueryRows;
  if (s.attention == kLatent) {
    const int64_t threads = step.session.threads();
    if (tokens >= kTileRows) {
      tiles.heads = sharing < 4 ? sharing : 4;
    } else if (a.sequences < 2 * threads) {
      const int64_t even = (sharing + threads - 1) / threads;
      tiles.heads = tiles.heads < even ? tiles.heads : even;
    }
  }
  const int64_t most = s.attention == kLatent ? static_cast<int64_t>(kTileRows) : tokens;
  tiles.tokens = kQueryRows / tiles.heads;
  tiles.tokens = tiles.tokens < most ? tiles.tokens : most;
  tiles.tokens = tiles.tokens < tokens ? tiles.tokens : tokens;
  tiles.token_tiles = (tokens + tiles.tokens - 1) / tiles.tokens;
  tiles.head_groups = (sharing + tiles.heads - 1) / tiles.heads;
  if (s.attention == kGrouped) tiles.head_groups *= s.kv_heads;
  return tiles;
}

void Step::attend_tile(const LayerWeights& w, int64_t layer, int64_t task, int part) {
  int64_t low = 0, high = arguments.sequences;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (b.attention_begin[middle] <= task ? low : high) = middle;
  }
  const AttentionTiles tiles = attention_tiles(*this, low);
  const int64_t inside = task - b.attention_begin[low];
  const int64_t tile = inside / tiles.head_groups, group = inside % tiles.head_groups;
  const int64_t first_row = arguments.first_rows[low] + tile * tiles.tokens;
  const int64_t rows_left = arguments.first_rows[low + 1] - first_row;
  const int64_t tokens = rows_left < tiles.tokens ? rows_left : tiles.tokens;

  const bool latent = shape.attention == kLatent;
  const int64_t sharing = latent ? shape.heads : shape.heads / shape.kv_heads;
  const int64_t groups_each = latent ? tiles.head_groups : tiles.head_groups / shape.kv_heads;
  const int64_t kv = group / groups_each, shift = group % groups_each * tiles.heads;
  const int64_t first_head = kv * sharing + shift;
  const int64_t heads = sharing - shift < tiles.heads ? sharing - shift : tiles.heads;

  AttentionTask t;
  t.rows = static_cast<int>(tokens * heads);
  t.table = arguments.block_tables + low * arguments.table_width;
  // Tasks of a sequence follow each other, and those of the next.
  const bool sequence_ends = inside + 1 == tiles.token_tiles * tiles.head_groups;
  const bool follows = sequence_ends && low + 1 < arguments.sequences;
  t.next_table = t.table + arguments.table_width;
  t.next_blocks = follows ? arguments.num_cached[low + 1] / kBlockTokens : 0;
  t.cache = runtime.layer_cache(layer);
  t.narrow = runtime.narrow_cache;
  t.block_channels = shape.cached_channels();
  t.key_channel = latent ? 0 : 2 * kv * shape.value;
  t.value_channel = latent ? 0 : t.key_channel + shape.value;
  t.key_width = shape.query_width();
  t.value_width = shape.value_width();
  t.pairs = t.narrow && runtime.bf16_pairs && t.key_width % 2 == 0;
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t i = 0; i < tokens; ++i) {
      const int64_t r = h * tokens + i, row = first_row + i;
      t.queries[r] = b.query + (row * shape.heads + first_head + h) * t.key_width;
      t.last[r] = b.position[row];
    }
  }
  float* scratch = part_attention(part);
  float* out = scratch + attention_scratch(t.key_width, t.value_width);
  attend(t, scratch, out, t.value_width);

  const Operand latents = {out, t.value_width, nullptr, 0, nullptr, 0};
  const int64_t stride = shape.heads * shape.value;
  for (int64_t h = 0; h < heads; ++h) {
    float* mixed = b.mixed + first_row * stride + (first_head + h) * shape.value;
    if (latent) {
      write_product(w.absorb_value[first_head + h], latents, h * tokens, tokens, mixed, stride,
                    part);
      continue;
    }
    for (int64_t i = 0; i < tokens; ++i) {
      memcpy(mixed + i * stride, out + (h * tokens + i) * t.value_width,
             sizeof(float) * shape.value);
    }
  }
}

// A rough cost of a layer's attention on one thread.
double Step::attention_microseconds() const {
  double pairs = 0.0;  // (token, cached token)
  for (int64_t s = 0; s < arguments.sequences; ++s) {
    const int64_t fed = arguments.first_rows[s + 1] - arguments.first_rows[s];
    pairs += static_cast<double>(fed) * (arguments.num_cached[s] + 0.5 * static_cast<double>(fed));
  }
  return pairs * static_cast<double>(shape.heads) *
         static_cast<double>(shape.query_width() + shape.value_width()) / 25e3;
}

void Step::attend_all(const LayerWeights& w, int64_t layer) {
  for_tasks(b.attention_begin[arguments.sequences], attention_microseconds(),
            [&](int64_t task, int part) { attend_tile(w, layer, task, part); });
}

void Step::attention_layer(int64_t layer) {
  const LayerWeights& w = runtime.layers[layer];
  if (shape.attention == kLatent) {
    latent_queries(w, layer);
  } else {
    grouped_heads(w, layer);
  }
  attend_all(w, layer);
  const int64_t width = shape.heads * shape.value;
  quantise_rows(w.output, b.mixed, width, width, 0, rows);
  const Operand mixed = operand(b.mixed, width);
  for_panels(w.output, [&](int64_t panel, int64_t first, int64_t count, int part) {
    add_panel(w.output, panel, mixed, first, count, part);
  });
}

}  // namespace rq::RQ_ISA
