// One engine step in progress: the phases of a layer share this state.
#pragma once

#include "step_attention.h"
#include "step_gemm.h"
#include "step_moe.h"

namespace rq::RQ_ISA {

// Up to this many rows one thread prepares all of them itself: cheaper than waking another.
constexpr int64_t kFewRows = 8;
constexpr int64_t kRowsPerTask = 48;
// Work below this is not worth waking a second thread for.
constexpr double kForkMicroseconds = 6.0;
// A step shorter than this stays on one thread: the other has gone to sleep since the last one.
constexpr double kWakeMicroseconds = 150.0;

// The next task of a thread's range.
struct alignas(64) TaskRange {
  int64_t next;
};
constexpr int kMostRanges = 64;

struct Step {
  Session& session;
  const Runtime& runtime;
  const StepArguments& arguments;
  const ModelShape& shape;
  const Scratch& b;
  const int64_t rows;  // T
  int64_t num_chunks;  // row ranges that one task works on; a cache block never spans two
  int64_t moe_layer;   // of the current layer, counted from the first MoE layer
  int num_active;      // experts with rows in the current layer
  bool forks;          // whether this step is worth a second thread
  TaskRange ranges[kMostRanges];

  Step(Session& s, const Runtime& r, const StepArguments& a)
      : session(s),
        runtime(r),
        arguments(a),
        shape(r.shape),
        b(r.scratch),
        rows(a.tokens),
        num_chunks(0),
        moe_layer(0),
        num_active(0),
        forks(false) {}

  void plan_rows();
  void decide_threads();
  double attention_microseconds() const;
  void embed();
  void join_previous();
  void attention_layer(int64_t layer);
  void feed_forward_layer(int64_t layer);
  void write_outputs();

  // Runs tasks [0, count): `function(task, part)`. Each thread has a range of its own, so that it
  // reads neighbouring weights, the same ones step after step, and then helps the others. Which
  // thread runs a task does not matter to any result.
  template <typename Function>
  void for_tasks(int64_t count, double microseconds, Function function) {
    if (!forks || count == 1 || microseconds < kForkMicroseconds) {
      for (int64_t task = 0; task < count; ++task) function(task, 0);
      return;
    }
    const int parts = session.threads() < kMostRanges ? session.threads() : kMostRanges;
    for (int p = 0; p < parts; ++p) ranges[p] = {slice_begin(count, parts, p)};
    auto part = [&](int p) {
      for (int help = 0; help < parts; ++help) {
        const int owner = (p + help) % parts;
        const int64_t end = slice_begin(count, parts, owner + 1);
        for (;;) {
          const int64_t task = __atomic_fetch_add(&ranges[owner].next, 1, __ATOMIC_RELAXED);
          if (task >= end) break;
          function(task, p);
        }
      }
    };
    run_phase(session, part);
  }

  // Calls function(first, count, part) over `count` rows: all at once if they are few.
  template <typename Function>
  void for_rows(int64_t count, double microseconds_per_row, Function function) {
    if (count <= kFewRows) return function(static_cast<int64_t>(0), static_cast<int>(count), 0);
    constexpr int64_t kRows = 2 * kTileRows;
    for_tasks((count + kRows - 1) / kRows, microseconds_per_row * static_cast<double>(count),
              [&](int64_t task, int part) {
                const int64_t first = task * kRows;
                function(first, static_cast<int>(count - first < kRows ? count - first : kRows),
                         part);
              });
  }

  // Calls function(panel, first, count, part) for every panel of a matrix and row chunk.
  template <typename Function>
  void for_panels(const Matrix& m, Function function) {
    for_tasks(m.panels() * num_chunks, product_microseconds(m, rows), [&](int64_t task, int part) {
      const int64_t chunk = task % num_chunks;
      const int64_t first = b.chunk_begin[chunk];
      function(task / num_chunks, first, b.chunk_begin[chunk + 1] - first, part);
    });
  }

  // Calls take(i, sums) with the product of row rows[i] and a panel, [kPanelColumns], i ascending.
  template <typename Function>
  void for_products(const Matrix& m, int64_t panel, const Operand& input, Rows rows, int64_t count,
                    int part, Function take) {
    float* sums = part_sums(part);
    for (int64_t i = 0; i < count; i += kPanelRows) {
      const int some = static_cast<int>(count - i < kPanelRows ? count - i : kPanelRows);
      multiply_panel(m, panel, input, rows.from(i), some, {i, count}, sums);
      for (int r = 0; r < some; ++r) take(i + r, sums + r * kPanelColumns);
    }
  }

