#include "step_attention.h"
#include "step_gemm.h"
#include "step_words.h"

namespace rq::RQ_ISA {
namespace {

constexpr int kVecs = kBlockTokens / kWidth;  // registers of one channel's 32 tokens
constexpr int kSplitBlocks = kSplitTokens / kBlockTokens;
#if defined(__AVX512F__)
constexpr int kScoreRows = 12;  // 12 x 2 sums in 32 registers
#else
constexpr int kScoreRows = 6;  // 6 x 2 sums in 16 registers
#endif

// Register v of the 32 tokens of one channel.
RQ_INLINE Vec load_tokens(const float* channel, int v) { return load(channel + v * kWidth); }
RQ_INLINE Vec load_tokens(const Bf16* channel, int v) {
  const uint32_t* words = reinterpret_cast<const uint32_t*>(channel);
  constexpr int kHalf = kVecs / 2;
  return v < kHalf ? low_half(load_words(words + v * kWidth))
                   : high_half(load_words(words + (v - kHalf) * kWidth));
}

// The blocks of up to kSplitTokens tokens. blocks[count] is what is read after them: the next
// split's first, or the last again. While a channel of block b is summed, a line of the same
// channel of ahead[b] comes from memory.
template <typename Cached>
struct Split {
  int count;
  const Cached* blocks[kSplitBlocks + 1];
  const Cached* ahead[kSplitBlocks];
};

// Where a block keeps a channel of the values, in elements; channels past the last one repeat it.
RQ_INLINE int64_t value_place(const AttentionTask& t, int64_t channel) {
  const int64_t last = t.value_width - 1;
  return (t.value_channel + (channel < last ? channel : last)) * kBlockTokens;
}

// values[c][t]: `count` channels of a split from `channel` on, widened.
template <typename Cached>
void read_values(const AttentionTask& t, const Split<Cached>& split, int64_t channel, int count,
                 float* values) {
  for (int c = 0; c < count; ++c) {
    const int64_t place = value_place(t, channel + c);
    for (int block = 0; block < split.count; ++block) {
      float* out = values + c * kSplitTokens + block * kBlockTokens;
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) {
        store(out + v * kWidth, load_tokens(split.blocks[block] + place, v));
      }
      __builtin_prefetch(split.ahead[block] + place);
    }
  }
}

// How queries meet the cache. A step of a score is `kChannels` channels: two registers of keys,
// for two registers of tokens, and a 32-bit word of each query. A step of the weighted sum is
// `kTokens` tokens of a channel: a register of values, and one of each row's weights.
template <typename CachedAs>
struct Floats {
  using Cached = CachedAs;
  static constexpr int kChannels = 1, kTokens = kWidth;
  RQ_INLINE void read_keys(const Cached* keys, int v, Vec* both) {
    both[0] = load_tokens(keys, v);
    both[1] = load_tokens(keys, v + 1);
  }
  RQ_INLINE void add(Vec& sum, Vec query, Vec keys) { sum = fma(query, keys, sum); }
  RQ_INLINE const float* query_words(const float* query, int64_t, float*) { return query; }
  RQ_INLINE void prepare_weights(float*, int) {}
  // A group of values is widened once, for all rows.
  RQ_INLINE auto values(const AttentionTask& t, const Split<Cached>& split, int64_t channel,
                        int count, float* widened) {
    read_values(t, split, channel, count, widened);
    return [widened](int c, int token) { return load(widened + c * kSplitTokens + token); };
  }
};

#if defined(__AVX512F__) && defined(RQ_BF16_PAIRS)
struct Pairs {
  using Cached = Bf16;
  static constexpr int kChannels = 2, kTokens = kBlockTokens;
  RQ_INLINE Words words(Vec v) { return {_mm512_castps_si512(v.v)}; }
  RQ_INLINE Vec bits(__m512i words) { return {_mm512_castsi512_ps(words)}; }
  // A word of a block holds two tokens of a channel; here, two channels of a token.
  RQ_INLINE void read_keys(const Cached* keys, int, Vec* both) {
    const __m512i even = load_words(reinterpret_cast<const uint32_t*>(keys)).v;
    const __m512i odd = load_words(reinterpret_cast<const uint32_t*>(keys + kBlockTokens)).v;
    both[0] = bits(_mm512_mask_blend_epi16(0xaaaaaaaau, even, _mm512_slli_epi32(odd, 16)));
    both[1] = bits(_mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(even, 16), odd));
  }
  RQ_INLINE void add(Vec& sum, Vec query, Vec keys) { add_pairs(sum, words(query), words(keys)); }
  RQ_INLINE const float* query_words(const float* query, int64_t width, float* rounded) {
    round_to_bf16(query, width, reinterpret_cast<Bf16*>(rounded));
    return rounded;
  }
  // Word i of a block's weights: those of tokens i and i + 16, as the cache keeps values.
  RQ_INLINE void prepare_weights(float* weights, int num_blocks) {
    for (int block = 0; block < num_blocks; ++block, weights += kBlockTokens) {
      store(weights, bits(to_pairs(load(weights), load(weights + kWidth)).v));
    }
  }
  // Values are multiplied as they lie in the cache.
  struct Values {
    const Cached* const* blocks;
    int64_t places[kWidth];  // of the channels
    inline __attribute__((always_inline)) Vec operator()(int c, int token) const {
      const Cached* block = blocks[token / kBlockTokens];
      return load(reinterpret_cast<const float*>(block + places[c]));
    }
  };
  // Made where it is used: to copy what was just written would wait for the writing.
  RQ_INLINE Values values(const AttentionTask& t, const Split<Cached>& split, int64_t channel,
                          int count, float*) {
    Values found;
    found.blocks = split.blocks;
    for (int c = 0; c < count; ++c) {
      found.places[c] = value_place(t, channel + c);
      for (int block = 0; block < split.count; ++block) {
        __builtin_prefetch(split.ahead[block] + found.places[c]);
      }
    }
    return found;
  }
};
#endif

