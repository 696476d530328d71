// Softmax cross entropy: kernels per instruction set.
#pragma once

#include <stdint.h>

#include "isa.h"

namespace rq {

// logits [rows, vocabulary] are overwritten; targets [rows], negative: ignored; losses [rows];
// grads [rows, vocabulary] of `grad_dtype`, the gradients of the summed loss, or null. Gradients in
// fp32 may take the place of the logits.
struct CrossEntropyArgs {
  int64_t rows, vocabulary;
  float* logits;
  const int64_t* targets;
  float* losses;
  int grad_dtype;
  void* grads;
};

RQ_PER_ISA(int cross_entropy(const CrossEntropyArgs& args, int threads))

}  // namespace rq
