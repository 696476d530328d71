// Attention of a few query rows over a paged cache.
//
// A cache block holds, for each cached channel, its 32 tokens side by side: so scores are products
// of broadcast query values with registers of tokens, and the weighted sum of values runs along the
// same registers. Latent attention reads one region as keys (C + R channels) and values (the first
// C); grouped attention has a key and a value region per cached head.
//
// A cached number is fp32, or bf16 two tokens to a 32-bit word: tokens i and i + 16 of a block in
// word i, so that one register of words widens to two registers of tokens.
//
// Where the machine multiplies pairs of bf16, a narrow cache meets queries and weights rounded to
// bf16, as in GPUs' kernels: two channels of a key at a time, two tokens of a value.
//
// Sums run over absolute splits of 256 tokens, merged in order: a row's result depends on nothing
// but its own tokens.
#pragma once

#include "runtime.h"
#include "vec.h"

namespace rq::RQ_ISA {

constexpr int kQueryRows = 24;  // most rows of one call

struct AttentionTask {
  int rows;                          // query rows, 1 to kQueryRows
  const float* queries[kQueryRows];  // [key_width] each, scaled
  int last[kQueryRows];              // position of the last token each row sees
  const int32_t* table;              // physical blocks of the sequence
  // Of the sequence after this one, if this is its last task: what to read ahead. 0 blocks:
  // nothing.
  const int32_t* next_table;
  int next_blocks;    // full ones that are cached already
  const void* cache;  // this layer's
  bool narrow;        // bf16 instead of fp32
  bool pairs;         // bf16 times bf16, two at a time; key_width is even
  int64_t block_channels, key_channel, value_channel;
  int64_t key_width, value_width;
};

// Floats of scratch that `attend` needs.
static inline int64_t attention_scratch(int64_t key_width, int64_t value_width) {
  return kQueryRows * (kSplitTokens + round_up(key_width, kColumnUnit) +
                       2 * round_up(value_width, kColumnUnit)) +
         kColumnUnit * kSplitTokens;
}

// Where a block's channel keeps token `lane`, in elements.
static inline int64_t token_place(bool narrow, int64_t lane) {
  return narrow ? lane % 16 * 2 + lane / 16 : lane;
}

// out[r] = softmax(query_r . keys) values; out rows are `stride` apart.
void attend(const AttentionTask& task, float* scratch, float* out, int64_t stride);

}  // namespace rq::RQ_ISA
