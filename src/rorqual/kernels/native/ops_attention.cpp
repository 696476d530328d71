// MLA attention on the CPU, forward and backward, in the manner of FlashAttention (arXiv
// 2205.14135): no score outlives its block of 64 queries by 64 keys, the forward keeps one
// log-sum-exp per query, the backward recomputes the probabilities from it.
//
// One (sequence, head) pair is one unit of work and belongs to one thread from beginning to end, so
// its result depends on neither the thread count nor the timing. The rotary key is shared by the
// heads: each leaves its gradient apart, and a second phase adds them in head order.
//
// Scores are in base 2: queries are scaled by softmax_scale * log2(e) when they are read.
#include "abi.h"
#include "attention.h"
#include "attention_blocks.h"
#include "pool.h"

namespace rq::RQ_ISA {
namespace {

constexpr float kLog2e = 1.44269504088896341f;
constexpr float kLn2 = 0.69314718055994531f;
constexpr float kNoKey = -1e30f;  // running maximum before any key; finite: -inf minus it is -inf
constexpr int32_t kNever = INT32_MAX;

struct Sizes {
  int64_t tokens;                // padded to blocks
  int64_t key, value;            // widths
  int64_t key_pad, value_pad;    // as columns of a product
  int64_t key_rows, value_rows;  // as rows of a transposed block

  explicit Sizes(const AttentionArgs& a)
      : tokens(round_up(a.tokens, kBlock)),
        key(a.nope + a.rope),
        value(a.value),
        key_pad(round_up(key, kPad)),
        value_pad(round_up(value, kPad)),
        key_rows(round_up(key, 8)),
        value_rows(round_up(value, 8)) {}

  int64_t forward_floats() const {
    return tokens * (key_pad + key_rows + value_pad) +
           kBlock * (key_pad + key_rows + value_pad + kBlock);
  }
  int64_t backward_floats() const {
    return tokens * (2 * key_pad + key_rows + 2 * value_pad + value_rows) +
           kBlock * (2 * key_pad + key_rows + value_pad + value_rows + 2 * kBlock);
  }
};

// What the heads share: angles as rotate_row wants them, and the rotated keys.
struct Shared {
  float *cosine, *sine;  // [T, R], or [B, T, R] if every row has its own
  float* key_rope;       // [B, T, R]
  float* grad_key_rope;  // [B, N, T, R], before the rotation is undone; backward only
  int64_t angle_stride;  // tokens from one row's angles to the next's: 0 or T

  void rotate(float* row, int64_t b, int64_t t, int64_t rope, float direction) const {
    const int64_t at = (b * angle_stride + t) * rope;
    rotate_row(row, cosine + at, sine + at, rope, direction);
  }
};

struct Take {
  float* next;
  float* operator()(int64_t count) {
    float* taken = next;
    next += count;
    return taken;
  }
};

// First key each query of a block sees, and their extremes; the keys after it that it does not see.
struct Visible {
  int32_t start[kBlock], gap_start[kBlock], gap_end[kBlock];
  int32_t lowest, highest;
  bool has_gaps;

  // Whether some query may see a key of the block.
  bool reaches(int64_t k0) const {
    if (!has_gaps) return true;
    int sees = 0;
    for (int64_t i = 0; i < kBlock; ++i) {
      sees |= (start[i] < k0 + kBlock) & ((gap_start[i] > k0) | (gap_end[i] < k0 + kBlock));
    }
    return sees != 0;
  }