// scores[r][t] = query_r . key_t for `rows` rows and registers v, v + 1 of a block's tokens.
// Queries are packed: step k of row i at k * rows + i. `ahead` is the next block, read meanwhile.
template <int rows, typename Form>
void score_tile(int64_t width, const typename Form::Cached* keys,
                const typename Form::Cached* ahead, int v, const float* queries, float* scores) {
  constexpr int kStep = Form::kChannels * kBlockTokens;
  Vec sums[rows][2];
#pragma GCC unroll 12
  for (int i = 0; i < rows; ++i) sums[i][0] = sums[i][1] = zero();
  for (int64_t k = 0; k < width; k += Form::kChannels, keys += kStep, ahead += kStep) {
    Vec both[2];
    Form::read_keys(keys, v, both);
#pragma GCC unroll 2
    for (int line = 0; line < kStep; line += 64 / static_cast<int>(sizeof(*ahead))) {
      __builtin_prefetch(ahead + line);
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; ++i) {
      const Vec q = broadcast(queries[i]);
      Form::add(sums[i][0], q, both[0]);
      Form::add(sums[i][1], q, both[1]);
    }
    queries += rows;
  }
#pragma GCC unroll 12
  for (int i = 0; i < rows; ++i) {
    store(scores + i * kSplitTokens + v * kWidth, sums[i][0]);
    store(scores + i * kSplitTokens + (v + 1) * kWidth, sums[i][1]);
  }
}

// Few rows leave registers free: four blocks at once, so that the sums do not wait for each other.
template <int rows, typename Form>
void score_four_blocks(int64_t width, const typename Form::Cached* const* keys, int v,
                       const float* queries, float* scores) {
  Vec sums[rows][4][2];
#pragma GCC unroll 2
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b) sums[i][b][0] = sums[i][b][1] = zero();
  }
  for (int64_t k = 0; k < width; k += Form::kChannels) {
    Vec q[rows];
#pragma GCC unroll 2
    for (int i = 0; i < rows; ++i) q[i] = broadcast(*queries++);
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b) {
      Vec both[2];
      Form::read_keys(keys[b] + k * kBlockTokens, v, both);
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
#pragma GCC unroll 2
        for (int i = 0; i < rows; ++i) Form::add(sums[i][b][j], q[i], both[j]);
      }
    }
  }
#pragma GCC unroll 2
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b) {
      float* out = scores + i * kSplitTokens + b * kBlockTokens;
      store(out + v * kWidth, sums[i][b][0]);
      store(out + (v + 1) * kWidth, sums[i][b][1]);
    }
  }
}

template <int rows, typename Form>
void select_score_tile(int wanted, int64_t width, const typename Form::Cached* keys,
                       const typename Form::Cached* ahead, const float* queries, float* scores) {
  if constexpr (rows < kScoreRows) {
    if (wanted != rows) {
      return select_score_tile<rows + 1, Form>(wanted, width, keys, ahead, queries, scores);
    }
  }
  for (int v = 0; v < kVecs; v += 2) {
    score_tile<rows, Form>(width, keys, ahead, v, queries, scores);
  }
}

