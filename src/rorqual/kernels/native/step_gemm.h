// Products of a few rows with one weight panel: the innermost loops of the runtime.
//
// Every output is one chain of fused multiply-adds with k ascending (int8: an exact integer sum),
// whatever the number of rows of the tile and wherever a slice of it ends: so decode and prefill
// give the same bits.
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

// Which rows of an operand: index[i], or first + i without an index.
struct Rows {
  const int32_t* index;
  int64_t first;

  int64_t operator[](int i) const { return index != nullptr ? index[i] : first + i; }
  Rows from(int64_t i) const { return {index != nullptr ? index + i : nullptr, first + i}; }
};

// Which rows of a panel's work a product is: `done` of `total` rows came before.
struct Progress {
  int64_t done, total;
};

// How a tile goes over a panel: words [begin, end) of its depth, and where it prefetches, relative
// to the words it multiplies: two lines from each offset, so many words apart.
// NOTE: handed on by reference: copies of what was just written stalled for 5 % of int8's prefill.
struct Pass {
  int64_t begin, end;
  int64_t first_ahead, second_ahead, apart;
};

// sums[i][j] = product of row rows[i] of the operand with output column j of the panel; count <=
// kPanelRows, rows of sums are kPanelColumns apart.
void multiply_panel(const Matrix& matrix, int64_t panel, const Operand& operand, Rows rows,
                    int count, Progress progress, float* sums);

// The int8 form of a row: bytes = round(x * 127 / max|x|), plus 128 if `offset`; zeros (or 128)
// up to the next multiple of kGroupDepth. Returns max|x| / 127.
float quantise_row(const float* row, int64_t count, bool offset, uint8_t* bytes);

// The form of a row that int4 multiplies: every kGroupDepth values as quantise_row makes signed
// bytes of them.
void quantise_groups(const float* row, int64_t count, uint8_t* bytes, ByteGroup* groups);

void round_to_bf16(const float* from, int64_t count, Bf16* to);

// One tile, count <= kTileRows rows. `tile` holds the sums between two slices (int8: as integers);
// a form that cannot stop gets whole panels.
// bf16 weights with rows of bf16, of an even length (a zero beyond an odd one).
void multiply_tile_pairs(const Matrix& matrix, int64_t panel, const Operand& operand, Rows rows,
                         int count, const Pass& pass, float* tile);

// Whether multiply_tile_int8 can stop at a slice's end: with AVX-512 and VNNI.
bool slices_int8();
void multiply_tile_int8(const Matrix& matrix, int64_t panel, const Operand& operand, Rows rows,
                        int count, const Pass& pass, float* tile);

void multiply_tile_int4(const Matrix& matrix, int64_t panel, const Operand& operand, Rows rows,
                        int count, float* tile);

}  // namespace rq::RQ_ISA
