// C functions of the whole-model runtime: create, pack weights, step, copy a block, destroy.
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "runtime.h"

#if defined(__linux__)
#  include <sys/mman.h>
#endif

namespace {

using rq::LayerWeights;
using rq::Matrix;
using rq::ModelShape;
using rq::Runtime;
using rq::StepArguments;

// Zeroed memory from the system, in huge pages where there are some. Pages nobody touches cost
// nothing.
class Memory {
 public:
  explicit Memory(int64_t bytes) : bytes_(static_cast<size_t>(bytes)) {
#if defined(__linux__)
    void* place = mmap(nullptr, bytes_ + kHuge, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED) return;
    mapped_ = place;
    const uintptr_t address = reinterpret_cast<uintptr_t>(place);
    data_ = reinterpret_cast<char*>((address + kHuge - 1) / kHuge * kHuge);
    madvise(data_, bytes_, MADV_HUGEPAGE);
#else
    data_ = static_cast<char*>(aligned_alloc(64, rq::round_up(bytes, 64)));
    if (data_ != nullptr) memset(data_, 0, bytes_);
#endif
  }
  ~Memory() {
#if defined(__linux__)
    if (mapped_ != nullptr) munmap(mapped_, bytes_ + kHuge);
#else
    free(data_);
#endif
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  char* data() const { return data_; }

 private:
  static constexpr size_t kHuge = size_t{2} << 20;
  size_t bytes_;
  char* data_ = nullptr;
  void* mapped_ = nullptr;
};

// Bytes of weights, cache and scratch.
struct Sizes {
  int64_t weights, cache, scratch;
};

struct Owner {
  Runtime runtime = {};
  std::vector<LayerWeights> layers;
  std::vector<Matrix> matrices;
  Memory *weights = nullptr, *cache = nullptr, *scratch = nullptr;
  char* arena = nullptr;  // of the weights: our own, or a file that the caller mapped

  explicit Owner(const ModelShape& shape)
      : layers(static_cast<size_t>(shape.total_layers())),
        matrices(static_cast<size_t>(rq::count_matrices(shape))) {
    runtime.shape = shape;
    runtime.layers = layers.data();
  }
  // What activations are multiplied as on this instruction set (-1: the best one).
  void choose_operands(int isa) {
    const int chosen = isa < 0 ? rq::best_isa() : isa;
    const bool wide = chosen == rq::kAvx512 || chosen == rq::kAmx;
    runtime.byte_offset = wide && rq::has_vnni();
    runtime.bf16_pairs = wide && rq::has_bf16_pairs();
  }

  ~Owner() {
    delete weights;
    delete cache;
    delete scratch;
  }

  Sizes measure(int threads) {
    Sizes sizes;
    sizes.weights = rq::lay_out_weights(runtime, matrices.data(), nullptr);
    sizes.scratch = rq::lay_out_scratch(runtime, nullptr, threads);
    sizes.cache = runtime.shape.total_layers() * runtime.shape.num_blocks * runtime.block_bytes();
    return sizes;
  }

  bool allocate(int threads) {
    const Sizes sizes = measure(threads);
    cache = new Memory(sizes.cache);
    scratch = new Memory(sizes.scratch);
    if (!cache->data() || !scratch->data() || !place_weights(nullptr)) return false;
    rq::lay_out_scratch(runtime, scratch->data(), threads);
    runtime.cache = cache->data();
    runtime.max_threads = threads;
    return true;
  }

  // Weights lie at `packed`, which the caller keeps, or (null) in zeroed memory of our own.
  bool place_weights(char* packed) {
    const int64_t bytes = rq::lay_out_weights(runtime, matrices.data(), nullptr);
    Memory* own = packed == nullptr ? new Memory(bytes) : nullptr;
    char* base = own == nullptr ? packed : own->data();
    if (base == nullptr) {
      delete own;
      return false;
    }
    rq::lay_out_weights(runtime, matrices.data(), base);
    delete weights;
    weights = own;
    arena = base;
    return true;
  }
};

// The published tensors, by what they are in the network; runtime_layout.py numbers them alike.
enum Slot : int {
  kEmbedding,
  kFinalNorm,
  kHead,
  kInputNorm,
  kPostNorm,
  kQueryLatent,
  kQueryNorm,
  kQuery,
  kKeyValueLatent,
  kKeyNorm,
  kKeyValue,
  kOutput,
  kGate,
  kUp,
  kDown,
  kRouter,
  kRouterBias,
  kExpertGate,
  kExpertUp,
  kExpertDown,
  kKey,
  kValue,
  kQueryBias,
  kKeyBias,
  kValueBias,
  kEmbeddingNorm,
  kHiddenNorm,
  kHeadNorm,
  kJoined,
};  // clang-format off

int pack(rq::Session& session, int isa, const Matrix& matrix, const rq::PackSource& source) {
  RQ_DISPATCH(isa, runtime_pack(session, matrix, source))
}

int copy_rows(rq::Session& session, int isa, const float* from, int64_t count, bool wide,
              void* to) {
  RQ_DISPATCH(isa, runtime_copy(session, from, count, wide, to))
}

// One tensor on its way into the arena.
struct Packer {
  rq::Session& session;
  const int isa;
  Runtime& runtime;
  const float* data;