  // A rough cost on one thread: the weights from memory, or the arithmetic.
  static double product_microseconds(const Matrix& m, int64_t row_count) {
    const double bytes = static_cast<double>(m.bytes()) / 12e3;
    const double rate = m.format >= Format::kInt8 ? 100e3 : 30e3;
    const double work = static_cast<double>(row_count) * static_cast<double>(m.depth) *
                        static_cast<double>(m.physical_columns()) / rate;
    return bytes > work ? bytes : work;
  }

  float* part_scratch(int part) const {
    return reinterpret_cast<float*>(b.per_thread + part * b.per_thread_bytes);
  }
  float* part_sums(int part) const { return part_scratch(part); }
  float* part_head(int part) const { return part_sums(part) + kPanelRows * kPanelColumns; }
  int64_t head_stride() const {
    const int64_t key = shape.nope + shape.rope;
    return round_up(key > shape.value ? key : shape.value, kPanelColumns);
  }
  float* part_attention(int part) const { return part_head(part) + kTileRows * head_stride(); }

  Operand operand(const float* values, int64_t stride) const {
    return {values, stride, b.bytes, b.bytes_stride, b.byte_scales, b.groups_offset};
  }
  // Whether a matrix multiplies another form of its rows than their floats.
  static bool quantises(const Matrix& next) {
    return next.format >= Format::kInt8 || next.rounds_rows;
  }
  // That form of `count` values as row `row` of the operand of `next`, if it wants one.
  void quantise(const Matrix& next, const float* values, int64_t count, int64_t row) const {
    if (!quantises(next)) return;
    uint8_t* bytes = b.bytes + row * b.bytes_stride;
    if (next.format == Format::kBf16) {
      Bf16* rounded = reinterpret_cast<Bf16*>(bytes);
      round_to_bf16(values, count, rounded);
      if (count % 2 != 0) rounded[count].bits = 0;
    } else if (next.format == Format::kInt4) {
      quantise_groups(values, count, bytes, reinterpret_cast<ByteGroup*>(bytes + b.groups_offset));
    } else {
      b.byte_scales[row] = quantise_row(values, count, runtime.byte_offset, bytes);
    }
  }
  void quantise_rows(const Matrix& next, const float* values, int64_t stride, int64_t width,
                     int64_t first_row, int64_t count);
  void norm_rows(const Matrix& next, const float* values, int64_t stride, int64_t width,
                 const float* weight, double eps);

  // Attention, one part each.
  void latent_queries(const LayerWeights& w, int64_t layer);
  void latent_head(const LayerWeights& w, const Operand& input, int64_t head, int64_t first,
                   int64_t count, int part);
  void write_panel(const Matrix& m, int64_t panel, const Operand& input, int64_t first,
                   int64_t count, float* out, int64_t stride, int part);
  void write_product(const Matrix& m, const Operand& input, int64_t first, int64_t count,
                     float* out, int64_t stride, int part);
  void append_latents(const LayerWeights& w, int64_t layer, int64_t first, int64_t count);
  void grouped_heads(const LayerWeights& w, int64_t layer);
  void grouped_head(const LayerWeights& w, int64_t layer, int64_t head, int64_t first,
                    int64_t count, int part);
  void append(int64_t layer, int64_t row, int64_t channel, const float* values, int64_t width);
  void attend_all(const LayerWeights& w, int64_t layer);
  void attend_tile(const LayerWeights& w, int64_t layer, int64_t task, int part);

  // Feed-forward.
  void activate_panel(const Matrix& m, int64_t panel, const Operand& input, const int32_t* index,
                      int64_t first, int64_t count, int64_t out_row, int part);
  void add_panel(const Matrix& m, int64_t panel, const Operand& input, int64_t first, int64_t count,
                 int part);
  void routed_layer(const LayerWeights& w);
  void expert_down_panel(const LayerWeights& w, int64_t panel, int64_t begin, int64_t end,
                         int part);
};

// How a sequence's rows are cut for attention: `tokens` by `heads` query rows a task.
struct AttentionTiles {
  int64_t tokens, heads, token_tiles, head_groups;
};
AttentionTiles attention_tiles(const Step& step, int64_t sequence);

// out = x / rms(x) * weight.
void rms_norm_row(const float* x, int64_t width, const float* weight, double eps, float* out);

}  // namespace rq::RQ_ISA
