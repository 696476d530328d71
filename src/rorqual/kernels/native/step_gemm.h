// Products of a few rows with one weight panel: the innermost loops of the runtime.
//
// Every output is one chain of fused multiply-adds with k ascending (int8: an exact integer sum),
// whatever the number of rows of the tile: so decode and prefill give the same bits.
#pragma once

#include "runtime.h"
#include "vec.h"

namespace rq::RQ_ISA {

// Rows of activations. `bytes` is the form of them that a matrix of int8 or int4 multiplies, or one
// that rounds its rows to bf16.
struct Operand {
  const float* values;
  int64_t stride;
  const uint8_t* bytes;
  int64_t bytes_stride;
  const float* scales;    // int8: of each row
  int64_t groups_offset;  // int4: where a row's ByteGroups begin, in its bytes
};

// Which rows of a panel's work a tile is: `done` of `total` rows came before. The tiles of a panel
// share out the reading of the next panel, so that memory works while they calculate.
struct Progress {
  int64_t done, total;
};

// Where a tile prefetches, relative to the words it multiplies: two lines from each offset.
struct Ahead {
  int64_t first, second;
};
static inline Ahead look_ahead(const Matrix& m, int64_t panel, Progress progress) {
  if (progress.total <= kTileRows) return {1024, 1056};
  const int64_t next = m.panel_words(panel + 1) - m.panel_words(panel);
  if (progress.done == 0) return {next, next};
  return progress.done < 2 * kTileRows ? Ahead{next + 32, next + 32} : Ahead{0, 0};
}

// tile[i][j] = product of row i of the operand (row index[i], or first + i without an index) with
// output column j of the panel; count <= kTileRows, tile rows are kPanelColumns apart.
void multiply_panel(const Matrix& matrix, int64_t panel, const Operand& operand,
                    const int32_t* index, int64_t first, int count, Progress progress, float* tile);

// The int8 form of a row: bytes = round(x * 127 / max|x|), plus 128 if `offset`; zeros (or 128)
// up to the next multiple of kGroupDepth. Returns max|x| / 127.
float quantise_row(const float* row, int64_t count, bool offset, uint8_t* bytes);

// The form of a row that int4 multiplies: every kGroupDepth values as quantise_row makes signed
// bytes of them.
void quantise_groups(const float* row, int64_t count, uint8_t* bytes, ByteGroup* groups);

void round_to_bf16(const float* from, int64_t count, Bf16* to);

// bf16 weights with rows of bf16, of an even length (a zero beyond an odd one).

void multiply_panel_pairs(const Matrix& matrix, int64_t panel, const Operand& operand,
                          const int64_t* rows, int count, Ahead ahead, float* tile);

void multiply_panel_int8(const Matrix& matrix, int64_t panel, const Operand& operand,
                         const int64_t* rows, int count, Ahead ahead, float* tile);

void multiply_panel_int4(const Matrix& matrix, int64_t panel, const Operand& operand,
                         const int64_t* rows, int count, float* tile);

}  // namespace rq::RQ_ISA