  int whole(const Matrix& m, int64_t rows, int64_t first_column = 0, int half = 0) const {
    return pack(session, isa, m, {data, rows, m.depth, 1, first_column, half});
  }
  int vector(float* to, int64_t count) const {
    memcpy(to, data, static_cast<size_t>(count) * sizeof(float));
    return rq::kOk;
  }
  // Heads [begin, begin + count) of a layer from rows of `width` each.
  int heads(Matrix* matrices, int64_t count, int64_t width) const {
    for (int64_t h = 0; h < count; ++h) {
      const Matrix& m = matrices[h];
      const float* rows = data + h * width * m.depth;
      if (int status = pack(session, isa, m, {rows, width, m.depth, 1, 0, 0})) return status;
    }
    return rq::kOk;
  }
  // kv_b [N (nope + value), C]: its key rows transposed (they fold into the query), its values.
  int key_value(const LayerWeights& w) const {
    const ModelShape& s = runtime.shape;
    for (int64_t h = 0; h < s.heads; ++h) {
      const float* keys = data + h * (s.nope + s.value) * s.kv_rank;
      const float* values = keys + s.nope * s.kv_rank;
      int status = pack(session, isa, w.absorb_key[h], {keys, s.kv_rank, 1, s.kv_rank, 0, 0});
      if (status != rq::kOk) return status;
      status = pack(session, isa, w.absorb_value[h], {values, s.value, s.kv_rank, 1, 0, 0});
      if (status != rq::kOk) return status;
    }
    return rq::kOk;
  }

  int model(int slot) const {
    const ModelShape& s = runtime.shape;
    if (slot == kFinalNorm) return vector(runtime.final_norm, s.hidden);
    if (slot == kHead || (slot == kEmbedding && s.tied)) {
      if (int status = whole(runtime.head, s.vocabulary)) return status;
    }
    if (slot == kHead) return rq::kOk;
    return copy_rows(session, isa, data, s.vocabulary * s.hidden, runtime.wide_embedding,
                     runtime.embedding);
  }