// Groups of kScoreRows query rows, step by step.
template <typename Form>
void pack_queries(const AttentionTask& t, float* scratch, float* packed) {
  const int64_t steps = t.key_width / Form::kChannels;
  for (int first = 0; first < t.rows; first += kScoreRows) {
    const int count = t.rows - first < kScoreRows ? t.rows - first : kScoreRows;
    for (int i = 0; i < count; ++i) {
      const float* words = Form::query_words(t.queries[first + i], t.key_width, scratch);
      for (int64_t k = 0; k < steps; ++k) memcpy(packed + k * count + i, words + k, sizeof(float));
    }
    packed += count * steps;
  }
}

template <typename Form>
void score_split(const AttentionTask& t, const Split<typename Form::Cached>& split,
                 const float* queries, float* scores) {
  const int num_blocks = split.count;
  const typename Form::Cached* keys[kSplitBlocks + 1];
  for (int b = 0; b <= num_blocks; ++b) keys[b] = split.blocks[b] + t.key_channel * kBlockTokens;
  int block = 0;
  for (; t.rows <= 2 && block + 4 <= num_blocks; block += 4) {
    for (int v = 0; v < kVecs; v += 2) {
      float* out = scores + block * kBlockTokens;
      if (t.rows == 1) {
        score_four_blocks<1, Form>(t.key_width, keys + block, v, queries, out);
      } else {
        score_four_blocks<2, Form>(t.key_width, keys + block, v, queries, out);
      }
    }
  }
  for (; block < num_blocks; ++block) {
    for (int row = 0; row < t.rows; row += kScoreRows) {
      const int count = t.rows - row < kScoreRows ? t.rows - row : kScoreRows;
      select_score_tile<1, Form>(count, t.key_width, keys[block], keys[block + 1],
                                 queries + row * (t.key_width / Form::kChannels),
                                 scores + row * kSplitTokens + block * kBlockTokens);
    }
  }
}

// Which of kWidth sums ends in lane `lane` of reduce(): see there.
constexpr int sum_of_lane(int lane) { return lane % 4 * (kWidth / 4) + lane / 4; }

// One register holding the total of each of kWidth registers, sums[sum_of_lane(l)] in lane l. Every
// total adds its lanes in the same order.
RQ_INLINE Vec reduce(const Vec* sums) {
#if defined(__AVX512F__)
  __m512 half[8], quarter[4];
#  pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const __m512 a = sums[2 * i].v, b = sums[2 * i + 1].v;
    half[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  }
#  pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512 a = half[2 * i], b = half[2 * i + 1];
    quarter[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  }
  const __m512 xy = _mm512_add_ps(_mm512_unpacklo_ps(quarter[0], quarter[1]),
                                  _mm512_unpackhi_ps(quarter[0], quarter[1]));
  const __m512 zw = _mm512_add_ps(_mm512_unpacklo_ps(quarter[2], quarter[3]),
                                  _mm512_unpackhi_ps(quarter[2], quarter[3]));
  const __m512d p = _mm512_castps_pd(xy), q = _mm512_castps_pd(zw);
  return {_mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(p, q)),
                        _mm512_castpd_ps(_mm512_unpackhi_pd(p, q)))};
#elif defined(__AVX2__)
  __m256 quarter[4];
#  pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m256 a = sums[2 * i].v, b = sums[2 * i + 1].v;
    quarter[i] =
        _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
  }
  const __m256 xy = _mm256_add_ps(_mm256_unpacklo_ps(quarter[0], quarter[1]),
                                  _mm256_unpackhi_ps(quarter[0], quarter[1]));
  const __m256 zw = _mm256_add_ps(_mm256_unpacklo_ps(quarter[2], quarter[3]),
                                  _mm256_unpackhi_ps(quarter[2], quarter[3]));
  const __m256d p = _mm256_castps_pd(xy), q = _mm256_castps_pd(zw);
  return {_mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(p, q)),
                        _mm256_castpd_ps(_mm256_unpackhi_pd(p, q)))};
#else
  Float4 totals;
  for (int i = 0; i < 4; ++i) {
    const Float4 a = sums[i].v;
    totals[i] = (a[0] + a[2]) + (a[1] + a[3]);
  }
  return {totals};
#endif
}

