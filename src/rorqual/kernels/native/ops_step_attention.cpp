#include "step_attention.h"
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

// scores[r][t] = query_r . key_t for `rows` rows and registers v, v + 1 of a block's tokens.
// Queries are packed: channel k of row i at k * rows + i. `ahead` is the next block, read
// meanwhile.
template <int rows, typename Cached>
void score_tile(int64_t width, const Cached* keys, const Cached* ahead, int v, const float* queries,
                float* scores) {
  Vec sums[rows][2];
#pragma GCC unroll 12
  for (int i = 0; i < rows; ++i) sums[i][0] = sums[i][1] = zero();
  for (int64_t k = 0; k < width; ++k, keys += kBlockTokens, ahead += kBlockTokens) {
    const Vec first = load_tokens(keys, v), second = load_tokens(keys, v + 1);
    __builtin_prefetch(ahead);
    if (sizeof(Cached) == 4) __builtin_prefetch(ahead + kBlockTokens / 2);
#pragma GCC unroll 12
    for (int i = 0; i < rows; ++i) {
      const Vec q = broadcast(queries[i]);
      sums[i][0] = fma(q, first, sums[i][0]);
      sums[i][1] = fma(q, second, sums[i][1]);
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
template <int rows, typename Cached>
void score_four_blocks(int64_t width, const Cached* const* keys, int v, const float* queries,
                       float* scores) {
  Vec sums[rows][4][2];
#pragma GCC unroll 2
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b) sums[i][b][0] = sums[i][b][1] = zero();
  }
  for (int64_t k = 0; k < width; ++k) {
    Vec q[rows];
#pragma GCC unroll 2
    for (int i = 0; i < rows; ++i) q[i] = broadcast(queries[k * rows + i]);
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b) {
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        const Vec key = load_tokens(keys[b] + k * kBlockTokens, v + j);
#pragma GCC unroll 2
        for (int i = 0; i < rows; ++i) sums[i][b][j] = fma(q[i], key, sums[i][b][j]);
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

template <int rows, typename Cached>
void select_score_tile(int wanted, int64_t width, const Cached* keys, const Cached* ahead,
                       const float* queries, float* scores) {
  if constexpr (rows < kScoreRows) {
    if (wanted != rows) {
      return select_score_tile<rows + 1>(wanted, width, keys, ahead, queries, scores);
    }
  }
  for (int v = 0; v < kVecs; v += 2) score_tile<rows>(width, keys, ahead, v, queries, scores);
}

// Groups of kScoreRows query rows, channel by channel.
void pack_queries(const AttentionTask& t, float* packed) {
  for (int first = 0; first < t.rows; first += kScoreRows) {
    const int count = t.rows - first < kScoreRows ? t.rows - first : kScoreRows;
    for (int i = 0; i < count; ++i) {
      const float* query = t.queries[first + i];
      for (int64_t k = 0; k < t.key_width; ++k) packed[k * count + i] = query[k];
    }
    packed += count * t.key_width;
  }
}

template <typename Cached>
void score_split(const AttentionTask& t, const Cached* const* blocks, int num_blocks,
                 const float* queries, float* scores) {
  const Cached* keys[kSplitBlocks + 1];
  for (int b = 0; b <= num_blocks; ++b) keys[b] = blocks[b] + t.key_channel * kBlockTokens;
  int block = 0;
  for (; t.rows <= 2 && block + 4 <= num_blocks; block += 4) {
    for (int v = 0; v < kVecs; v += 2) {
      float* out = scores + block * kBlockTokens;
      if (t.rows == 1) {
        score_four_blocks<1>(t.key_width, keys + block, v, queries, out);
      } else {
        score_four_blocks<2>(t.key_width, keys + block, v, queries, out);
      }
    }
  }
  for (; block < num_blocks; ++block) {
    for (int row = 0; row < t.rows; row += kScoreRows) {
      const int count = t.rows - row < kScoreRows ? t.rows - row : kScoreRows;
      select_score_tile<1>(count, t.key_width, keys[block], keys[block + 1],
                           queries + row * t.key_width,
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

// values[c][t]: `count` channels of a split from `channel` on, widened; channels past the last one
// repeat it.
template <typename Cached>
void read_values(const AttentionTask& t, const Cached* const* blocks, int num_blocks,
                 int64_t channel, int count, float* values) {
  for (int c = 0; c < count; ++c) {
    const int64_t wanted = channel + c, last = t.value_width - 1;
    const int64_t place = (t.value_channel + (wanted < last ? wanted : last)) * kBlockTokens;
    for (int block = 0; block < num_blocks; ++block) {
      float* out = values + c * kSplitTokens + block * kBlockTokens;
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) {
        store(out + v * kWidth, load_tokens(blocks[block] + place, v));
      }
      __builtin_prefetch(blocks[block] + place + 8 * kBlockTokens);
    }
  }
}

// sums = sums * correction + weights . values for row_count rows from `row` on and the channels of
// one register of sums: kWidth / row_count of each row, row after row.
template <int row_count>
RQ_INLINE void mix_rows(const AttentionTask& t, int tokens, int row, const float* weights,
                        const float* values, const float* corrections, float* sums) {
  constexpr int kChannels = kWidth / row_count;
  const float* p[row_count];
  float spread[kWidth];
  for (int r = 0; r < row_count; ++r) {
    const int source = row + r < t.rows ? row + r : t.rows - 1;
    p[r] = weights + source * kSplitTokens;
    for (int c = 0; c < kChannels; ++c) spread[r * kChannels + c] = corrections[source];
  }
  Vec totals[kWidth];
#pragma GCC unroll 16
  for (int i = 0; i < kWidth; ++i) totals[i] = zero();
  for (int token = 0; token < tokens; token += kWidth) {
    Vec weight[row_count];
#pragma GCC unroll 4
    for (int r = 0; r < row_count; ++r) weight[r] = load(p[r] + token);
#pragma GCC unroll 16
    for (int c = 0; c < kChannels; ++c) {
      const Vec value = load(values + c * kSplitTokens + token);
#pragma GCC unroll 4
      for (int r = 0; r < row_count; ++r) {
        Vec& total = totals[sum_of_lane(r * kChannels + c)];
        total = fma(weight[r], value, total);
      }
    }
  }
  store(sums, fma(load(sums), load(spread), reduce(totals)));
}

// Rows that share a register of sums: as many as there are, up to what a register takes.
int rows_at_once(int rows) {
  const int most = kWidth / 4;
  if (rows >= 3 && most >= 4) return 4;
  return rows >= 2 && most >= 2 ? 2 : 1;
}

// All rows, channel group by channel group: a group of values is read and widened once.
template <typename Cached>
void mix(const AttentionTask& t, const Cached* const* blocks, int num_blocks, const float* weights,
         const float* corrections, float* values, float* sums, int group, int64_t group_floats) {
  const int channels = kWidth / group, tokens = num_blocks * kBlockTokens;
  for (int64_t channel = 0; channel < t.value_width; channel += channels, sums += kWidth) {
    read_values(t, blocks, num_blocks, channel, channels, values);
    float* out = sums;
    for (int row = 0; row < t.rows; row += group, out += group_floats) {
      if (group == 1) {
        mix_rows<1>(t, tokens, row, weights, values, corrections, out);
#if defined(__AVX2__)
      } else if (group == 2) {
        mix_rows<2>(t, tokens, row, weights, values, corrections, out);
#endif
#if defined(__AVX512F__)
      } else {
        mix_rows<4>(t, tokens, row, weights, values, corrections, out);
#endif
      }
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

template <typename Cached>
void attend_cached(const AttentionTask& t, float* scratch, float* out, int64_t stride) {
  const Cached* cache = static_cast<const Cached*>(t.cache);
  float* scores = scratch;                             // [kQueryRows][kSplitTokens]
  float* values = scores + kQueryRows * kSplitTokens;  // [channels][kSplitTokens]
  float* queries = values + kColumnUnit * kSplitTokens;
  float* sums = queries + kQueryRows * round_up(t.key_width, kColumnUnit);
  pack_queries(t, queries);
  const int group = rows_at_once(t.rows);
  const int64_t group_floats = round_up(t.value_width, kWidth / group) * group;
  RunningRow running[kQueryRows];
  float corrections[kQueryRows];
  int last = 0;
  for (int r = 0; r < t.rows; ++r) {
    running[r] = {-__builtin_inff(), 0.0f};
    last = t.last[r] > last ? t.last[r] : last;
  }
  const int64_t groups = (t.rows + group - 1) / group;
  memset(sums, 0, static_cast<size_t>(groups * group_floats) * sizeof(float));
  for (int begin = 0; begin <= last; begin += kSplitTokens) {
    const int tokens = last + 1 - begin < kSplitTokens ? last + 1 - begin : kSplitTokens;
    const int num_blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
    // One more than there are: the next split's first, or the last again.
    const Cached* blocks[kSplitBlocks + 1];
    for (int b = 0; b <= num_blocks; ++b) {
      const int wanted = begin / kBlockTokens + b, most = last / kBlockTokens;
      const int block = wanted < most ? wanted : most;
      blocks[b] = cache + t.table[block] * t.block_channels * kBlockTokens;
    }
    score_split(t, blocks, num_blocks, queries, scores);
    for (int r = 0; r < t.rows; ++r) {
      corrections[r] = weigh(scores + r * kSplitTokens, num_blocks * kBlockTokens,
                             t.last[r] + 1 - begin, running[r]);
    }
    mix(t, blocks, num_blocks, scores, corrections, values, sums, group, group_floats);
  }
  finish(t, running, sums, group, group_floats, out, stride);
}

}  // namespace

void attend(const AttentionTask& t, float* scratch, float* out, int64_t stride) {
  if (t.narrow) return attend_cached<Bf16>(t, scratch, out, stride);
  attend_cached<float>(t, scratch, out, stride);
}

}  // namespace rq::RQ_ISA
