// C functions of RMSNorm and SwiGLU.
#include "abi.h"
#include "norm.h"

RQ_API int rq_rms_norm_forward(int isa, int threads, int dtype, int64_t rows, int64_t width,
                               float eps, const void* x, const void* weight, void* out,
                               float* rstd) {
  const rq::RmsNormArgs args = {dtype, rows, width,   eps,     x,      weight,
                                out,   rstd, nullptr, nullptr, nullptr};
  RQ_DISPATCH(isa, rms_norm_forward(args, threads))
}

RQ_API int rq_rms_norm_backward(int isa, int threads, int dtype, int64_t rows, int64_t width,
                                const void* x, const void* weight, const float* rstd,
                                const void* grad_out, void* grad_x, void* grad_weight) {
  const rq::RmsNormArgs args = {dtype,    rows,   width,      0.0f,
                                x,        weight, nullptr,    const_cast<float*>(rstd),
                                grad_out, grad_x, grad_weight};
  RQ_DISPATCH(isa, rms_norm_backward(args, threads))
}

RQ_API int rq_swiglu_forward(int isa, int threads, int dtype, int64_t count, const void* gate,
                             const void* up, void* out) {
  const rq::SwigluArgs args = {dtype, count, gate, up, out, nullptr, nullptr, nullptr};
  RQ_DISPATCH(isa, swiglu_forward(args, threads))
}

RQ_API int rq_swiglu_backward(int isa, int threads, int dtype, int64_t count, const void* gate,
                              const void* up, const void* grad_out, void* grad_gate,
                              void* grad_up) {
  const rq::SwigluArgs args = {dtype, count, gate, up, nullptr, grad_out, grad_gate, grad_up};
  RQ_DISPATCH(isa, swiglu_backward(args, threads))
}
