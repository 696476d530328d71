// Sources of rows for packing, and the blocked product over packed panels.
//
// A Source is anything with read(row, column, count, out), which writes `count` elements of a row
// converted to the engine's packed type, and prefetch(row, column, count). A plain matrix, rows
// gathered by index, or rows computed on the fly (the experts' hidden activations) all pack the
// same way, so a gather or an activation costs no pass over memory of its own.
#pragma once

#include "vec.h"

namespace rq::RQ_ISA {

template <typename From, typename To>
RQ_INLINE void convert(const From* from, int count, To* to) {
  int i = 0;
  for (; i + kWidth <= count; i += kWidth) store(to + i, load(from + i));
  if (i < count) store(to + i, load(from + i, count - i), count - i);
}

RQ_INLINE void convert(const Bf16* from, int count, Bf16* to) {
  memcpy(to, from, static_cast<size_t>(count) * sizeof(Bf16));
}

template <typename T>
RQ_INLINE void prefetch_elements(const T* from, int count) {
  constexpr int kLine = 64 / sizeof(T);
  for (int i = 0; i < count; i += kLine) __builtin_prefetch(from + i, 0, 2);
}

template <typename T>
struct MatrixRows {
  const T* data;
  int64_t stride;
  template <typename Packed>
  void read(int64_t row, int64_t column, int count, Packed* out) const {
    convert(data + row * stride + column, count, out);
  }
  void prefetch(int64_t row, int64_t column, int count) const {
    prefetch_elements(data + row * stride + column, count);
  }
};

template <typename T>
struct GatheredRows {
  const T* data;
  int64_t stride;
  const int32_t* index;
  template <typename Packed>
  void read(int64_t row, int64_t column, int count, Packed* out) const {
    convert(data + index[row] * stride + column, count, out);
  }
  void prefetch(int64_t row, int64_t column, int count) const {
    prefetch_elements(data + index[row] * stride + column, count);
  }
};

// Where sums go: row i of C.
struct MatrixSink {
  float* data;
  int64_t stride;
  float* row(int64_t i) const { return data + i * stride; }
};

// Sums added to rows picked by index (several experts add to one token's row).
struct ScatteredSink {
  float* data;
  int64_t stride;
  const int32_t* index;
  float* row(int64_t i) const { return data + index[i] * stride; }
};

// Which way an operand lies in memory: contraction along its rows' elements, or over its rows.
enum class Along { kElements, kRows };

// Scratch of one thread, in elements of the engine's packed type.
template <class Engine>
struct Panels {
  using Packed = typename Engine::Packed;
  static constexpr int64_t kBElements = Engine::kPanelBytes / static_cast<int64_t>(sizeof(Packed));
  static constexpr int64_t kBytes =
      (Engine::kAElements + kBElements) * static_cast<int64_t>(sizeof(Packed));
  Packed* a;
  Packed* b;

  explicit Panels(void* memory) : a(static_cast<Packed*>(memory)), b(a + Engine::kAElements) {}
};

// Cuts `total` into equal blocks of at most `most`, multiples of `unit`.
RQ_INLINE int64_t block_size(int64_t total, int64_t most, int64_t unit) {
  const int64_t blocks = (total + most - 1) / most;
  const int64_t even = (total + blocks - 1) / (blocks > 0 ? blocks : 1);
  return (even + unit - 1) / unit * unit;
}

// The product of one packed A panel with all packed B panels of a block.
template <class Engine>
RQ_INLINE void multiply_panels(bool a_columns, int rows, int depth, int columns,
                               const typename Engine::Packed* a, const typename Engine::Packed* b,
                               float* const* c_rows, bool accumulate) {
  const int64_t panel_size = Engine::b_panel_size(depth);
  for (int j = 0; j < columns; j += Engine::kColumns) {
    const int wide = columns - j < Engine::kColumns ? columns - j : Engine::kColumns;
    Engine::multiply(a_columns, rows, depth, a, b + j / Engine::kColumns * panel_size, c_rows, j,
                     wide, accumulate);
  }
}

// C (+)= A B on one thread. `a_along`, `b_along` say how the contraction lies in each source.
template <class Engine, Along a_along, Along b_along, class ASource, class BSource, class Sink>
void multiply_blocked(const ASource& a, const BSource& b, const Sink& c, int64_t m_count,
                      int64_t n_count, int64_t k_count, bool accumulate,
                      const Panels<Engine>& panels) {
  constexpr int kRows = Engine::kRows;
  const int64_t depth_block = block_size(k_count, Engine::kDepth, Engine::kDepthUnit);
  const int64_t fit =
      Panels<Engine>::kBElements / Engine::b_panel_size(static_cast<int>(depth_block));
  const int64_t n_block = block_size(n_count, fit * Engine::kColumns, Engine::kColumns);
  float* c_rows[kRows];
  for (int64_t n = 0; n < n_count; n += n_block) {
    const int columns = static_cast<int>(n_count - n < n_block ? n_count - n : n_block);
    for (int64_t k = 0; k < k_count; k += depth_block) {
      const int steps = static_cast<int>(k_count - k < depth_block ? k_count - k : depth_block);
      const int depth = static_cast<int>(block_size(steps, steps, Engine::kDepthUnit));
      const bool add = accumulate || k > 0;
      if constexpr (b_along == Along::kRows) {
        Engine::pack_b_rows(b, k, steps, n, columns, panels.b);
      } else {
        Engine::pack_b_columns(b, k, steps, n, columns, panels.b);
      }
      if constexpr (a_along == Along::kElements) {
        for (int64_t m = 0; m < m_count; m += kRows) {
          const int count = static_cast<int>(m_count - m < kRows ? m_count - m : kRows);
          Engine::pack_a_rows(a, m, count, k, steps, panels.a);
          for (int64_t next = m + kRows; next < m + 2 * kRows && next < m_count; ++next) {
            a.prefetch(next, k, steps);
          }
          for (int i = 0; i < count; ++i) c_rows[i] = c.row(m + i) + n;
          multiply_panels<Engine>(false, count, depth, columns, panels.a, panels.b, c_rows, add);
        }
      } else {
        const int64_t panel_size = Engine::column_panel_size(depth);
        const int64_t m_block = Engine::kAElements / panel_size * kRows;
        for (int64_t m = 0; m < m_count; m += m_block) {
          const int block = static_cast<int>(m_count - m < m_block ? m_count - m : m_block);
          Engine::pack_a_columns(a, m, block, k, steps, panels.a);
          for (int first = 0; first < block; first += kRows) {
            const int count = block - first < kRows ? block - first : kRows;
            for (int i = 0; i < count; ++i) c_rows[i] = c.row(m + first + i) + n;
            multiply_panels<Engine>(true, count, depth, columns,
                                    panels.a + first / kRows * panel_size, panels.b, c_rows, add);
          }
        }
      }
    }
  }
}

}  // namespace rq::RQ_ISA
