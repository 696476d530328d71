// C functions about the library itself.
#include "abi.h"
#include "isa.h"

RQ_API int rq_abi_version() { return RQ_ABI_VERSION; }

RQ_API int rq_best_isa() { return rq::best_isa(); }

RQ_API int rq_has_bf16_pairs() { return rq::has_bf16_pairs() ? 1 : 0; }

RQ_API int rq_isa_available(int isa) { return rq::isa_available(isa) ? 1 : 0; }
