// Picking a token from each row of logits; sampling_twin.py is the specification.
#pragma once

#include <stdint.h>

#include "abi.h"
#include "isa.h"
#include "pool.h"

namespace rq {

// L rows over V tokens. Everything but the outputs is per row and read only.
struct SampleArguments {
  int64_t rows, vocabulary, allowed_words;
  const float* logits;  // [L, V]
  const float *temperature, *top_p, *min_p;
  const int32_t* top_k;        // 0: all
  const double* uniform;       // [0, 1)
  const uint32_t* allowed;     // [M, allowed_words] one bit a token
  const int32_t* allowed_row;  // which of the M, -1: every token
  int32_t* ids;                // -1 where no token can be picked
  float *logprobs, *drawn_logprobs;
};

RQ_PER_ISA(int sample(Session& session, const SampleArguments& arguments))

}  // namespace rq