// sums = sums * correction + weights . values for row_count rows from `row` on and the channels of
// one register of sums: kWidth / row_count of each row, row after row. `value(c, token)` is the
// register of channel c's values from `token` on; `correction` has one factor a lane.
template <int row_count, typename Form, typename Value>
RQ_INLINE void mix_rows(const AttentionTask& t, int tokens, int row, const float* weights,
                        const Value& value, const float* correction, float* sums) {
  constexpr int kChannels = kWidth / row_count;
  const float* p[row_count];
  for (int r = 0; r < row_count; ++r) {
    p[r] = weights + (row + r < t.rows ? row + r : t.rows - 1) * kSplitTokens;
  }
  Vec totals[kWidth];
#pragma GCC unroll 16
  for (int i = 0; i < kWidth; ++i) totals[i] = zero();
  for (int token = 0; token < tokens; token += Form::kTokens) {
    Vec weight[row_count];
#pragma GCC unroll 4
    for (int r = 0; r < row_count; ++r) weight[r] = load(p[r] + token);
#pragma GCC unroll 16
    for (int c = 0; c < kChannels; ++c) {
      const Vec wanted = value(c, token);
#pragma GCC unroll 4
      for (int r = 0; r < row_count; ++r) {
        Form::add(totals[sum_of_lane(r * kChannels + c)], weight[r], wanted);
      }
    }
  }
  store(sums, fma(load(sums), load(correction), reduce(totals)));
}

// Rows that share a register of sums: as many as there are, up to what a register takes.
int rows_at_once(int rows) {
  const int most = kWidth / 4;
  if (rows >= 3 && most >= 4) return 4;
  return rows >= 2 && most >= 2 ? 2 : 1;
}

// All rows, for the channels of one register of sums.
template <typename Form, typename Value>
void mix_channels(const AttentionTask& t, int tokens, const float* weights, const Value& value,
                  const float* corrections, float* sums, int group, int64_t group_floats) {
  for (int row = 0; row < t.rows; row += group, sums += group_floats, corrections += kWidth) {
    if (group == 1) {
      mix_rows<1, Form>(t, tokens, row, weights, value, corrections, sums);
#if defined(__AVX2__)
    } else if (group == 2) {
      mix_rows<2, Form>(t, tokens, row, weights, value, corrections, sums);
#endif
#if defined(__AVX512F__)
    } else {
      mix_rows<4, Form>(t, tokens, row, weights, value, corrections, sums);
#endif
    }
  }
}

struct RunningRow {
  float most, total;
};

// Scores of one split to weights exp(score - max), in place; updates the row's maximum and total.
// Returns what older sums are to be multiplied by.
float weigh(float* scores, int count, int visible, RunningRow& row) {
  if (visible <= 0) {
    for (int t = 0; t < count; ++t) scores[t] = 0.0f;
    return 1.0f;
  }
  for (int t = visible; t < count; ++t) scores[t] = -__builtin_inff();
  Vec most = load(scores);
  for (int t = kWidth; t < count; t += kWidth) most = max(most, load(scores + t));
  const float old = row.most, split = maximum(most);
  // NOTE: a NaN score must reach the output, so the comparison is written to let it through.
  row.most = old > split ? old : split;
  const Vec shift = broadcast(row.most);
  Vec total = zero();
  for (int t = 0; t < count; t += kWidth) {
    const Vec weight = exp(load(scores + t) - shift);
    store(scores + t, weight);
    total = total + weight;
  }
  float lanes[kWidth];
  store(lanes, exp(broadcast(old) - shift));
  row.total = row.total * lanes[0] + sum(total);
  return lanes[0];
}

// Sums over totals, from groups of rows to rows.
void finish(const AttentionTask& t, const RunningRow* running, const float* sums, int group,
            int64_t group_floats, float* out, int64_t stride) {
  const int channels = kWidth / group;
  for (int row = 0; row < t.rows; row += group, sums += group_floats) {
    const int rows = t.rows - row < group ? t.rows - row : group;
    float inverse[kWidth], finished[kWidth];
    for (int lane = 0; lane < kWidth; ++lane) {
      const int r = lane / channels;
      inverse[lane] = 1.0f / running[row + (r < rows ? r : rows - 1)].total;
    }
    const float* from = sums;
    for (int64_t c = 0; c < t.value_width; c += channels, from += kWidth) {
      store(finished, load(from) * load(inverse));
      const int64_t left = t.value_width - c;
      for (int r = 0; r < rows; ++r) {
        float* to = out + (row + r) * stride + c;
        const float* lanes = finished + r * channels;
        if (left >= channels) {
          for (int i = 0; i < channels; i += 4) memcpy(to + i, lanes + i, 4 * sizeof(float));
        } else {
          for (int i = 0; i < left; ++i) to[i] = lanes[i];
        }
      }
    }
  }
}

