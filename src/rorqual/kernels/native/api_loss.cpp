// C function of softmax cross entropy.
#include "abi.h"
#include "loss.h"

RQ_API int rq_cross_entropy(int isa, int threads, int64_t rows, int64_t vocabulary, float* logits,
                            const int64_t* targets, float* losses, int grad_dtype, void* grads) {
  const rq::CrossEntropyArgs args = {rows, vocabulary, logits, targets, losses, grad_dtype, grads};
  RQ_DISPATCH(isa, cross_entropy(args, threads))
}
