#include "sample.h"

RQ_API int rq_sample(int isa, int threads, const rq::SampleArguments* arguments) {
  rq::Session session(threads);
  RQ_DISPATCH(isa, sample(session, *arguments))
}
