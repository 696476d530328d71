// int4's levels, steps and zeros from a row of weights: kWidth groups at once, one to a lane.
//
// A group is w = scale * step * (level - zero / 16) with one fp32 scale a column, the step from 1
// to 255, the zero from 0 to 255 and levels from 0 to 15. Four pairs of step and zero, of the
// group's range and of the range cut at either end or both, are tried; the best is fitted again to
// its levels by least squares, twice, and what has the least squared error stays. On weights that
// came from blocks of 32 on 16 even levels (GGUF's Q4_0 and Q4_1) little is lost.
//
// The search runs in whole sixteenths of `scale`, in which step * (16 * level - zero) is a weight
// and no sum is rounded: so every instruction set packs the same bits.
#pragma once

#include "runtime.h"
#include "vec.h"

namespace rq::RQ_ISA {

constexpr float kCutRange = 0.92f;  // what a cut leaves of the range's end, against outliers
constexpr int kRefits = 2;
constexpr float kLargestApart = 8000.0f;  // kGroupDepth of its squares fit 32 bits

typedef int32_t Wholes __attribute__((vector_size(sizeof(Vec))));

RQ_INLINE Vec between(float low, float high, Vec x) {
  return min(broadcast(high), max(broadcast(low), x));
}
static inline float rounded_between(float low, float high, double x) {
  return static_cast<float>(__builtin_rint(x < low ? low : x > high ? high : x));
}

// Some groups of a row, value i of all of them together, and the best fit so far of each.
class LevelFit {
 public:
  // Groups past the row's end are zeros.
  LevelFit(const float* row, int64_t depth, float scale) {
    const float inverse = 16.0f / scale;
    for (int lane = 0; lane < kWidth; ++lane) {
      for (int i = 0; i < kGroupDepth; ++i) {
        const int64_t k = lane * kGroupDepth + i;
        values_[i * kWidth + lane] = k < depth ? row[k] * inverse : 0.0f;
      }
      steps_[lane] = 1.0f;
      zeros_[lane] = 0.0f;
      errors_[lane] = INT32_MAX;
    }
    for (int i = 0; i < kGroupDepth; ++i) store(values_ + i * kWidth, round(value(i)));
    search();
  }

  uint8_t step(int lane) const { return static_cast<uint8_t>(steps_[lane]); }
  uint8_t zero_point(int lane) const { return static_cast<uint8_t>(zeros_[lane]); }

  // Levels of all groups: value i of lane l at levels[i * kWidth + l].
  void find_levels(float* levels) const {
    const Vec step = load(steps_), shift = step * load(zeros_), inverse = inverse_of(step);
    for (int i = 0; i < kGroupDepth; ++i) store(levels + i * kWidth, level(i, shift, inverse));
  }

 private:
  void search() {
    Vec low = zero(), high = zero(), total = zero();
    for (int i = 0; i < kGroupDepth; ++i) {
      low = min(low, value(i));
      high = max(high, value(i));
      total = total + value(i);
    }
    for (int cut = 0; cut < 4; ++cut) {
      float bottoms[kWidth], tops[kWidth];
      store(bottoms, cut & 1 ? round(low * broadcast(kCutRange)) : low);
      store(tops, cut & 2 ? round(high * broadcast(kCutRange)) : high);
      float steps[kWidth], zeros[kWidth];
      for (int lane = 0; lane < kWidth; ++lane) {
        const double bottom = bottoms[lane];
        steps[lane] = rounded_between(1.0f, 255.0f, (tops[lane] - bottom) / (15 * 16));
        zeros[lane] = rounded_between(0.0f, 255.0f, -bottom / steps[lane]);
      }
      try_fit(steps, zeros);
    }
    float totals[kWidth];
    store(totals, total);
    for (int refit = 0; refit < kRefits; ++refit) refit_levels(totals);
  }

  // Least squares of step and zero against the levels of the best fit.
  void refit_levels(const float* totals) {
    Vec sum = zero(), sum_squares = zero(), sum_products = zero();
    const Vec best = load(steps_), shift = best * load(zeros_), inverse = inverse_of(best);
    for (int i = 0; i < kGroupDepth; ++i) {
      const Vec one = level(i, shift, inverse);
      sum = sum + one;
      sum_squares = fma(one, one, sum_squares);
      sum_products = fma(one, value(i), sum_products);
    }
    float levels[kWidth], squares[kWidth], products[kWidth], steps[kWidth], zeros[kWidth];
    store(levels, sum);
    store(squares, sum_squares);
    store(products, sum_products);
    constexpr double kCount = kGroupDepth;
    for (int lane = 0; lane < kWidth; ++lane) {
      const double of_levels = levels[lane], total = totals[lane];
      const double spread = kCount * squares[lane] - of_levels * of_levels;
      const double shared = kCount * products[lane] - of_levels * total;
      const double step = spread > 0 ? shared / (16 * spread) : 0.0;
      steps[lane] = rounded_between(1.0f, 255.0f, step);
      const double middle = 16 * steps[lane] * of_levels - total;
      zeros[lane] = rounded_between(0.0f, 255.0f, middle / (kCount * steps[lane]));
    }
    try_fit(steps, zeros);
  }

