// Published weights into panels: rows become columns of 32-bit words, 16 x 16 at a time.
#include "engine_fp32.h"
#include "step_gemm.h"
#include "step_levels.h"

namespace rq::RQ_ISA {
namespace {

constexpr int kGroup = kColumnUnit;  // columns converted together: a panel holds whole groups

constexpr int64_t kSmall = 1 << 16;  // weights that one thread packs alone

// Where column `column` of one half begins in the matrix's words, and the panel's width.
struct Place {
  uint32_t* panel;
  int64_t inside;
  int width;
  int64_t physical;

  uint32_t* words() const { return panel + inside; }
  // Where word k of a column stands after word 0: int4 keeps steps and zeros after every 4 words.
  int64_t offset(Format format, int64_t k) const {
    return k * width + (format == Format::kInt4 ? k / 4 * (width / 2) : 0);
  }
  // int4: the step of group g; its zero stands `width` bytes further.
  uint8_t* step(int64_t group) const {
    uint32_t* steps = panel + (group + 1) * 4 * width + group * (width / 2);
    return reinterpret_cast<uint8_t*>(steps) + inside;
  }
};

Place find(const Matrix& m, int64_t column, int half) {
  const int64_t per_panel = m.paired ? kPanelColumns / 2 : kPanelColumns;
  const int64_t panel = column / per_panel;
  const int width = m.width(panel);
  const int64_t inside = column % per_panel + (m.paired && half == 1 ? width / 2 : 0);
  return {m.words + m.panel_words(panel), inside, width, panel * kPanelColumns + inside};
}

// One row of the source as fp32, contiguous in memory.
const float* read_row(const PackSource& source, int64_t column, int64_t depth, float* buffer) {
  const float* row = source.data + column * source.column_stride;
  if (source.depth_stride == 1) return row;
  for (int64_t k = 0; k < depth; ++k) buffer[k] = row[k * source.depth_stride];
  return buffer;
}

// Words of a row of weights: fp32 as they are, bf16 in pairs, int8 in fours with scale and sum.
void convert_row(const Matrix& m, const float* row, uint32_t* words, const Place& place,
                 int64_t shift) {
  const int64_t physical = place.physical + shift;
  const int64_t depth = m.depth;
  if (m.format == Format::kFp32) {
    memcpy(words, row, static_cast<size_t>(depth) * 4);
  } else if (m.format == Format::kBf16) {
    Bf16* out = reinterpret_cast<Bf16*>(words);
    round_to_bf16(row, depth, out);
    if (depth % 2 != 0) out[depth].bits = 0;
  } else if (m.format == Format::kInt4) {
    uint8_t* first = place.step(0) + shift;
    m.scales[physical] =
        pack_levels(row, depth, words, first, place.step(1) - place.step(0), place.width);
  } else {
    uint8_t* bytes = reinterpret_cast<uint8_t*>(words);
    m.scales[physical] = quantise_row(row, depth, false, bytes);
    int32_t sum = 0;
    for (int64_t k = 0; k < depth; ++k) sum += static_cast<int8_t>(bytes[k]);
    m.sums[physical] = 128 * sum;
  }
}

// kGroup rows of words (stride `stride`) into a panel, from rows of one column to columns of words.
void transpose_group(const Matrix& m, const uint32_t* rows, int64_t stride, const Place& place) {
  const int64_t deep = m.words_deep();
  float tile[kWidth * kWidth];
  for (int64_t k = 0; k < deep; k += kWidth) {
    const int steps = static_cast<int>(deep - k < kWidth ? deep - k : kWidth);
    for (int j = 0; j < kGroup; j += kWidth) {
      for (int r = 0; r < kWidth; ++r) {
        memcpy(tile + r * kWidth, rows + (j + r) * stride + k, sizeof(float) * kWidth);
      }
      Fp32Engine::transpose(tile);
      for (int t = 0; t < steps; ++t) {
        memcpy(place.words() + place.offset(m.format, k + t) + j, tile + t * kWidth,
               sizeof(float) * kWidth);
      }
    }
  }
}

void pack_group(const Matrix& m, const PackSource& source, int64_t column, uint32_t* rows,
                int64_t stride, float* buffer) {
  const Place place = find(m, source.first_column + column, source.half);
  const int64_t left = source.columns - column;
  for (int j = 0; j < kGroup; ++j) {
    uint32_t* words = rows + j * stride;
    if (j < left) {
      convert_row(m, read_row(source, column + j, m.depth, buffer), words, place, j);
      continue;
    }
    memset(words, 0, static_cast<size_t>(m.words_deep()) * 4);
    for (int64_t g = 0; m.format == Format::kInt4 && g < m.groups(); ++g) {
      place.step(g)[j] = place.step(g)[place.width + j] = 0;
    }
    if (m.format >= Format::kInt8) m.scales[place.physical + j] = 0.0f;
    if (m.format == Format::kInt8) m.sums[place.physical + j] = 0;
  }
  transpose_group(m, rows, stride, place);
}

// Sources that do not begin at a group (the second of two joined projections) go word by word.
void pack_column(const Matrix& m, const PackSource& source, int64_t column, uint32_t* words,
                 float* buffer) {
  const Place place = find(m, source.first_column + column, source.half);
  convert_row(m, read_row(source, column, m.depth, buffer), words, place, 0);
  for (int64_t k = 0; k < m.words_deep(); ++k) {
    place.words()[place.offset(m.format, k)] = words[k];
  }
}

}  // namespace

int runtime_pack(Session& session, const Matrix& m, const PackSource& source) {
  const int64_t stride =
      round_up(m.words_deep() + 8, 16) + 16;  // whole lines, off the 4 KiB aliases
  const int64_t buffer_floats = round_up(m.depth, 16);
  const int64_t bytes = (kGroup * stride + buffer_floats) * 4;
  char* memory =
      static_cast<char*>(session.workspace(static_cast<size_t>(bytes) * session.threads()));
  if (memory == nullptr) return kOutOfMemory;
  const int64_t groups = (source.columns + kGroup - 1) / kGroup;
  // A small tensor is packed sooner than a second thread wakes.
  const int parts = source.columns * m.depth < kSmall ? 1 : session.threads();
  auto part = [&](int p) {
    uint32_t* rows = reinterpret_cast<uint32_t*>(memory + p * bytes);
    float* buffer = reinterpret_cast<float*>(rows + kGroup * stride);
    memset(rows, 0, static_cast<size_t>(kGroup * stride) * 4);
    const int64_t begin = slice_begin(groups, parts, p);
    const int64_t end = slice_begin(groups, parts, p + 1);
    for (int64_t g = begin; g < end; ++g) {
      if (source.first_column % kGroup == 0) {
        pack_group(m, source, g * kGroup, rows, stride, buffer);
        continue;
      }
      for (int64_t c = g * kGroup; c < (g + 1) * kGroup && c < source.columns; ++c) {
        pack_column(m, source, c, rows, buffer);
      }
    }
  };
  if (parts == 1) {
    part(0);
  } else {
    run_phase(session, part);
  }
  return kOk;
}

int runtime_copy(Session& session, const float* from, int64_t count, bool wide, void* to) {
  auto part = [&](int p) {
    const int64_t begin = slice_begin(count, session.threads(), p, 64);
    const int64_t some = slice_begin(count, session.threads(), p + 1, 64) - begin;
    if (wide) {
      memcpy(static_cast<float*>(to) + begin, from + begin, static_cast<size_t>(some) * 4);
    } else {
      round_to_bf16(from + begin, some, static_cast<Bf16*>(to) + begin);
    }
  };
  run_phase(session, part);
  return kOk;
}

}  // namespace rq::RQ_ISA
