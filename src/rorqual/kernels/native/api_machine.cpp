#include "abi.h"
#include "machine.h"

RQ_API int rq_read_memory(int isa, int threads, const float* data, int64_t count, float* check) {
  rq::Session session(threads);
  RQ_DISPATCH(isa, read_memory(session, data, count, check))
}

// Only where rq_has_bf16_pairs; size is a multiple of 64.
RQ_API int rq_multiply_pairs(int isa, int threads, const uint16_t* rows, const uint16_t* weights,
                             int64_t size, float* check) {
  rq::Session session(threads);
  RQ_DISPATCH(isa, multiply_pairs(session, rows, weights, size, check))
}
