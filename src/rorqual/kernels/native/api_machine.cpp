#include "abi.h"
#include "machine.h"

RQ_API int rq_read_memory(int isa, int threads, const float* data, int64_t count, float* check) {
  rq::Session session(threads);
  RQ_DISPATCH(isa, read_memory(session, data, count, check))
}
