// What this machine can do, for reports that compare with it.
#pragma once

#include <stdint.h>

#include "isa.h"
#include "pool.h"

namespace rq {

// Reads `count` floats once, each thread its slice; check[thread] is the slice's sum.
RQ_PER_ISA(int read_memory(Session& session, const float* data, int64_t count, float* check))

}  // namespace rq
