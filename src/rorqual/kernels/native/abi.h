// The C ABI of _kernels.so. library.py declares the same signatures; raise RQ_ABI_VERSION when one
// changes. Every kernel takes `isa` (an rq::Isa, or -1 for the best) and `threads` first and
// returns 0, or a Status that library.py turns into an exception. Shapes are checked in Python.
#pragma once

#include <stdint.h>

#define RQ_ABI_VERSION 3
#define RQ_API extern "C" __attribute__((visibility("default")))

namespace rq {

enum Status : int { kOk = 0, kOutOfMemory = 1, kBadIndex = 2 };
enum Dtype : int { kFloat32 = 0, kBfloat16 = 1 };

}  // namespace rq
