// The thread pool: one for the process, no work stealing.
//
// A kernel opens a Session (one kernel runs at a time), takes scratch memory from it, and runs
// phases: each phase calls a function once per part, part p always on the same slice of the work,
// so that a seed and a thread count repeat bit for bit. Idle workers spin for about 30 microseconds
// (a training step calls many kernels in a row) and then sleep in the kernel.
#pragma once

#include <cstddef>

namespace rq {

using PhaseFunction = void (*)(void* argument, int part);

class Session {
 public:
  // Waits for other kernels to end. `threads` is the number of parts, at least 1.
  explicit Session(int threads);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  int threads() const { return threads_; }

  // Scratch for this session, 64-byte aligned, uninitialised; nullptr if memory is out.
  // The block is kept for the next kernel. One call per session.
  void* workspace(size_t bytes);

  // Calls function(argument, part) for each part in [0, threads) and waits for all.
  void run(PhaseFunction function, void* argument);

 private:
  int threads_;
};

// Runs a callable (int part) as one phase. Static: see the note on inline functions in isa.h.
template <typename Callable>
static inline void run_phase(Session& session, Callable& callable) {
  session.run([](void* argument, int part) { (*static_cast<Callable*>(argument))(part); },
              &callable);
}

// First index of part `part` when `count` items are cut into `parts` slices of multiples of `unit`.
static inline long slice_begin(long count, int parts, int part, long unit = 1) {
  const long units = (count + unit - 1) / unit;
  const long begin = units * part / parts * unit;
  return begin < count ? begin : count;
}

}  // namespace rq
