#include "step_moe.h"

namespace rq::RQ_ISA {
namespace {

// Affinities of one token in place of its logits.
void score(const ModelShape& s, float* logits) {
  if (s.scoring == kSigmoid) {
    for_each_vec(s.experts, [&](int64_t e, int wide) {
      if (wide == kWidth) {
        store(logits + e, sigmoid(load(logits + e)));
      } else {
        store(logits + e, sigmoid(load(logits + e, wide)), wide);
      }
    });
    return;
  }
  float most = logits[0];
  for (int64_t e = 1; e < s.experts; ++e) most = logits[e] > most ? logits[e] : most;
  Vec total = zero();
  for_each_vec(s.experts, [&](int64_t e, int wide) {
    if (wide == kWidth) {
      const Vec value = exp(load(logits + e) - broadcast(most));
      store(logits + e, value);
      total = total + value;
    } else {
      store(logits + e, exp(load(logits + e, wide) - broadcast(most)), wide);
      total = total + load(logits + e, wide);
    }
  });
  const float sum_of_all = sum(total);
  for (int64_t e = 0; e < s.experts; ++e) logits[e] /= sum_of_all;
}

// The affinity that decides: plus the balancing bias in V3.
RQ_INLINE float choice(const ModelShape& s, const float* bias, const float* scores, int64_t e) {
  return s.selection == kBiasedGroups ? scores[e] + bias[e] : scores[e];
}

// What a group of experts is worth: its best, or (V3) the sum of its best two.
float group_score(const ModelShape& s, const float* bias, const float* scores, int64_t group) {
  const int64_t size = s.experts / s.groups;
  float best = -__builtin_inff(), second = -__builtin_inff();
  for (int64_t e = group * size; e < (group + 1) * size; ++e) {
    const float value = choice(s, bias, scores, e);
    if (value > best) {
      second = best;
      best = value;
    } else if (value > second) {
      second = value;
    }
  }
  return s.selection == kBiasedGroups ? best + second : best;
}

// The `wanted` largest of `count` values, marked in `taken`; the first of equals wins.
template <typename Value>
void take_largest(int64_t count, int64_t wanted, bool* taken, Value value) {
  for (int64_t n = 0; n < wanted; ++n) {
    int64_t best = -1;
    float most = 0.0f;
    for (int64_t i = 0; i < count; ++i) {
      if (taken[i]) continue;
      const float v = value(i);
      if (best < 0 || v > most) {
        best = i;
        most = v;
      }
    }
    taken[best] = true;
  }
}

constexpr int64_t kMostExperts = 1024;

// Ascending experts of one token.
void choose(const ModelShape& s, const float* bias, const float* scores, int32_t* chosen) {
  bool taken[kMostExperts] = {}, kept[kMostExperts] = {};
  const bool limited = s.selection != kGreedy && s.groups > 1;
  const int64_t size = limited ? s.experts / s.groups : s.experts;
  if (limited) {
    float worth[kMostExperts];
    for (int64_t g = 0; g < s.groups; ++g) worth[g] = group_score(s, bias, scores, g);
    take_largest(s.groups, s.kept_groups, kept, [&](int64_t g) { return worth[g]; });
    // Experts of dropped groups are out of the question: as if taken already.
    for (int64_t e = 0; e < s.experts; ++e) taken[e] = !kept[e / size];
  }
  take_largest(s.experts, s.chosen, taken, [&](int64_t e) { return choice(s, bias, scores, e); });
  int64_t n = 0;
  for (int64_t e = 0; e < s.experts; ++e) {
    if (taken[e] && !(limited && !kept[e / size])) chosen[n++] = static_cast<int32_t>(e);
  }
}

// A replayed choice in ascending order (insertion sort: K is small).
void copy_sorted(const int16_t* from, int64_t count, int32_t* chosen) {
  for (int64_t i = 0; i < count; ++i) {
    int64_t place = i;
    for (; place > 0 && chosen[place - 1] > from[i]; --place) chosen[place] = chosen[place - 1];
    chosen[place] = from[i];
  }
}

// Output weights: affinities, normalised (eq. 13) and scaled as the family does.
void weigh(const ModelShape& s, const float* scores, const int32_t* chosen, float* weight) {
  float total = 0.0f;
  for (int64_t k = 0; k < s.chosen; ++k) {
    weight[k] = scores[chosen[k]];
    total += weight[k];
  }
  const bool normalise = s.normalise && s.chosen > 1;
  if (normalise) {
    for (int64_t k = 0; k < s.chosen; ++k) weight[k] /= total + 1e-20f;
  }
  if (normalise && !s.scale_normalised) return;
  for (int64_t k = 0; k < s.chosen; ++k) weight[k] *= static_cast<float>(s.routed_scale);
}

}  // namespace

void route_rows(const Runtime& runtime, const LayerWeights& weights, int64_t moe_layer,
                const int16_t* replay, int64_t first, int count, float* tile) {
  const ModelShape& s = runtime.shape;
  const Scratch& b = runtime.scratch;
  const int64_t stride = round_up(s.experts, kColumnUnit);
  const Operand normed = {b.normed, s.hidden, nullptr, 0, nullptr, 0};
  for (int64_t panel = 0; panel < weights.router.panels(); ++panel) {
    multiply_panel(weights.router, panel, normed, {nullptr, first}, count, {0, count}, tile);
    for (int i = 0; i < count; ++i) {
      memcpy(b.router_scores + (first + i) * stride + panel * kPanelColumns,
             tile + i * kPanelColumns, sizeof(float) * weights.router.width(panel));
    }
  }
  const int64_t moe_layers = s.moe_layers();
  for (int64_t t = first; t < first + count; ++t) {
    float* scores = b.router_scores + t * stride;
    score(s, scores);
    int32_t* chosen = b.chosen + t * s.chosen;
    if (replay != nullptr) {
      copy_sorted(replay + (t * moe_layers + moe_layer) * s.chosen, s.chosen, chosen);
    } else {
      choose(s, weights.router_bias, scores, chosen);
    }
    weigh(s, scores, chosen, b.chosen_weight + t * s.chosen);
  }
}

int sort_by_expert(const Runtime& runtime, int64_t tokens) {
  const ModelShape& s = runtime.shape;
  const Scratch& b = runtime.scratch;
  const int64_t slots = tokens * s.chosen;
  memset(b.expert_begin, 0, static_cast<size_t>(s.experts + 1) * sizeof(int32_t));
  for (int64_t i = 0; i < slots; ++i) ++b.expert_begin[b.chosen[i] + 1];
  int active = 0;
  for (int64_t e = 0; e < s.experts; ++e) {
    if (b.expert_begin[e + 1] > 0) b.active[active++] = static_cast<int32_t>(e);
    b.expert_begin[e + 1] += b.expert_begin[e];
  }
  for (int64_t i = 0; i < slots; ++i) {
    const int32_t row = b.expert_begin[b.chosen[i]]++;
    b.row_token[row] = static_cast<int32_t>(i / s.chosen);
    b.row_weight[row] = b.chosen_weight[i];
  }
  // Every begin has moved to the next expert's; move them back.
  for (int64_t e = s.experts; e > 0; --e) b.expert_begin[e] = b.expert_begin[e - 1];
  b.expert_begin[0] = 0;
  return active;
}

}  // namespace rq::RQ_ISA