  Vec value(int i) const { return load(values_ + i * kWidth); }
  static Vec inverse_of(Vec step) { return broadcast(1.0f) / (step * broadcast(16.0f)); }
  // shift: step * zero.
  Vec level(int i, Vec shift, Vec inverse) const {
    return round(between(0.0f, 15.0f, (value(i) + shift) * inverse));
  }

  // Keeps steps and zeros in the lanes where they are better than all before.
  void try_fit(const float* steps, const float* zeros) {
    const Vec step = load(steps), shift = step * load(zeros), inverse = inverse_of(step);
    const Vec wide = step * broadcast(16.0f);
    Wholes error = {};
    for (int i = 0; i < kGroupDepth; ++i) {
      const Vec apart = fma(level(i, shift, inverse), wide, zero() - shift) - value(i);
      const Wholes whole =
          __builtin_convertvector(between(-kLargestApart, kLargestApart, apart).v, Wholes);
      error += whole * whole;
    }
    for (int lane = 0; lane < kWidth; ++lane) {
      if (error[lane] >= errors_[lane]) continue;
      errors_[lane] = error[lane];
      steps_[lane] = steps[lane];
      zeros_[lane] = zeros[lane];
    }
  }

  float values_[kGroupDepth * kWidth];
  float steps_[kWidth], zeros_[kWidth];
  int32_t errors_[kWidth];
};

// The widest step that a group of the row needs, / 255. NaN if not all of the row is finite.
static inline float level_scale(const float* row, int64_t depth) {
  Vec poison = zero();
  float widest = 0.0f;
  for (int64_t k = 0; k < depth; k += kGroupDepth) {
    const int64_t left = depth - k;
    Vec low = zero(), high = zero();
    for_each_vec(left < kGroupDepth ? left : kGroupDepth, [&](int64_t i, int wide) {
      const Vec x = wide == kWidth ? load(row + k + i) : load(row + k + i, wide);
      high = max(high, x);
      low = max(low, zero() - x);
      poison = fma(x, zero(), poison);
    });
    const float range = maximum(high) + maximum(low);
    widest = range > widest ? range : widest;
  }
  const bool finite = sum(poison) == 0.0f && widest * 0.0f == 0.0f;
  return finite ? widest / (15.0f * 255.0f) : __builtin_nanf("");
}

// A row of weights to words of levels; step and zero of group g to first_step[g * stride], the zero
// zero_offset further. Returns the row's scale: a NaN or an infinity makes the whole row NaN.
static inline float pack_levels(const float* row, int64_t depth, uint32_t* words,
                                uint8_t* first_step, int64_t stride, int64_t zero_offset) {
  uint8_t* bytes = reinterpret_cast<uint8_t*>(words);
  const float scale = level_scale(row, depth);
  const int64_t groups = (depth + kGroupDepth - 1) / kGroupDepth;
  if (!(scale > 1e-30f)) {
    for (int64_t g = 0; g < groups; ++g) {
      first_step[g * stride] = first_step[g * stride + zero_offset] = 0;
    }
    memset(bytes, 0, static_cast<size_t>(groups * kGroupDepth / 2));
    return scale != scale ? scale : 0.0f;
  }
  for (int64_t g = 0; g < groups; g += kWidth) {
    const LevelFit fit(row + g * kGroupDepth, depth - g * kGroupDepth, scale);
    float levels[kGroupDepth * kWidth];
    fit.find_levels(levels);
    for (int lane = 0; lane < kWidth && g + lane < groups; ++lane) {
      uint8_t* step = first_step + (g + lane) * stride;
      step[0] = fit.step(lane);
      step[zero_offset] = fit.zero_point(lane);
      for (int i = 0; i < kGroupDepth; i += i % 4 == 3 ? 5 : 1) {
        const int low = static_cast<int>(levels[i * kWidth + lane]);
        const int high = static_cast<int>(levels[(i + 4) * kWidth + lane]);
        *bytes++ = static_cast<uint8_t>(low | high << 4);
      }
    }
  }
  return scale;
}

}  // namespace rq::RQ_ISA
