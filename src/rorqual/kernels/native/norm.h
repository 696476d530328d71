// RMSNorm and SwiGLU: kernels per instruction set.
#pragma once

#include <stdint.h>

#include "isa.h"

namespace rq {

// x, out and the gradients [rows, width] and weight [width] of `dtype`; rstd [rows].
struct RmsNormArgs {
  int dtype;
  int64_t rows, width;
  float eps;
  const void *x, *weight;
  void* out;    // forward only
  float* rstd;  // written by the forward, read by the backward
  const void* grad_out;
  void *grad_x, *grad_weight;
};

// Everything holds `count` elements of `dtype`.
struct SwigluArgs {
  int dtype;
  int64_t count;
  const void *gate, *up;
  void* out;
  const void* grad_out;
  void *grad_gate, *grad_up;
};

RQ_PER_ISA(int rms_norm_forward(const RmsNormArgs& args, int threads))
RQ_PER_ISA(int rms_norm_backward(const RmsNormArgs& args, int threads))
RQ_PER_ISA(int swiglu_forward(const SwigluArgs& args, int threads))
RQ_PER_ISA(int swiglu_backward(const SwigluArgs& args, int threads))

}  // namespace rq