  int layer(int slot, int64_t index, int64_t expert) const {
    const ModelShape& s = runtime.shape;
    LayerWeights& w = runtime.layers[index];
    const bool latent = s.attention == rq::kLatent;
    const int64_t width = w.moe ? s.shared_width : s.intermediate;
    Matrix* keys = w.query_heads + s.heads;
    switch (slot) {
      case kInputNorm: return vector(w.input_norm, s.hidden);
      case kPostNorm: return vector(w.post_norm, s.hidden);
      case kQueryLatent: return whole(w.first, s.q_rank);
      case kQueryNorm: return vector(w.query_norm, latent ? s.q_rank : s.value);
      case kQuery: return heads(w.query_heads, s.heads, latent ? s.nope + s.rope : s.value);
      case kKeyValueLatent: return whole(w.first, s.kv_rank + s.rope, s.q_rank);
      case kKeyNorm: return vector(w.key_norm, latent ? s.kv_rank : s.value);
      case kKeyValue: return key_value(w);
      case kOutput: return whole(w.output, s.hidden);
      case kGate: return whole(w.gate_up, width, 0, 0);
      case kUp: return whole(w.gate_up, width, 0, 1);
      case kDown: return whole(w.down, s.hidden);
      case kRouter: return whole(w.router, s.experts);
      case kRouterBias: return vector(w.router_bias, s.experts);
      case kExpertGate: return whole(w.expert_gate_up[expert], s.expert_width, 0, 0);
      case kExpertUp: return whole(w.expert_gate_up[expert], s.expert_width, 0, 1);
      case kExpertDown: return whole(w.expert_down[expert], s.hidden);
      case kKey: return heads(keys, s.kv_heads, s.value);
      case kValue: return heads(keys + s.kv_heads, s.kv_heads, s.value);
      case kQueryBias: return vector(w.head_bias, s.heads * s.value);
      case kKeyBias: return vector(w.head_bias + s.heads * s.value, s.kv_heads * s.value);
      case kValueBias:
        return vector(w.head_bias + (s.heads + s.kv_heads) * s.value, s.kv_heads * s.value);
      case kEmbeddingNorm: return vector(w.embedding_norm, s.hidden);
      case kHiddenNorm: return vector(w.hidden_norm, s.hidden);
      case kHeadNorm: return vector(w.head_norm, s.hidden);
      case kJoined: return whole(w.joined, s.hidden);
      default: return rq::kBadIndex;
    }
  }
};
// clang-format on

// What is wrong with a step; runtime.py has the words. `where` is the offending index.
enum Problem : int64_t {
  kNothing = 0,
  kTokenId = 1,
  kFirstRows = 2,
  kPosition = 3,
  kTableEnd = 4,
  kBlock = 5,
  kOutputRow = 6,
  kRoute = 7,
};

int64_t find_problem(const Runtime& r, const StepArguments& a, int64_t* where) {
  const ModelShape& s = r.shape;
  for (*where = 0; *where < a.tokens; ++*where) {
    if (a.token_ids[*where] < 0 || a.token_ids[*where] >= s.vocabulary) return kTokenId;
  }
  *where = 0;
  if (a.first_rows[0] != 0 || a.first_rows[a.sequences] != a.tokens) return kFirstRows;
  for (*where = 0; *where < a.sequences; ++*where) {
    const int64_t i = *where, fed = a.first_rows[i + 1] - a.first_rows[i];
    if (fed < 1) return kFirstRows;
    const int64_t length = a.num_cached[i] + fed;
    if (a.num_cached[i] < 0 || length > s.max_positions) return kPosition;
    const int64_t blocks = (length + rq::kBlockTokens - 1) / rq::kBlockTokens;
    if (blocks > a.table_width) return kTableEnd;
    for (int64_t block = 0; block < blocks; ++block) {
      const int32_t place = a.block_tables[i * a.table_width + block];
      if (place < 0 || place >= s.num_blocks) return kBlock;
    }
  }
  for (*where = 0; *where < a.outputs; ++*where) {
    const int32_t row = a.output_rows[*where];
    const int32_t before = *where > 0 ? a.output_rows[*where - 1] : -1;
    if (row <= before || row >= a.tokens) return kOutputRow;
  }
  if (a.replay != nullptr) {
    const int64_t slots = a.tokens * s.moe_layers() * s.chosen;
    for (*where = 0; *where < slots; ++*where) {
      if (a.replay[*where] < 0 || a.replay[*where] >= s.experts) return kRoute;
    }
  }
  return kNothing;
}

int run_step(rq::Session& session, int isa, const Runtime& runtime, const StepArguments& step) {
  RQ_DISPATCH(isa, runtime_step(session, runtime, step))
}

}  // namespace

// Bytes that a runtime of this shape takes.
RQ_API int rq_runtime_measure(int isa, int threads, const ModelShape* shape, int64_t* sizes) {
  Owner owner(*shape);
  owner.choose_operands(isa);
  const Sizes found = owner.measure(threads);
  sizes[0] = found.weights;
  sizes[1] = found.cache;
  sizes[2] = found.scratch;
  return rq::kOk;
}

// A runtime with all weights zero; the rotation tables stay the caller's. Null if memory is out.
RQ_API int rq_runtime_create(int isa, int threads, const ModelShape* shape, const float* rope_cos,
                             const float* rope_sin, void** handle) {
  auto* owner = new Owner(*shape);
  owner->choose_operands(isa);
  if (!owner->allocate(threads)) {
    delete owner;
    return rq::kOutOfMemory;
  }
  owner->runtime.rope_cos = rope_cos;
  owner->runtime.rope_sin = rope_sin;
  *handle = owner;
  return rq::kOk;
}

RQ_API int rq_runtime_destroy(int, int, void* handle) {
  delete static_cast<Owner*>(handle);
  return rq::kOk;
}

// Where the packed weights lie, so that they can be kept in a file.
RQ_API int rq_runtime_weights(int, int, void* handle, void** address) {
  *address = static_cast<Owner*>(handle)->arena;
  return rq::kOk;
}

// Takes packed weights that lie at `address` (64-byte aligned, perhaps read-only; the caller keeps
// them while the runtime uses them), or with null zeroed memory of its own, ready to be packed.
RQ_API int rq_runtime_place_weights(int, int, void* handle, void* address) {
  Owner* owner = static_cast<Owner*>(handle);
  return owner->place_weights(static_cast<char*>(address)) ? rq::kOk : rq::kOutOfMemory;
}

// Packs one published tensor; layer < 0: of the whole model. Python has checked its shape.
RQ_API int rq_runtime_pack(int isa, int threads, void* handle, int slot, int64_t layer,
                           int64_t expert, const float* data) {
  rq::Session session(threads);
  const Packer packer = {session, isa, static_cast<Owner*>(handle)->runtime, data};
  return layer < 0 ? packer.model(slot) : packer.layer(slot, layer, expert);
}

// One step. problem[0] names what is wrong with the arguments (0: nothing), problem[1] where.
RQ_API int rq_runtime_step(int isa, int threads, void* handle, const StepArguments* step,
                           int64_t* problem) {
  const Runtime& runtime = static_cast<Owner*>(handle)->runtime;
  problem[0] = find_problem(runtime, *step, problem + 1);
  if (problem[0] != kNothing) return rq::kOk;
  rq::Session session(threads < runtime.max_threads ? threads
                                                    : static_cast<int>(runtime.max_threads));
  return run_step(session, isa, runtime, *step);
}

RQ_API int rq_runtime_copy_block(int, int, void* handle, int64_t source, int64_t target) {
  const Runtime& runtime = static_cast<Owner*>(handle)->runtime;
  const int64_t bytes = runtime.block_bytes();
  for (int64_t layer = 0; layer < runtime.shape.total_layers(); ++layer) {
    char* cache = runtime.layer_cache(layer);
    memcpy(cache + target * bytes, cache + source * bytes, static_cast<size_t>(bytes));
  }
  return rq::kOk;
}