  // Whether some query must not see all of a block before the diagonal.
  bool cuts(int64_t k0) const {
    if (highest > k0) return true;
    int cut = 0;
    if (has_gaps) {
      for (int64_t i = 0; i < kBlock; ++i) {
        cut |= (gap_start[i] < k0 + kBlock) & (gap_end[i] > k0);
      }
    }
    return cut != 0;
  }
};

Visible visible_keys(const AttentionArgs& a, int64_t b, int64_t q0) {
  Visible seen;
  seen.lowest = kNever;
  seen.highest = 0;
  seen.has_gaps = a.gap_start != nullptr;
  for (int64_t i = 0; i < kBlock; ++i) {
    const int64_t t = q0 + i;
    const bool gap = seen.has_gaps && t < a.tokens;
    seen.gap_start[i] = gap ? a.gap_start[b * a.tokens + t] : 0;
    seen.gap_end[i] = gap ? a.gap_end[b * a.tokens + t] : 0;
    int32_t start = 0;
    if (t >= a.tokens) {
      start = kNever;
    } else if (a.document_start != nullptr) {
      start = a.document_start[b * a.tokens + t];
      start = start < 0 ? 0 : start;
    }
    seen.start[i] = start;
    if (start <= t && start < seen.lowest) seen.lowest = start;
    if (t < a.tokens && start > seen.highest) seen.highest = start;
  }
  return seen;
}

int64_t first_key_block(const Visible& seen, int64_t q0) {
  return seen.lowest == kNever ? q0 + kBlock : seen.lowest / kBlock * kBlock;
}

// Sets what a query must not see to -inf. s is [key][query].
void mask_block(const Visible& seen, bool diagonal, int64_t k0, float* s) {
  for (int64_t k = 0; k < kBlock; ++k) {
    float* row = s + k * kBlock;
    const int32_t key = static_cast<int32_t>(k0 + k);
    for (int64_t i = 0; i < kBlock; ++i) row[i] = seen.start[i] > key ? -INFINITY : row[i];
    if (seen.has_gaps) {
      for (int64_t i = 0; i < kBlock; ++i) {
        row[i] = (seen.gap_start[i] <= key) & (key < seen.gap_end[i]) ? -INFINITY : row[i];
      }
    }
    if (diagonal) {
      for (int64_t i = 0; i < k; ++i) row[i] = -INFINITY;
    }
  }
}

// Key rows [Tp][key_pad] of one head, and the same in strips [Tp / 8][key_rows][8].
template <typename T>
void pack_keys(const AttentionArgs& a, const Sizes& z, const Shared& shared, int64_t b, int64_t n,
               float* rows, float* strips) {
  const T* kv = static_cast<const T*>(a.kv) + n * (a.nope + a.value);
  for (int64_t t = 0; t < z.tokens; ++t) {
    float* row = rows + t * z.key_pad;
    const int64_t token = b * a.tokens + t;
    if (t < a.tokens) {
      clear(row + z.key_pad - kPad, kPad);
      const T* source = kv + token * a.heads * (a.nope + a.value);
      prefetch_row(source + kRowsAhead * a.heads * (a.nope + a.value), a.nope);
      read_row(source, a.nope, row);
      memcpy(row + a.nope, shared.key_rope + token * a.rope, a.rope * sizeof(float));
    } else {
      clear(row, z.key_pad);
    }
    if (t % 8 == 7) {
      transpose(row - 7 * z.key_pad, z.key_pad, 8, z.key_rows, strips + (t - 7) * z.key_rows, 8);
    }
  }
}

// Rows t0..t0+count of values, or of anything shaped like the output, with zeros as padding.
template <typename T>
void pack_rows(const AttentionArgs& a, const Sizes& z, const T* source, int64_t row_stride,
               int64_t t0, int64_t count, float* rows) {
  for (int64_t i = 0; i < count; ++i) {
    float* row = rows + i * z.value_pad;
    if (t0 + i < a.tokens) {
      clear(row + z.value_pad - kPad, kPad);
      prefetch_row(source + (t0 + i + kRowsAhead) * row_stride, a.value);
      read_row(source + (t0 + i) * row_stride, a.value, row);
    } else {
      clear(row, z.value_pad);
    }
  }
}

// Rotated and scaled queries of one block: rows [64][key_pad] and transposed [key_rows][64].
template <typename T>
void pack_queries(const AttentionArgs& a, const Sizes& z, const Shared& shared, int64_t b,
                  int64_t n, int64_t q0, float* rows, float* transposed) {
  const T* q = static_cast<const T*>(a.q) + n * z.key;
  for (int64_t i = 0; i < kBlock; ++i) {
    float* row = rows + i * z.key_pad;
    const int64_t t = q0 + i;
    if (t < a.tokens) {
      clear(row + z.key_pad - kPad, kPad);
      const T* source = q + (b * a.tokens + t) * a.heads * z.key;
      prefetch_row(source + kRowsAhead * a.heads * z.key, z.key);
      read_row(source, z.key, row);
      shared.rotate(row + a.nope, b, t, a.rope, 1.0f);
      scale_row(row, z.key_pad, a.softmax_scale * kLog2e);
    } else {
      clear(row, z.key_pad);
    }
  }
  transpose(rows, z.key_pad, kBlock, z.key_rows, transposed, kBlock);
}

// s[key][query] = strips . transposed; on the diagonal only what some query may see.
void block_scores(const float* strips, int64_t strip_rows, const float* transposed, int64_t width,
                  bool diagonal, float* s) {
  for (int64_t k = 0; k < kBlock; k += kStrip) {
    strip_product<1, kStrip>(0, width, diagonal ? k / kWidth * kWidth : 0, kBlock,
                             strips + k * strip_rows, transposed, kBlock, s + k * kBlock, kBlock,
                             false);
  }
}

// Turns scores into probabilities relative to the running maximum; keeps maximum, sum, and the
// factor by which older sums shrink. Returns whether any factor differs from 1.
bool online_softmax(float* s, float* maximum, float* total, float* shrink) {
  for (int64_t c = 0; c < kBlock; c += kWidth) {
    const Vec old = load(maximum + c);
    Vec top[4] = {old, old, old, old};
    for (int64_t k = 0; k < kBlock; k += 4) {
      for (int j = 0; j < 4; ++j) top[j] = max(top[j], load(s + (k + j) * kBlock + c));
    }
    const Vec highest = max(max(top[0], top[1]), max(top[2], top[3]));
    Vec sums[2] = {zero(), zero()};
    for (int64_t k = 0; k < kBlock; k += 2) {
      for (int j = 0; j < 2; ++j) {
        const Vec p = exp2(load(s + (k + j) * kBlock + c) - highest);
        store(s + (k + j) * kBlock + c, p);
        sums[j] = sums[j] + p;
      }
    }
    const Vec factor = exp2(old - highest);
    store(shrink + c, factor);
    store(maximum + c, highest);
    store(total + c, fma(load(total + c), factor, sums[0] + sums[1]));
  }
  bool changed = false;
  for (int64_t i = 0; i < kBlock; ++i) changed |= shrink[i] != 1.0f;
  return changed;
}

template <typename T>
void forward_head(const AttentionArgs& a, const Shared& shared, int64_t b, int64_t n,
                  float* scratch) {
  const Sizes z(a);
  Take take{scratch};
  float* keys = take(z.tokens * z.key_pad);
  float* key_strips = take(z.tokens * z.key_rows);
  float* values = take(z.tokens * z.value_pad);
  float* queries = take(kBlock * z.key_pad);
  float* queries_t = take(kBlock * z.key_rows);
  float* out = take(kBlock * z.value_pad);
  float* s = take(kBlock * kBlock);
  alignas(64) float maximum[kBlock], total[kBlock], shrink[kBlock];

  const int64_t kv_width = a.nope + a.value, row = b * a.tokens * a.heads + n;
  pack_keys<T>(a, z, shared, b, n, keys, key_strips);
  pack_rows(a, z, static_cast<const T*>(a.kv) + row * kv_width + a.nope, a.heads * kv_width, 0,
            z.tokens, values);
  for (int64_t q0 = 0; q0 < a.tokens; q0 += kBlock) {
    const Visible seen = visible_keys(a, b, q0);
    pack_queries<T>(a, z, shared, b, n, q0, queries, queries_t);
    clear(out, kBlock * z.value_pad);
    for (int64_t i = 0; i < kBlock; ++i) maximum[i] = kNoKey, total[i] = 0.0f;
    for (int64_t k0 = first_key_block(seen, q0); k0 <= q0; k0 += kBlock) {
      if (!seen.reaches(k0)) continue;
      const bool diagonal = k0 == q0;
      block_scores(key_strips + k0 * z.key_rows, z.key_rows, queries_t, z.key, diagonal, s);
      if (diagonal || seen.cuts(k0)) mask_block(seen, diagonal, k0, s);
      if (online_softmax(s, maximum, total, shrink)) {
        for (int64_t i = 0; i < kBlock; ++i) {
          scale_row(out + i * z.value_pad, z.value_pad, shrink[i]);
        }
      }
      for (int64_t i = 0; i < kBlock; i += kStrip) {
        strip_product<1, kBlock>(0, diagonal ? i + kStrip : kBlock, 0, z.value_pad, s + i,
                                 values + k0 * z.value_pad, z.value_pad, out + i * z.value_pad,
                                 z.value_pad, true);
      }
    }
    for (int64_t i = 0; i < kBlock && q0 + i < a.tokens; ++i) {
      const bool none = total[i] == 0.0f;
      write_row(static_cast<T*>(a.out) + (row + (q0 + i) * a.heads) * a.value,
                out + i * z.value_pad, a.value, none ? 0.0f : 1.0f / total[i]);
      a.lse[(b * a.heads + n) * a.tokens + q0 + i] = none ? INFINITY : maximum[i] + log2f(total[i]);
    }
  }
}

// delta[i] = grad_out . out of query q0 + i, and its log-sum-exp; padding gets probability 0.
template <typename T>
void query_sums(const AttentionArgs& a, int64_t b, int64_t n, int64_t q0, float* delta,
                float* lse) {
  for (int64_t i = 0; i < kBlock; ++i) {
    const int64_t t = q0 + i;
    if (t >= a.tokens) {
      delta[i] = 0.0f;
      lse[i] = INFINITY;
      continue;
    }
    const int64_t row = ((b * a.tokens + t) * a.heads + n) * a.value;
    const T* out = static_cast<const T*>(a.out) + row;
    const T* grad = static_cast<const T*>(a.grad_out) + row;
    prefetch_row(out + kRowsAhead * a.heads * a.value, a.value);
    Vec products = zero();
    for_each_vec(a.value, [&](int64_t j, int count) {
      products = count == kWidth ? fma(load(out + j), load(grad + j), products)
                                 : fma(load(out + j, count), load(grad + j, count), products);
    });
    delta[i] = sum(products);
    lse[i] = a.lse[(b * a.heads + n) * a.tokens + t];
  }
}

// p: scores -> probabilities; ds: grad of probabilities -> grad of scores. Both [key][query].
void softmax_backward(const float* lse, const float* delta, float* p, float* ds) {
  for (int64_t c = 0; c < kBlock; c += kWidth) {
    const Vec shift = load(lse + c), mean = load(delta + c);
    for (int64_t k = 0; k < kBlock; ++k) {
      const int64_t at = k * kBlock + c;
      const Vec probability = exp2(load(p + at) - shift);
      store(p + at, probability);
      store(ds + at, probability * (load(ds + at) - mean));
    }
  }
}

template <typename T>
void write_key_grads(const AttentionArgs& a, const Sizes& z, const Shared& shared, int64_t b,
                     int64_t n, const float* dk, const float* dv) {
  for (int64_t t = 0; t < a.tokens; ++t) {
    T* out = static_cast<T*>(a.grad_kv) + ((b * a.tokens + t) * a.heads + n) * (a.nope + a.value);
    write_row(out, dk + t * z.key_pad, a.nope, kLn2);
    write_row(out + a.nope, dv + t * z.value_pad, a.value, 1.0f);
    write_row(shared.grad_key_rope + ((b * a.heads + n) * a.tokens + t) * a.rope,
              dk + t * z.key_pad + a.nope, a.rope, kLn2);
  }
}

template <typename T>
void write_query_grads(const AttentionArgs& a, const Sizes& z, const Shared& shared, int64_t b,
                       int64_t n, int64_t q0, float* dq) {
  for (int64_t i = 0; i < kBlock && q0 + i < a.tokens; ++i) {
    const int64_t t = q0 + i;
    float* row = dq + i * z.key_pad;
    shared.rotate(row + a.nope, b, t, a.rope, -1.0f);
    write_row(static_cast<T*>(a.grad_q) + ((b * a.tokens + t) * a.heads + n) * z.key, row, z.key,
              a.softmax_scale);
  }
}

template <typename T>
void backward_head(const AttentionArgs& a, const Shared& shared, int64_t b, int64_t n,
                   float* scratch) {
  const Sizes z(a);
  Take take{scratch};
  float* keys = take(z.tokens * z.key_pad);
  float* key_strips = take(z.tokens * z.key_rows);
  float* value_strips = take(z.tokens * z.value_rows);
  float* dk = take(z.tokens * z.key_pad);
  float* dv = take(z.tokens * z.value_pad);
  float* queries = take(kBlock * z.key_pad);
  float* queries_t = take(kBlock * z.key_rows);
  float* dq = take(kBlock * z.key_pad);
  float* grads = take(kBlock * z.value_pad);
  float* grads_t = take(kBlock * z.value_rows);
  float* p = take(kBlock * kBlock);
  float* ds = take(kBlock * kBlock);
  alignas(64) float lse[kBlock], delta[kBlock];

  const int64_t kv_width = a.nope + a.value, row = b * a.tokens * a.heads + n;
  pack_keys<T>(a, z, shared, b, n, keys, key_strips);
  const T* values = static_cast<const T*>(a.kv) + row * kv_width + a.nope;
  for (int64_t t = 0; t < z.tokens; t += 8) {  // dv is free until it is cleared below
    pack_rows(a, z, values, a.heads * kv_width, t, 8, dv);
    transpose(dv, z.value_pad, 8, z.value_rows, value_strips + t * z.value_rows, 8);
  }
  clear(dk, z.tokens * z.key_pad);
  clear(dv, z.tokens * z.value_pad);
  for (int64_t q0 = 0; q0 < a.tokens; q0 += kBlock) {
    const Visible seen = visible_keys(a, b, q0);
    pack_queries<T>(a, z, shared, b, n, q0, queries, queries_t);
    pack_rows(a, z, static_cast<const T*>(a.grad_out) + row * a.value, a.heads * a.value, q0,
              kBlock, grads);
    transpose(grads, z.value_pad, kBlock, z.value_rows, grads_t, kBlock);
    query_sums<T>(a, b, n, q0, delta, lse);
    clear(dq, kBlock * z.key_pad);
    for (int64_t k0 = first_key_block(seen, q0); k0 <= q0; k0 += kBlock) {
      if (!seen.reaches(k0)) continue;
      const bool diagonal = k0 == q0;
      block_scores(key_strips + k0 * z.key_rows, z.key_rows, queries_t, z.key, diagonal, p);
      block_scores(value_strips + k0 * z.value_rows, z.value_rows, grads_t, z.value, diagonal, ds);
      if (diagonal || seen.cuts(k0)) mask_block(seen, diagonal, k0, p);
      softmax_backward(lse, delta, p, ds);
      for (int64_t i = 0; i < kBlock;
           i += kStrip) {  // key strip i for dv and dk, query strip for dq
        const int64_t from = diagonal ? i : 0, to = diagonal ? i + kStrip : kBlock;
        strip_product<kBlock, 1>(from, kBlock, 0, z.value_pad, p + i * kBlock, grads, z.value_pad,
                                 dv + (k0 + i) * z.value_pad, z.value_pad, true);
        strip_product<kBlock, 1>(from, kBlock, 0, z.key_pad, ds + i * kBlock, queries, z.key_pad,
                                 dk + (k0 + i) * z.key_pad, z.key_pad, true);
        strip_product<1, kBlock>(0, to, 0, z.key_pad, ds + i, keys + k0 * z.key_pad, z.key_pad,
                                 dq + i * z.key_pad, z.key_pad, true);
      }
    }
    write_query_grads<T>(a, z, shared, b, n, q0, dq);
  }
  write_key_grads<T>(a, z, shared, b, n, dk, dv);
}

// Angles of tokens begin..end, counted over all rows that have their own.
void prepare_angles(const AttentionArgs& a, const Shared& shared, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    float *cosine = shared.cosine + t * a.rope, *sine = shared.sine + t * a.rope;
    for (int64_t i = 0; i < a.rope / 2; ++i) {
      const float c = a.cos[t * (a.rope / 2) + i], s = a.sin[t * (a.rope / 2) + i];
      cosine[2 * i] = cosine[2 * i + 1] = c;
      sine[2 * i] = -s;
      sine[2 * i + 1] = s;
    }
  }
}

// Rotated keys of tokens begin..end of all rows.
template <typename T>
void prepare_keys(const AttentionArgs& a, const Shared& shared, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token) {
    float* row = shared.key_rope + token * a.rope;
    read_row(static_cast<const T*>(a.k_rope) + token * a.rope, a.rope, row);
    shared.rotate(row, token / a.tokens, token % a.tokens, a.rope, 1.0f);
  }
}

