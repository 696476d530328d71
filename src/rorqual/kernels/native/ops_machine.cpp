// What this machine can do, for reports that compare with it.
#include "machine.h"
#include "step_gemm.h"

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

int multiply_pairs(Session& session, const uint16_t* rows, const uint16_t* weights, int64_t size,
                   float* check) {
  Matrix m = {};
  m.format = Format::kBf16;
  m.rounds_rows = true;
  m.depth = m.columns = size;
  m.words = reinterpret_cast<uint32_t*>(const_cast<uint16_t*>(weights));
  const Operand operand = {nullptr,  0,       reinterpret_cast<const uint8_t*>(rows),
                           2 * size, nullptr, 0};
  auto part = [&](int p) {
    float tile[kPanelRows * kPanelColumns];
    float total = 0.0f;
    const int64_t end = slice_begin(m.panels(), session.threads(), p + 1);
    for (int64_t panel = slice_begin(m.panels(), session.threads(), p); panel < end; ++panel) {
      for (int64_t i = 0; i < size; i += kPanelRows) {
        const int count = static_cast<int>(size - i < kPanelRows ? size - i : kPanelRows);
        multiply_panel(m, panel, operand, {nullptr, i}, count, {i, size}, tile);
        total += tile[0];
      }
    }
    check[p] = total;
  };
  run_phase(session, part);
  return 0;
}

}  // namespace rq::RQ_ISA
