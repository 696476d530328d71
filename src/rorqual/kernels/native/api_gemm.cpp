#include "gemm.h"

RQ_API int rq_gemm(int isa, int threads, int input_dtype, int output_dtype, int layout, int64_t m,
                   int64_t n, int64_t k, const void* a, int64_t a_stride, const void* b,
                   int64_t b_stride, void* c, int64_t c_stride, int accumulate) {
  rq::Session session(threads);
  const rq::GemmArguments arguments = {
      input_dtype, output_dtype, layout,         m, n, k, a, a_stride, b, b_stride,
      c,           c_stride,     accumulate != 0};
  RQ_DISPATCH(isa, gemm(session, arguments))
}
