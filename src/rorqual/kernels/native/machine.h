// What this machine can do, for reports that compare with it.
#pragma once

#include <stdint.h>

#include "isa.h"
#include "pool.h"

namespace rq {

// Reads `count` floats once, each thread its slice; check[thread] is the slice's sum.
RQ_PER_ISA(int read_memory(Session& session, const float* data, int64_t count, float* check))

// The runtime's product of bf16 pairs: [size, size] rows and as many weights, both bf16. A sum of
// each thread's outputs goes to check[thread].
RQ_PER_ISA(int multiply_pairs(Session& session, const uint16_t* rows, const uint16_t* weights,
                              int64_t size, float* check))

}  // namespace rq
