// A checksum as fast as memory, for files of packed weights.
#include <string.h>

#include "abi.h"

namespace {

constexpr int kLanes = 8;
constexpr uint64_t kPrime = 0x9E3779B185EBCA87;  // odd, so that no step loses a bit

uint64_t step(uint64_t state, uint64_t word) {
  state ^= word;
  state = state << 29 | state >> 35;
  return state * kPrime;
}

// Every step is one to one in the state, so a change within one word always changes the sum.
uint64_t checksum(const char* data, int64_t bytes) {
  uint64_t lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = kPrime + static_cast<uint64_t>(i);
  constexpr int64_t kStride = kLanes * 8;
  int64_t at = 0;
  for (; at + kStride <= bytes; at += kStride) {
    uint64_t words[kLanes];
    memcpy(words, data + at, kStride);
    for (int i = 0; i < kLanes; ++i) lanes[i] = step(lanes[i], words[i]);
  }
  uint64_t sum = static_cast<uint64_t>(bytes);
  for (int i = 0; i < kLanes; ++i) sum = step(sum, lanes[i]);
  for (; at < bytes; ++at) sum = step(sum, static_cast<unsigned char>(data[at]));
  return sum ^ sum >> 32;
}

}  // namespace

// sums[i] of block i of `block_bytes` (the last may be shorter). Takes no session: it may run
// beside a step.
RQ_API int rq_checksum_blocks(int, int, const char* data, int64_t bytes, int64_t block_bytes,
                              uint64_t* sums) {
  for (int64_t i = 0, at = 0; at < bytes; ++i, at += block_bytes) {
    sums[i] = checksum(data + at, bytes - at < block_bytes ? bytes - at : block_bytes);
  }
  return rq::kOk;
}