// grad_k_rope: the heads' gradients, added in head order, with the rotation undone. The sum is
// taken in the first head's rows.
template <typename T>
void finish_key_rope(const AttentionArgs& a, const Shared& shared, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token) {
    const int64_t b = token / a.tokens, t = token % a.tokens;
    float* row = shared.grad_key_rope + (b * a.heads * a.tokens + t) * a.rope;
    for (int64_t n = 1; n < a.heads; ++n) {
      const float* other = row + n * a.tokens * a.rope;
      for (int64_t i = 0; i < a.rope; ++i) row[i] += other[i];
    }
    shared.rotate(row, b, t, a.rope, -1.0f);
    write_row(static_cast<T*>(a.grad_k_rope) + token * a.rope, row, a.rope, 1.0f);
  }
}

template <typename T, bool kBackward>
int run(const AttentionArgs& a, int threads) {
  if (a.batch * a.tokens * a.heads == 0) return kOk;
  Session session(threads);
  const Sizes z(a);
  const int64_t tokens = a.batch * a.tokens;
  const int64_t angle_tokens = a.angles_per_row ? tokens : a.tokens;
  const int64_t angles = round_up(angle_tokens * a.rope, kPad);
  const int64_t rope_keys = round_up(tokens * a.rope, kPad);
  const int64_t rope_grads = kBackward ? round_up(rope_keys * a.heads, kPad) : 0;
  const int64_t head_floats = kBackward ? z.backward_floats() : z.forward_floats();
  float* memory = static_cast<float*>(session.workspace(
      sizeof(float) * (2 * angles + rope_keys + rope_grads + threads * head_floats)));
  if (memory == nullptr) return kOutOfMemory;
  Take take{memory};
  Shared shared;
  shared.cosine = take(angles);
  shared.sine = take(angles);
  shared.key_rope = take(rope_keys);
  shared.grad_key_rope = take(rope_grads);
  shared.angle_stride = a.angles_per_row ? a.tokens : 0;
  float* scratch = take(0);

  auto turn = [&](int part) {
    prepare_angles(a, shared, slice_begin(angle_tokens, threads, part),
                   slice_begin(angle_tokens, threads, part + 1));
  };
  run_phase(session, turn);
  auto prepare = [&](int part) {
    prepare_keys<T>(a, shared, slice_begin(tokens, threads, part),
                    slice_begin(tokens, threads, part + 1));
  };
  run_phase(session, prepare);
  // Heads outermost: each part gets some of every sequence, however its documents are cut.
  auto heads = [&](int part) {
    const int64_t units = a.batch * a.heads, end = slice_begin(units, threads, part + 1);
    float* mine = scratch + part * head_floats;
    for (int64_t unit = slice_begin(units, threads, part); unit < end; ++unit) {
      if (kBackward) {
        backward_head<T>(a, shared, unit % a.batch, unit / a.batch, mine);
      } else {
        forward_head<T>(a, shared, unit % a.batch, unit / a.batch, mine);
      }
    }
  };
  run_phase(session, heads);
  if (kBackward) {
    auto finish = [&](int part) {
      finish_key_rope<T>(a, shared, slice_begin(tokens, threads, part),
                         slice_begin(tokens, threads, part + 1));
    };
    run_phase(session, finish);
  }
  return kOk;
}

}  // namespace

int attention_forward(const AttentionArgs& args, int threads) {
  return args.dtype == kFloat32 ? run<float, false>(args, threads)
                                : run<Bf16, false>(args, threads);
}

int attention_backward(const AttentionArgs& args, int threads) {
  return args.dtype == kFloat32 ? run<float, true>(args, threads) : run<Bf16, true>(args, threads);
}

}  // namespace rq::RQ_ISA
