// Sampling without sorting: weights exp((logit - max) / T) are computed in registers with
// the largest and the sum of every block of tokens, so that a pick skips over blocks, and a filter
// looks only at blocks that hold a weight large enough to matter.
#include "sample.h"
#include "vec.h"

namespace rq::RQ_ISA {
namespace {

constexpr int64_t kBlock = 64;
constexpr int kDigitBits = 11;
constexpr int64_t kDigits = 1 << kDigitBits;

// Candidates whose ranks have the same next digit.
struct Digit {
  int64_t count;
  double mass;
};

// Scratch of one thread.
struct Work {
  float* weights;        // [V]
  float* block_most;     // [V / kBlock]
  double* block_sums;    // [V / kBlock]
  uint64_t* candidates;  // [V] weight bits above, complement of the token below: ranks as it should
  uint64_t* narrowed;    // [V] candidates among which an edge lies
  Digit* digits;         // [kDigits]
};

// Non-negative floats rank like their bits; of equal weights the first token ranks higher.
uint64_t rank_of(float weight, int64_t token) {
  uint32_t bits;
  memcpy(&bits, &weight, 4);
  return static_cast<uint64_t>(bits) << 32 | (0xffffffffu - static_cast<uint32_t>(token));
}
float weight_of(uint64_t rank) {
  const uint32_t bits = static_cast<uint32_t>(rank >> 32);
  float weight;
  memcpy(&weight, &bits, 4);
  return weight;
}
int64_t token_of(uint64_t rank) { return 0xffffffffu - static_cast<uint32_t>(rank); }

bool is_allowed(const uint32_t* allowed, int64_t token) {
  return (allowed[token / 32] >> (token % 32) & 1u) != 0;
}

// The first of the largest logits; -1 if there is none above -inf or any is NaN.
int64_t find_largest(const float* logits, int64_t count) {
  Vec most = broadcast(-__builtin_inff());
  for_each_vec(count, [&](int64_t i, int wide) {
    for (int j = 0; wide < kWidth && j < wide; ++j) most = max(broadcast(logits[i + j]), most);
    if (wide == kWidth) most = max(load(logits + i), most);
  });
  const float best = maximum(most);
  uint32_t nan = 0;
  for (int64_t i = 0; i < count; ++i) nan |= static_cast<uint32_t>(logits[i] != logits[i]);
  if (nan != 0 || !(best > -__builtin_inff())) return -1;
  for (int64_t i = 0;; ++i) {
    if (logits[i] == best) return i;
  }
}

int64_t find_largest_allowed(const float* logits, int64_t count, const uint32_t* allowed) {
  int64_t best = -1;
  for (int64_t word = 0; word < (count + 31) / 32; ++word) {
    for (uint32_t left = allowed[word]; left != 0; left &= left - 1) {
      const int64_t token = 32 * word + __builtin_ctz(left);
      if (token < count && (best < 0 || logits[token] > logits[best])) best = token;
    }
  }
  return best >= 0 && logits[best] > -__builtin_inff() ? best : -1;
}

// Sum of exp((logits - most) * factor).
double sum_exponentials(const float* logits, int64_t count, float most, float factor) {
  double total = 0.0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t size = count - begin < kBlock ? count - begin : kBlock;
    Vec sums = zero();
    for_each_vec(size, [&](int64_t i, int wide) {
      float lanes[kWidth];
      const float* from = logits + begin + i;
      for (int j = 0; wide < kWidth && j < kWidth; ++j) {
        lanes[j] = j < wide ? from[j] : -__builtin_inff();
      }
      const Vec x = wide == kWidth ? load(from) : load(lanes);
      sums = sums + exp((x - broadcast(most)) * broadcast(factor));
    });
    total += static_cast<double>(sum(sums));
  }
  return total;
}

// Weights of allowed tokens, 0 for the others, with each block's largest and sum; returns the
// total.
double weigh(const float* logits, int64_t count, float most, float factor, const uint32_t* allowed,
             const Work& work) {
  double total = 0.0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t size = count - begin < kBlock ? count - begin : kBlock;
    float block[kBlock];
    for (int64_t i = 0; i < kBlock; ++i)
      block[i] = i < size ? logits[begin + i] : -__builtin_inff();
    if (allowed != nullptr) {
      for (int64_t i = 0; i < size; ++i) {
        if (!is_allowed(allowed, begin + i)) block[i] = -__builtin_inff();
      }
    }
    Vec sums = zero(), largest = zero();
    for (int64_t i = 0; i < kBlock; i += kWidth) {
      const Vec weight = exp((load(block + i) - broadcast(most)) * broadcast(factor));
      store(block + i, weight);
      sums = sums + weight;
      largest = max(weight, largest);
    }
    memcpy(work.weights + begin, block, static_cast<size_t>(size) * sizeof(float));
    work.block_most[begin / kBlock] = maximum(largest);
    work.block_sums[begin / kBlock] = static_cast<double>(sum(sums));
    total += work.block_sums[begin / kBlock];
  }
  return total;
}

