// RMSNorm and SwiGLU, forward and backward: one pass over memory each, arithmetic in fp32.
//
// The weight gradient of RMSNorm is a sum over rows. Rows are cut into groups whose number depends
// on the shape alone, each group is added by one thread, and the groups are added in order: the
// result depends on neither thread count nor timing.
#include <math.h>
#include <string.h>

#include "abi.h"
#include "norm.h"
#include "pool.h"
#include "vec.h"

namespace rq::RQ_ISA {
namespace {

constexpr int64_t kMaxGroups = 64;
constexpr int64_t kMinGroupRows = 16;
constexpr int64_t kMinElementsPerThread =
    16384;  // below this a second thread costs more than it brings

template <typename T>
RQ_INLINE Vec load_any(const T* p, int count) {
  return count == kWidth ? load(p) : load(p, count);
}

template <typename T>
RQ_INLINE void store_any(T* p, Vec value, int count) {
  if (count == kWidth) {
    store(p, value);
  } else {
    store(p, value, count);
  }
}

// What remains of a value after it has been stored as T.
template <typename T>
RQ_INLINE Vec rounded(Vec value) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return value;
  } else {
    T buffer[kWidth];
    store(buffer, value);
    return load(buffer);
  }
}

int useful_threads(int64_t elements, int threads) {
  const int64_t useful = elements / kMinElementsPerThread + 1;
  return useful < threads ? static_cast<int>(useful) : threads;
}

template <typename T>
void norm_rows(const RmsNormArgs& a, int64_t begin, int64_t end) {
  const T* weight = static_cast<const T*>(a.weight);
  for (int64_t r = begin; r < end; ++r) {
    const T* x = static_cast<const T*>(a.x) + r * a.width;
    T* out = static_cast<T*>(a.out) + r * a.width;
    Vec squares = zero();
    for_each_vec(a.width, [&](int64_t i, int n) {
      const Vec value = load_any(x + i, n);
      squares = fma(value, value, squares);
    });
    const float rstd = 1.0f / sqrtf(sum(squares) / static_cast<float>(a.width) + a.eps);
    a.rstd[r] = rstd;
    const Vec scale = broadcast(rstd);
    for_each_vec(a.width, [&](int64_t i, int n) {
      const Vec normed = rounded<T>(load_any(x + i, n) * scale);
      store_any(out + i, load_any(weight + i, n) * normed, n);
    });
  }
}

// dx = rstd (dy w - xhat mean(dy w xhat)); adds dy xhat to weight_sums.
template <typename T>
void norm_rows_backward(const RmsNormArgs& a, int64_t begin, int64_t end, float* weight_sums) {
  const T* weight = static_cast<const T*>(a.weight);
  for (int64_t r = begin; r < end; ++r) {
    const T* x = static_cast<const T*>(a.x) + r * a.width;
    const T* dy = static_cast<const T*>(a.grad_out) + r * a.width;
    T* dx = static_cast<T*>(a.grad_x) + r * a.width;
    const Vec rstd = broadcast(a.rstd[r]);
    Vec products = zero();
    for_each_vec(a.width, [&](int64_t i, int n) {
      const Vec normed = load_any(x + i, n) * rstd, dy_normed = load_any(dy + i, n) * normed;
      products = fma(dy_normed, load_any(weight + i, n), products);
      store_any(weight_sums + i, load_any(weight_sums + i, n) + dy_normed, n);
    });
    const Vec mean = broadcast(sum(products) / static_cast<float>(a.width));
    for_each_vec(a.width, [&](int64_t i, int n) {
      const Vec normed = load_any(x + i, n) * rstd;
      const Vec direct = load_any(dy + i, n) * load_any(weight + i, n);
      store_any(dx + i, rstd * (direct - normed * mean), n);
    });
  }
}

template <typename T>
int norm_forward(const RmsNormArgs& a, int threads) {
  Session session(useful_threads(a.rows * a.width, threads));
  auto rows = [&](int part) {
    norm_rows<T>(a, slice_begin(a.rows, session.threads(), part),
                 slice_begin(a.rows, session.threads(), part + 1));
  };
  run_phase(session, rows);
  return kOk;
}

