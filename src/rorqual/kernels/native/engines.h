// Which panel engine multiplies inputs of a type: tiles for bf16 where there are tiles, else fp32.
#pragma once

#include "engine_fp32.h"
#include "panels.h"
#if defined(RQ_TILES)
#  include "engine_tiles.h"
#endif

namespace rq::RQ_ISA {

template <typename T>
struct EngineFor {
  using Type = Fp32Engine;
};

#if defined(RQ_TILES)
template <>
struct EngineFor<Bf16> {
  using Type = TileEngine;
};
#endif

}  // namespace rq::RQ_ISA