// The first token at which the running sum of all weights passes `target`.
int64_t find_token(const Work& work, int64_t count, double target) {
  double before = 0.0;
  int64_t last = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const double sum = work.block_sums[begin / kBlock];
    if (sum == 0.0) continue;
    last = begin;
    if (before + sum > target) break;
    before += sum;
  }
  int64_t token = last;
  for (int64_t i = last; i < count && i < last + kBlock; ++i) {
    if (work.weights[i] == 0.0f) continue;
    token = i;
    before += static_cast<double>(work.weights[i]);
    if (before > target) break;
  }
  return token;
}

// Tokens that weigh at least `least` (and anything at all), in order; returns how many.
int64_t gather(const Work& work, int64_t count, float least) {
  int64_t found = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const float most = work.block_most[begin / kBlock];
    if (most < least || most == 0.0f) continue;
    for (int64_t i = begin; i < count && i < begin + kBlock; ++i) {
      work.candidates[found] = rank_of(work.weights[i], i);  // stays if it is one
      found += work.weights[i] >= least && work.weights[i] != 0.0f;
    }
  }
  return found;
}

double mass_from(const uint64_t* candidates, int64_t count, uint64_t edge) {
  double mass = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    mass += candidates[i] >= edge ? static_cast<double>(weight_of(candidates[i])) : 0.0;
  }
  return mass;
}

// The first candidate at which the running sum of those that are kept passes `target`; the last of
// them if, by rounding, none does.
uint64_t pick_from(const uint64_t* candidates, int64_t count, uint64_t edge, double target) {
  double before = 0.0;
  int64_t begin = 0;
  for (; begin + kBlock < count; begin += kBlock) {
    const double mass = mass_from(candidates + begin, kBlock, edge);
    if (before + mass > target) break;
    before += mass;
  }
  uint64_t picked = 0;
  for (; begin < count && !(picked != 0 && before > target); ++begin) {
    if (candidates[begin] < edge) continue;
    picked = candidates[begin];
    before += static_cast<double>(weight_of(picked));
  }
  while (picked == 0) {
    --begin;
    if (candidates[begin] >= edge) picked = candidates[begin];
  }
  return picked;
}

// The rank of the last candidate that is kept, largest first: the one that makes them `most`, or
// that brings their weights to `target`. Narrowed down digit by digit of the weights instead of by
// sorting, so that a flat distribution takes little longer than a steep one.
uint64_t find_edge(const Work& work, int64_t found, int64_t most, double target) {
  const uint64_t* from = work.candidates;
  int64_t count = found, kept = 0;
  double running = 0.0;
  for (;;) {
    uint64_t differing = 0;
    for (int64_t i = 1; i < count; ++i) differing |= from[i] ^ from[0];
    if (differing >> 32 == 0) {  // equal weights, so in the order of their ranks
      const double wanted = (target - running) / static_cast<double>(weight_of(from[0]));
      int64_t last = most - kept < count ? most - kept : count;
      if (wanted < static_cast<double>(last)) last = static_cast<int64_t>(__builtin_ceil(wanted));
      return from[last > 1 ? last - 1 : 0];
    }
    const int unequal_bits = 64 - __builtin_clzll(differing);
    const int shift = unequal_bits - kDigitBits > 32 ? unequal_bits - kDigitBits : 32;
    memset(work.digits, 0, kDigits * sizeof(Digit));
    for (int64_t i = 0; i < count; ++i) {
      Digit& digit = work.digits[from[i] >> shift & (kDigits - 1)];
      digit.count += 1;
      digit.mass += static_cast<double>(weight_of(from[i]));
    }
    int64_t at = -1;  // where the edge lies: the lowest if, by rounding, none reaches the target
    for (int64_t next = kDigits - 1; next >= 0; --next) {
      if (work.digits[next].count == 0) continue;
      if (at >= 0) {
        kept += work.digits[at].count;
        running += work.digits[at].mass;
      }
      at = next;
      if (kept + work.digits[at].count >= most || running + work.digits[at].mass >= target) break;
    }
    int64_t left = 0;
    for (int64_t i = 0; i < count; ++i) {
      work.narrowed[left] = from[i];
      left += (from[i] >> shift & (kDigits - 1)) == static_cast<uint64_t>(at);
    }
    from = work.narrowed;
    count = left;
  }
}

struct Filters {
  int64_t top_k;  // at least 1, at most V
  double top_p;
  float min_p;
};

// A weight above which lies what top-k, or top-p alone, keep, by a look at every weight.
float find_bar(const Work& work, int64_t count, const Filters& f, double total) {
  constexpr int kShift = 19;  // of a weight of at most 1 this leaves fewer than kDigits
  memset(work.digits, 0, kDigits * sizeof(Digit));
  for (int64_t i = 0; i < count; ++i) {
    Digit& digit = work.digits[rank_of(work.weights[i], 0) >> (32 + kShift)];
    digit.count += 1;
    digit.mass += static_cast<double>(work.weights[i]);
  }
  // A little more than asked for: the sums were taken in another order.
  const double target = f.top_k < count ? __builtin_inf() : (f.top_p + 1e-6) * total;
  Digit above = {0, 0.0};
  int64_t at = kDigits;
  while (at > 0 && above.count < f.top_k && above.mass < target) {
    --at;
    above.count += work.digits[at].count;
    above.mass += work.digits[at].mass;
  }
  return weight_of(static_cast<uint64_t>(at) << (32 + kShift));
}

