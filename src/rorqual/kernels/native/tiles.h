// The tile instructions of AMX that the bf16 engine uses, on hardware or emulated.
//
// Both have the same five operations, so the engine above is one code. The emulation follows the
// architecture manual's pseudocode (order of sums, denormals flushed, rows past the configured ones
// zeroed) and lets the engine be tested on machines without AMX.
//
// NOTE: the hardware operations below compile but have not run yet on a machine with AMX.
#pragma once

#include "vec.h"

namespace rq::RQ_ISA {

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64, "as the instruction reads it");

#if defined(__AMX_BF16__)

// Inline assembly, not the intrinsics: g++ 12's _tile_loadconfig tells the compiler that 8 bytes
// are read, so the stores to `rows` and `row_bytes` get dropped. The operand here is all 64 bytes.
struct Tiles {
  static void configure(const TileConfig& config) {
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
  }
  static void release() { __asm__ volatile("tilerelease"); }
  template <int tile>
  static inline void clear() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(tile));
  }
  // Rows `stride` bytes apart.
  template <int tile>
  static inline void load(const void* rows, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                     :
                     : "r"(rows), "r"(stride), "i"(tile)
                     : "memory");
  }
  template <int tile>
  static inline void store(void* rows, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                     :
                     : "r"(rows), "r"(stride), "i"(tile)
                     : "memory");
  }
  // c += a b: a is 16 rows of 32 bf16, b is 16 rows of 16 pairs (two steps of k side by side).
  template <int c, int a, int b>
  static inline void multiply() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
  }
};

#else

struct Tiles {
  static void configure(const TileConfig& config) {
    state().config = config;
    memset(state().data, 0, sizeof(state().data));
  }
  static void release() { state().config.palette = 0; }
  template <int tile>
  static void clear() {
    memset(state().data[tile], 0, sizeof(state().data[tile]));
  }
  template <int tile>
  static void load(const void* rows, int64_t stride) {
    clear<tile>();
    const TileConfig& config = state().config;
    for (int r = 0; r < config.rows[tile]; ++r) {
      memcpy(state().data[tile][r], static_cast<const char*>(rows) + r * stride,
             config.row_bytes[tile]);
    }
  }
  template <int tile>
  static void store(void* rows, int64_t stride) {
    const TileConfig& config = state().config;
    for (int r = 0; r < config.rows[tile]; ++r) {
      memcpy(static_cast<char*>(rows) + r * stride, state().data[tile][r], config.row_bytes[tile]);
    }
  }
  template <int c, int a, int b>
  static void multiply() {
    const TileConfig& config = state().config;
    const int pairs = config.row_bytes[a] / 4, columns = config.row_bytes[c] / 4;
    for (int m = 0; m < config.rows[c]; ++m) {
      float even[16] = {}, odd[16] = {}, sums[16];
      for (int k = 0; k < pairs; ++k) {
        for (int n = 0; n < columns; ++n) {
          even[n] = flush(__builtin_fmaf(element(a, m, 2 * k), element(b, k, 2 * n), even[n]));
          odd[n] =
              flush(__builtin_fmaf(element(a, m, 2 * k + 1), element(b, k, 2 * n + 1), odd[n]));
        }
      }
      memcpy(sums, state().data[c][m], sizeof(sums));
      for (int n = 0; n < columns; ++n) sums[n] = flush(flush(sums[n]) + flush(even[n] + odd[n]));
      memcpy(state().data[c][m], sums, sizeof(sums));
    }
  }

 private:
  struct State {
    TileConfig config;
    uint8_t data[8][16][64];
  };
  static State& state() {
    static thread_local State registers;
    return registers;
  }
  static float flush(float x) { return __builtin_fabsf(x) < 1.17549435e-38f ? 0.0f : x; }
  static float element(int tile, int row, int column) {
    Bf16 value;
    memcpy(&value, state().data[tile][row] + 2 * column, 2);
    return flush(to_float(value));
  }
};

#endif

}  // namespace rq::RQ_ISA