template <typename T>
int norm_backward(const RmsNormArgs& a, int threads) {
  int64_t groups = (a.rows + kMinGroupRows - 1) / kMinGroupRows;
  groups = groups > kMaxGroups ? kMaxGroups : groups < 1 ? 1 : groups;
  Session session(useful_threads(a.rows * a.width, threads));
  float* sums = static_cast<float*>(session.workspace(sizeof(float) * groups * a.width));
  if (sums == nullptr) return kOutOfMemory;
  auto rows = [&](int part) {
    const int64_t end = slice_begin(groups, session.threads(), part + 1);
    for (int64_t g = slice_begin(groups, session.threads(), part); g < end; ++g) {
      memset(sums + g * a.width, 0, sizeof(float) * a.width);
      norm_rows_backward<T>(a, a.rows * g / groups, a.rows * (g + 1) / groups, sums + g * a.width);
    }
  };
  run_phase(session, rows);
  T* grad_weight = static_cast<T*>(a.grad_weight);
  for_each_vec(a.width, [&](int64_t i, int n) {
    Vec total = zero();
    for (int64_t g = 0; g < groups; ++g) total = total + load_any(sums + g * a.width + i, n);
    store_any(grad_weight + i, total, n);
  });
  return kOk;
}

template <typename T>
int swiglu(const SwigluArgs& a, int threads) {
  Session session(useful_threads(a.count, threads));
  auto work = [&](int part) {
    const int64_t begin = slice_begin(a.count, session.threads(), part, 64);
    const int64_t end = slice_begin(a.count, session.threads(), part + 1, 64);
    const T *gate = static_cast<const T*>(a.gate) + begin,
            *up = static_cast<const T*>(a.up) + begin;
    T* out = static_cast<T*>(a.out) + begin;
    for_each_vec(end - begin, [&](int64_t i, int n) {
      const Vec g = load_any(gate + i, n);
      store_any(out + i, rounded<T>(g * sigmoid(g)) * load_any(up + i, n), n);
    });
  };
  run_phase(session, work);
  return kOk;
}

// d silu(g) = s (1 + g (1 - s)), s = sigmoid(g)
template <typename T>
int swiglu_grads(const SwigluArgs& a, int threads) {
  Session session(useful_threads(a.count, threads));
  auto work = [&](int part) {
    const int64_t begin = slice_begin(a.count, session.threads(), part, 64);
    const int64_t end = slice_begin(a.count, session.threads(), part + 1, 64);
    const T *gate = static_cast<const T*>(a.gate) + begin,
            *up = static_cast<const T*>(a.up) + begin;
    const T* grad = static_cast<const T*>(a.grad_out) + begin;
    T *grad_gate = static_cast<T*>(a.grad_gate) + begin,
      *grad_up = static_cast<T*>(a.grad_up) + begin;
    const Vec one = broadcast(1.0f);
    for_each_vec(end - begin, [&](int64_t i, int n) {
      const Vec g = load_any(gate + i, n), s = sigmoid(g), dy = load_any(grad + i, n);
      store_any(grad_up + i, dy * (g * s), n);
      store_any(grad_gate + i, dy * load_any(up + i, n) * (s * fma(g, one - s, one)), n);
    });
  };
  run_phase(session, work);
  return kOk;
}

}  // namespace

int rms_norm_forward(const RmsNormArgs& args, int threads) {
  return args.dtype == kFloat32 ? norm_forward<float>(args, threads)
                                : norm_forward<Bf16>(args, threads);
}

int rms_norm_backward(const RmsNormArgs& args, int threads) {
  return args.dtype == kFloat32 ? norm_backward<float>(args, threads)
                                : norm_backward<Bf16>(args, threads);
}

int swiglu_forward(const SwigluArgs& args, int threads) {
  return args.dtype == kFloat32 ? swiglu<float>(args, threads) : swiglu<Bf16>(args, threads);
}

int swiglu_backward(const SwigluArgs& args, int threads) {
  return args.dtype == kFloat32 ? swiglu_grads<float>(args, threads)
                                : swiglu_grads<Bf16>(args, threads);
}

}  // namespace rq::RQ_ISA