// The split of tokens [begin, begin + kSplitTokens), up to `last`. Latents are values that were
// read as keys: summing them leaves memory to the next split, or to the next sequence. Values of
// their own are read eight channels ahead.
template <typename Cached>
Split<Cached> split_from(const AttentionTask& t, const Cached* cache, int begin, int last) {
  const int64_t size = t.block_channels * kBlockTokens;
  const int first = begin / kBlockTokens, blocks = last / kBlockTokens + 1;
  Split<Cached> split;
  split.count = blocks - first < kSplitBlocks ? blocks - first : kSplitBlocks;
  for (int b = 0; b < split.count; ++b) {
    split.blocks[b] = cache + t.table[first + b] * size;
    const int next = first + kSplitBlocks + b;
    if (t.key_channel != t.value_channel) {
      split.ahead[b] = split.blocks[b] + 8 * kBlockTokens;
    } else if (next < blocks) {
      split.ahead[b] = cache + t.table[next] * size;
    } else if (blocks <= first + kSplitBlocks && b < t.next_blocks) {
      split.ahead[b] = cache + t.next_table[b] * size;
    } else {
      split.ahead[b] = split.blocks[b];
    }
  }
  const bool more = first + split.count < blocks;
  split.blocks[split.count] =
      more ? cache + t.table[first + split.count] * size : split.blocks[split.count - 1];
  return split;
}

template <typename Form>
void attend_as(const AttentionTask& t, float* scratch, float* out, int64_t stride) {
  using Cached = typename Form::Cached;
  const Cached* cache = static_cast<const Cached*>(t.cache);
  float* scores = scratch;  // [kQueryRows][kSplitTokens]
  // [channels][kSplitTokens]; before that a query as it is rounded, of up to 8192 channels.
  float* values = scores + kQueryRows * kSplitTokens;
  float* queries = values + kColumnUnit * kSplitTokens;
  float* sums = queries + kQueryRows * round_up(t.key_width, kColumnUnit);
  pack_queries<Form>(t, values, queries);
  const int group = rows_at_once(t.rows);
  const int channels = kWidth / group;
  const int64_t group_floats = round_up(t.value_width, channels) * group;
  RunningRow running[kQueryRows];
  float corrections[kQueryRows * kWidth];  // of the rows of a group, one a lane of its sums
  int last = 0;
  for (int r = 0; r < t.rows; ++r) {
    running[r] = {-__builtin_inff(), 0.0f};
    last = t.last[r] > last ? t.last[r] : last;
  }
  const int64_t groups = (t.rows + group - 1) / group;
  memset(corrections, 0, sizeof(corrections));  // lanes of a last group without rows
  memset(sums, 0, static_cast<size_t>(groups * group_floats) * sizeof(float));
  for (int begin = 0; begin <= last; begin += kSplitTokens) {
    const Split<Cached> split = split_from(t, cache, begin, last);
    score_split<Form>(t, split, queries, scores);
    for (int r = 0; r < t.rows; ++r) {
      const float correction = weigh(scores + r * kSplitTokens, split.count * kBlockTokens,
                                     t.last[r] + 1 - begin, running[r]);
      Form::prepare_weights(scores + r * kSplitTokens, split.count);
      for (int c = 0; c < channels; ++c) corrections[r * channels + c] = correction;
    }
    float* channel_sums = sums;
    for (int64_t c = 0; c < t.value_width; c += channels, channel_sums += kWidth) {
      const auto value = Form::values(t, split, c, channels, values);
      mix_channels<Form>(t, split.count * kBlockTokens, scores, value, corrections, channel_sums,
                         group, group_floats);
    }
  }
  finish(t, running, sums, group, group_floats, out, stride);
}

}  // namespace

void attend(const AttentionTask& t, float* scratch, float* out, int64_t stride) {
#if defined(__AVX512F__) && defined(RQ_BF16_PAIRS)
  if (t.pairs) return attend_as<Pairs>(t, scratch, out, stride);
#endif
  if (t.narrow) return attend_as<Floats<Bf16>>(t, scratch, out, stride);
  attend_as<Floats<float>>(t, scratch, out, stride);
}

}  // namespace rq::RQ_ISA
