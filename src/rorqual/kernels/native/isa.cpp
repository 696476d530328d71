#include "isa.h"

#include <initializer_list>

#if defined(__x86_64__)
#  include <cpuid.h>
#endif
#if defined(__linux__)
#  include <sys/syscall.h>
#  include <unistd.h>
#endif

namespace rq {
namespace {

#if defined(__x86_64__)
struct CpuFeatures {
  bool avx2 = false, avx512 = false, vnni = false, bf16_pairs = false, amx = false;
};

// Which register files the operating system saves on a context switch.
unsigned long long enabled_state() {
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
}

// Linux hands out the 8 KiB tile state on request only.
bool request_tile_permission() {
#  if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#  else
  return false;
#  endif
}

CpuFeatures detect() {
  CpuFeatures found;
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
  const bool osxsave = c & (1u << 27), avx = c & (1u << 28), fma = c & (1u << 12),
             f16c = c & (1u << 29);
  if (!osxsave || !avx || !fma || !f16c) return found;
  const unsigned long long state = enabled_state();
  if ((state & 0x6) != 0x6) return found;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
  found.avx2 = b & (1u << 5);
  const unsigned need512 = (1u << 16) | (1u << 17) | (1u << 28) | (1u << 30) | (1u << 31);
  found.avx512 = found.avx2 && (b & need512) == need512 && (state & 0xe6) == 0xe6;
  found.vnni = found.avx512 && (c & (1u << 11));
  const bool tile_bits = (d & (1u << 24)) && (d & (1u << 22)) && (state & 0x60000) == 0x60000;
  unsigned a1 = 0, b1 = 0, c1 = 0, d1 = 0;
  const bool avx512bf16 = __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1) && (a1 & (1u << 5));
  found.bf16_pairs = found.avx512 && avx512bf16;
  found.amx = found.avx512 && tile_bits && avx512bf16 && request_tile_permission();
  return found;
}

const CpuFeatures& features() {
  static const CpuFeatures found = detect();
  return found;
}
#endif

}  // namespace

bool isa_available(int isa) {
  switch (isa) {
    case kPortable:
    case kAmxEmulated:
      return true;
#ifdef RQ_HAVE_avx2
    case kAvx2:
      return features().avx2;
#endif
#ifdef RQ_HAVE_avx512
    case kAvx512:
      return features().avx512;
#endif
#ifdef RQ_HAVE_amx
    case kAmx:
      return features().amx;
#endif
    default:
      return false;
  }
}

bool has_vnni() {
#if defined(__x86_64__)
  return features().vnni;
#else
  return false;
#endif
}

bool has_bf16_pairs() {
#if defined(__x86_64__) && defined(RQ_BF16_PAIRS)
  return features().bf16_pairs;
#else
  return false;
#endif
}

Isa best_isa() {
  static const Isa best = [] {
    for (Isa isa : {kAmx, kAvx512, kAvx2}) {
      if (isa_available(isa)) return isa;
    }
    return kPortable;
  }();
  return best;
}

}  // namespace rq
