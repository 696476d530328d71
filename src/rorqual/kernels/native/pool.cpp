#include "pool.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#  include <linux/futex.h>
#  include <sys/mman.h>
#  include <sys/syscall.h>
#  include <unistd.h>
#else
#  include <condition_variable>
#endif

namespace rq {
namespace {

constexpr auto kSpin = std::chrono::microseconds(30);
constexpr size_t kHugePage = size_t{2} << 20;

inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// A counter on which threads wait: spinning first, then asleep.
struct alignas(64) Counter {
  std::atomic<uint32_t> value{0};
  std::atomic<uint32_t> sleepers{0};
#if !defined(__linux__)
  std::mutex mutex;
  std::condition_variable changed;
#endif

  // Returns once the value differs from `seen`.
  void wait_while(uint32_t seen) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < 32; ++i) {
        if (value.load(std::memory_order_acquire) != seen) return;
        pause_cpu();
      }
    } while (std::chrono::steady_clock::now() < deadline);
    sleepers.fetch_add(1);
#if defined(__linux__)
    while (value.load() == seen) {
      syscall(SYS_futex, reinterpret_cast<uint32_t*>(&value), FUTEX_WAIT_PRIVATE, seen, nullptr,
              nullptr, 0);
    }
#else
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return value.load() != seen; });
#endif
    sleepers.fetch_sub(1);
  }

  void add(uint32_t amount) {
    value.fetch_add(amount);
    if (sleepers.load() == 0) return;
#if defined(__linux__)
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&value), FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr,
            nullptr, 0);
#else
    std::lock_guard<std::mutex> lock(mutex);
    changed.notify_all();
#endif
  }
};

struct Worker {
  Counter ticket;  // one more per phase that this worker takes part in
  std::thread thread;
};

class Pool {
 public:
  std::mutex busy;

  void run(int parts, PhaseFunction function, void* argument) {
    if (parts > 1) {
      while (static_cast<int>(workers_.size()) < parts - 1) add_worker();
      function_ = function;
      argument_ = argument;
      pending_.value.store(static_cast<uint32_t>(parts - 1));
      for (int i = 0; i < parts - 1; ++i) workers_[i]->ticket.add(1);
    }
    function(argument, 0);
    if (parts > 1) {
      uint32_t left;
      while ((left = pending_.value.load(std::memory_order_acquire)) != 0) {
        pending_.wait_while(left);
      }
    }
  }

  void* workspace(size_t bytes) {
    if (bytes <= capacity_) return block_;
    std::free(block_);
    capacity_ = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    block_ = std::aligned_alloc(kHugePage, capacity_);
    if (block_ == nullptr) {
      capacity_ = 0;
      return nullptr;
    }
#if defined(__linux__)
    madvise(block_, capacity_, MADV_HUGEPAGE);
#endif
    return block_;
  }

 private:
  void add_worker() {
    auto* worker = new Worker;
    const int part = static_cast<int>(workers_.size()) + 1;
    workers_.push_back(worker);
    worker->thread = std::thread([this, worker, part] { serve(worker, part); });
    worker->thread.detach();
  }

  void serve(Worker* worker, int part) {
    for (uint32_t seen = 0;; ++seen) {
      worker->ticket.wait_while(seen);
      function_(argument_, part);
      pending_.add(static_cast<uint32_t>(-1));
    }
  }

  std::vector<Worker*> workers_;
  PhaseFunction function_ = nullptr;
  void* argument_ = nullptr;
  Counter pending_;
  void* block_ = nullptr;
  size_t capacity_ = 0;
};

std::atomic<Pool*> current_pool{nullptr};

// The pool lives as long as the process: workers may still sleep in it at exit, so it is never
// destroyed. A forked child has no workers and perhaps a locked mutex, so it starts a new pool.
Pool& pool() {
  static std::once_flag once;
  std::call_once(once, [] {
    current_pool.store(new Pool);
    pthread_atfork(nullptr, nullptr, [] { current_pool.store(new Pool); });
  });
  return *current_pool.load();
}

}  // namespace

Session::Session(int threads) : threads_(threads < 1 ? 1 : threads) { pool().busy.lock(); }

Session::~Session() { pool().busy.unlock(); }

void* Session::workspace(size_t bytes) { return pool().workspace(bytes); }

void Session::run(PhaseFunction function, void* argument) {
  pool().run(threads_, function, argument);
}

}  // namespace rq
