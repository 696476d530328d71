// C (+)= op(A) op(B): C is cut into one rectangle per thread, each a blocked product of its own.
#include "engines.h"
#include "gemm.h"

namespace rq::RQ_ISA {
namespace {

// The grid of rectangles that packs the least: each thread packs its rows of A and columns of B.
struct Grid {
  int down, across;
};

Grid choose_grid(int threads, int64_t m, int64_t n) {
  Grid best = {threads, 1};
  double least = -1.0;
  for (int down = 1; down <= threads; ++down) {
    if (threads % down != 0) continue;
    const int across = threads / down;
    const double packed = static_cast<double>(m) / down + static_cast<double>(n) / across;
    if (least < 0.0 || packed < least) {
      least = packed;
      best = {down, across};
    }
  }
  return best;
}

template <class Engine, typename T, Along a_along, Along b_along>
void multiply_rectangle(const GemmArguments& g, int64_t m0, int64_t m1, int64_t n0, int64_t n1,
                        const Panels<Engine>& panels, float* c, int64_t c_stride, bool accumulate) {
  const T* a = static_cast<const T*>(g.a) + (a_along == Along::kRows ? m0 : m0 * g.a_stride);
  const T* b = static_cast<const T*>(g.b) + (b_along == Along::kRows ? n0 : n0 * g.b_stride);
  multiply_blocked<Engine, a_along, b_along>(MatrixRows<T>{a, g.a_stride},
                                             MatrixRows<T>{b, g.b_stride}, MatrixSink{c, c_stride},
                                             m1 - m0, n1 - n0, g.k, accumulate, panels);
}

template <typename T>
int gemm_typed(Session& session, const GemmArguments& g) {
  using Engine = typename EngineFor<T>::Type;
  using P = Panels<Engine>;
  const Grid grid = choose_grid(session.threads(), g.m, g.n);
  const bool narrow_output = g.output_dtype == kBfloat16;
  // A bf16 C is summed in fp32 scratch, a band of columns at a time, and rounded once.
  const int64_t m_most = (g.m + grid.down - 1) / grid.down + Engine::kRows;
  const int64_t band = narrow_output ? 8 * Engine::kColumns : 0;
  const int64_t bytes = (P::kBytes + m_most * band * 4 + 63) / 64 * 64;
  char* memory =
      static_cast<char*>(session.workspace(static_cast<size_t>(bytes) * session.threads()));
  if (memory == nullptr) return kOutOfMemory;

  auto rectangle = [&](int part) {
    const int64_t m0 = slice_begin(g.m, grid.down, part % grid.down, Engine::kRows);
    const int64_t m1 = slice_begin(g.m, grid.down, part % grid.down + 1, Engine::kRows);
    const int64_t n0 = slice_begin(g.n, grid.across, part / grid.down, Engine::kColumns);
    const int64_t n1 = slice_begin(g.n, grid.across, part / grid.down + 1, Engine::kColumns);
    if (m0 == m1 || n0 == n1) return;
    const P panels(memory + part * bytes);
    float* scratch = reinterpret_cast<float*>(memory + part * bytes + P::kBytes);
    const auto product = [&](int64_t from, int64_t to, float* c, int64_t stride, bool add) {
      if (g.layout == kNN) {
        multiply_rectangle<Engine, T, Along::kElements, Along::kRows>(g, m0, m1, from, to, panels,
                                                                      c, stride, add);
      } else if (g.layout == kNT) {
        multiply_rectangle<Engine, T, Along::kElements, Along::kElements>(g, m0, m1, from, to,
                                                                          panels, c, stride, add);
      } else {
        multiply_rectangle<Engine, T, Along::kRows, Along::kRows>(g, m0, m1, from, to, panels, c,
                                                                  stride, add);
      }
    };
    Engine::begin();
    if (!narrow_output) {
      float* c = static_cast<float*>(g.c) + m0 * g.c_stride + n0;
      product(n0, n1, c, g.c_stride, g.accumulate);
    } else {
      for (int64_t n = n0; n < n1; n += band) {
        const int columns = static_cast<int>(n1 - n < band ? n1 - n : band);
        Bf16* c = static_cast<Bf16*>(g.c) + m0 * g.c_stride + n;
        for (int64_t i = 0; g.accumulate && i < m1 - m0; ++i) {
          convert(c + i * g.c_stride, columns, scratch + i * band);
        }
        product(n, n + columns, scratch, band, g.accumulate);
        for (int64_t i = 0; i < m1 - m0; ++i) {
          convert(scratch + i * band, columns, c + i * g.c_stride);
        }
      }
    }
    Engine::end();
  };
  run_phase(session, rectangle);
  return kOk;
}

}  // namespace

int gemm(Session& session, const GemmArguments& arguments) {
  if (arguments.input_dtype == kFloat32) return gemm_typed<float>(session, arguments);
  return gemm_typed<Bf16>(session, arguments);
}

}  // namespace rq::RQ_ISA
