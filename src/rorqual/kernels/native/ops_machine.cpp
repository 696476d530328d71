// What this machine can do, for reports that compare with it.
#include "machine.h"
#include "vec.h"

namespace rq::RQ_ISA {

int read_memory(Session& session, const float* data, int64_t count, float* check) {
  auto part = [&](int p) {
    const int64_t begin = slice_begin(count, session.threads(), p, 64);
    const int64_t end = slice_begin(count, session.threads(), p + 1, 64);
    Vec sums[4] = {zero(), zero(), zero(), zero()};
    for (int64_t i = begin; i + 4 * kWidth <= end; i += 4 * kWidth) {
      if (i % 64 == 0) {
        for (int line = 0; line < 4; ++line) __builtin_prefetch(data + i + 512 + 16 * line);
      }
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) sums[j] = sums[j] + load(data + i + j * kWidth);
    }
    check[p] = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  };
  run_phase(session, part);
  return 0;
}

}  // namespace rq::RQ_ISA