// Candidates that hold everything the filters keep.
int64_t gather_enough(const Work& work, int64_t count, const Filters& f, double total) {
  const float bars[] = {0.0625f, 1e-3f};  // mostly enough; most blocks hold nothing as large
  for (const float bar : bars) {
    if (f.min_p >= bar) return gather(work, count, f.min_p);
    const int64_t found = gather(work, count, bar);
    if (found >= f.top_k) return found;
    if (f.top_k < count || f.min_p > 0.0f) continue;
    if (mass_from(work.candidates, found, 0) >= (f.top_p + 1e-6) * total) return found;
  }
  if (f.min_p > 0.0f) return gather(work, count, f.min_p);
  return gather(work, count, find_bar(work, count, f, total));
}

struct Pick {
  int64_t token;
  double share;
};

Pick pick_filtered(const Work& work, int64_t count, const Filters& f, double total,
                   double uniform) {
  const int64_t found = gather_enough(work, count, f, total);
  uint64_t edge = f.top_k < found ? find_edge(work, found, f.top_k, __builtin_inf()) : 0;
  double kept = mass_from(work.candidates, found, edge);
  if (f.top_p < 1.0) {
    const double target = f.top_p * (f.top_k < count || f.min_p > 0.0f ? kept : total);
    const uint64_t crossing = find_edge(work, found, found, target);
    edge = crossing > edge ? crossing : edge;
    kept = mass_from(work.candidates, found, edge);
  }
  const uint64_t picked = pick_from(work.candidates, found, edge, uniform * kept);
  return {token_of(picked), static_cast<double>(weight_of(picked)) / kept};
}

void sample_row(const SampleArguments& a, int64_t row, const Work& work) {
  const int64_t count = a.vocabulary;
  const float* logits = a.logits + row * count;
  const uint32_t* allowed =
      a.allowed_row[row] < 0 ? nullptr : a.allowed + a.allowed_row[row] * a.allowed_words;
  a.ids[row] = -1;
  a.logprobs[row] = a.drawn_logprobs[row] = __builtin_nanf("");
  const int64_t overall = find_largest(logits, count);
  if (overall < 0) return;
  const int64_t largest =
      allowed == nullptr ? overall : find_largest_allowed(logits, count, allowed);
  if (largest < 0) return;

  const float temperature = a.temperature[row];
  Pick pick = {largest, 1.0};
  double everything = 0.0;
  if (temperature > 0.0f) {
    const double total = weigh(logits, count, logits[largest], 1.0f / temperature, allowed, work);
    if (temperature == 1.0f && allowed == nullptr) everything = total;
    const int64_t top_k = a.top_k[row] > 0 && a.top_k[row] < count ? a.top_k[row] : count;
    const Filters filters = {top_k, a.top_p[row], a.min_p[row]};
    if (top_k < count || filters.top_p < 1.0 || filters.min_p > 0.0f) {
      pick = pick_filtered(work, count, filters, total, a.uniform[row]);
    } else {
      pick.token = find_token(work, count, a.uniform[row] * total);
      pick.share = static_cast<double>(work.weights[pick.token]) / total;
    }
  }
  if (everything == 0.0) everything = sum_exponentials(logits, count, logits[overall], 1.0f);
  a.ids[row] = static_cast<int32_t>(pick.token);
  const double distance =
      static_cast<double>(logits[pick.token]) - static_cast<double>(logits[overall]);
  a.logprobs[row] = static_cast<float>(distance - __builtin_log(everything));
  a.drawn_logprobs[row] = static_cast<float>(__builtin_log(pick.share));
}

}  // namespace

int sample(Session& session, const SampleArguments& a) {
  const int64_t tokens = (a.vocabulary + kBlock - 1) / kBlock * kBlock, blocks = tokens / kBlock;
  const int64_t digits = kDigits * static_cast<int64_t>(sizeof(Digit));
  const int64_t each = digits + tokens * (4 + 8 + 8) + (blocks * 12 + 63) / 64 * 64;
  char* memory = static_cast<char*>(
      session.workspace(static_cast<size_t>(each) * static_cast<size_t>(session.threads())));
  if (memory == nullptr) return kOutOfMemory;
  int64_t next = 0;
  auto part = [&](int p) {
    Work work;
    char* place = memory + p * each;
    work.digits = reinterpret_cast<Digit*>(place);
    work.candidates = reinterpret_cast<uint64_t*>(place + digits);
    work.narrowed = work.candidates + tokens;
    work.block_sums = reinterpret_cast<double*>(work.narrowed + tokens);
    work.weights = reinterpret_cast<float*>(work.block_sums + blocks);
    work.block_most = work.weights + tokens;
    for (;;) {
      const int64_t row = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
      if (row >= a.rows) return;
      sample_row(a, row, work);
    }
  };
  run_phase(session, part);
  return kOk;
}

}  // namespace rq::RQ_ISA
