// Softmax cross entropy over rows of fp32 logits, and its gradient.
//
// A row (32 KiB for a vocabulary of 8192) stays in cache through its passes: maximum, exponentials
// and their sum, scaling. Rows are independent, so results do not depend on the thread count.
#include <math.h>
#include <string.h>

#include "abi.h"
#include "loss.h"
#include "pool.h"
#include "vec.h"

namespace rq::RQ_ISA {
namespace {

constexpr int kUnroll = 4;  // independent accumulators hide the latency of max and add

float row_maximum(const float* row, int64_t count) {
  Vec highest[kUnroll];
  for (Vec& h : highest) h = broadcast(row[0]);
  int64_t i = 0;
  for (; i + kUnroll * kWidth <= count; i += kUnroll * kWidth) {
    for (int j = 0; j < kUnroll; ++j) highest[j] = max(highest[j], load(row + i + j * kWidth));
  }
  float best = maximum(max(max(highest[0], highest[1]), max(highest[2], highest[3])));
  for (; i < count; ++i) best = row[i] > best ? row[i] : best;
  return best;
}

// Replaces the row by exp(row - shift) and returns the sum of that.
float exponentials(float* row, int64_t count, float shift) {
  Vec sums[kUnroll];
  for (Vec& s : sums) s = zero();
  const Vec offset = broadcast(shift);
  int64_t i = 0;
  for (; i + kUnroll * kWidth <= count; i += kUnroll * kWidth) {
    for (int j = 0; j < kUnroll; ++j) {
      const Vec e = exp(load(row + i + j * kWidth) - offset);
      store(row + i + j * kWidth, e);
      sums[j] = sums[j] + e;
    }
  }
  float total = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < count; i += kWidth) {
    const int n = count - i < kWidth ? static_cast<int>(count - i) : kWidth;
    store(row + i, exp(load(row + i, n) - offset), n);
    for (int j = 0; j < n; ++j) total += row[i + j];
  }
  return total;
}

template <typename T>
void rows_loss(const CrossEntropyArgs& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    float* row = a.logits + r * a.vocabulary;
    T* grads = a.grads == nullptr ? nullptr : static_cast<T*>(a.grads) + r * a.vocabulary;
    const int64_t target = a.targets[r];
    if (target < 0) {
      a.losses[r] = 0.0f;
      if (grads != nullptr) memset(grads, 0, sizeof(T) * a.vocabulary);
      continue;
    }
    const float highest = row_maximum(row, a.vocabulary), chosen = row[target];
    const float total = exponentials(row, a.vocabulary, highest);
    a.losses[r] = logf(total) + (highest - chosen);
    if (grads == nullptr) continue;
    row[target] -= total;
    const Vec scale = broadcast(1.0f / total);
    for_each_vec(a.vocabulary, [&](int64_t i, int n) {
      if (n == kWidth) {
        store(grads + i, load(row + i) * scale);
      } else {
        store(grads + i, load(row + i, n) * scale, n);
      }
    });
  }
}

template <typename T>
int run(const CrossEntropyArgs& args, int threads) {
  Session session(threads);
  auto work = [&](int part) {
    rows_loss<T>(args, slice_begin(args.rows, threads, part),
                 slice_begin(args.rows, threads, part + 1));
  };
  run_phase(session, work);
  return kOk;
}

}  // namespace

int cross_entropy(const CrossEntropyArgs& args, int threads) {
  return args.grad_dtype == kFloat32 ? run<float>(args, threads) : run<Bf16>(args, threads);
}

}  // namespace rq::RQ_ISA
