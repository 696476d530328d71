// Instruction sets: which exist, which this machine runs, and how a call reaches the right copy.
//
// Every ops_*.cpp is compiled once per instruction set with RQ_ISA naming the namespace, so each
// function exists as rq::portable::f, rq::avx2::f, ... RQ_PER_ISA declares all of them and
// RQ_DISPATCH calls the one asked for.
//
// NOTE: code in ops_*.cpp and in the headers they include must live in namespace rq::RQ_ISA or be
// static, and must not use std:: templates: the linker keeps one copy of an inline function, and
// that copy could be the AVX-512 one.
#pragma once

namespace rq {

enum Isa : int {
  kPortable = 0,
  kAvx2 = 1,
  kAvx512 = 2,
  kAmx = 3,          // AVX-512 plus bf16 tiles
  kAmxEmulated = 4,  // the tile kernels on emulated tiles; for tests only
  kIsaCount = 5,
};

// Best instruction set of this machine among those compiled in.
Isa best_isa();

// Whether this machine can run `isa`, and it was compiled in.
bool isa_available(int isa);

// Whether this machine multiplies bytes (AVX-512 VNNI); asked at run time by the int8 kernels.
bool has_vnni();

// Whether it multiplies pairs of bf16 (AVX-512 BF16), and the compiler knows how.
bool has_bf16_pairs();

}  // namespace rq

// Declares one function in the namespace of each instruction set.
#define RQ_PER_ISA(declaration) \
  namespace portable {          \
  declaration;                  \
  }                             \
  namespace avx2 {              \
  declaration;                  \
  }                             \
  namespace avx512 {            \
  declaration;                  \
  }                             \
  namespace amx {               \
  declaration;                  \
  }                             \
  namespace amx_emulated {      \
  declaration;                  \
  }

#ifdef RQ_HAVE_avx2
#  define RQ_CASE_AVX2(call) \
    case rq::kAvx2:          \
      return rq::avx2::call;
#else
#  define RQ_CASE_AVX2(call)
#endif
#ifdef RQ_HAVE_avx512
#  define RQ_CASE_AVX512(call) \
    case rq::kAvx512:          \
      return rq::avx512::call;
#else
#  define RQ_CASE_AVX512(call)
#endif
#ifdef RQ_HAVE_amx
#  define RQ_CASE_AMX(call) \
    case rq::kAmx:          \
      return rq::amx::call;
#else
#  define RQ_CASE_AMX(call)
#endif

// `return` the result of `call` from the namespace that `isa` names (-1: the best one).
#define RQ_DISPATCH(isa, call)                  \
  switch ((isa) < 0 ? rq::best_isa() : (isa)) { \
    RQ_CASE_AVX2(call)                          \
    RQ_CASE_AVX512(call)                        \
    RQ_CASE_AMX(call)                           \
    case rq::kAmxEmulated:                      \
      return rq::amx_emulated::call;            \
    default:                                    \
      return rq::portable::call;                \
  }
